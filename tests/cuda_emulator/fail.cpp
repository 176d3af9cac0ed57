#include "fail.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>

namespace dtwin::emulator {

const char* kernel_name = nullptr;

void fail(const char* format, ...) {
    std::fputs("emulated GPU: ", stderr);
    if (kernel_name) std::fprintf(stderr, "kernel %s: ", kernel_name);
    va_list arguments;
    va_start(arguments, format);
    std::vfprintf(stderr, format, arguments);
    va_end(arguments);
    std::fputc('\n', stderr);
    std::abort();
}

}  // namespace dtwin::emulator
