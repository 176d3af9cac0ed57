#include "fatbins.h"

#include <cstring>

// fatbins.def, which CMake writes, has a line DTWIN_FATBIN(name, path) for each file of kernels.
#define DTWIN_FATBIN(name, path)      \
    asm(".pushsection .rodata\n"      \
        ".balign 16\n"                \
        ".globl dtwin_fatbin_" #name  \
        "\n"                          \
        ".hidden dtwin_fatbin_" #name \
        "\n"                          \
        "dtwin_fatbin_" #name         \
        ":\n"                         \
        ".incbin \"" path             \
        "\"\n"                        \
        ".popsection\n");             \
    extern "C" const char dtwin_fatbin_##name[] __attribute__((visibility("hidden")));
#include "fatbins.def"
#undef DTWIN_FATBIN

namespace dtwin::gpu {

const void* fatbin(const char* name) {
#define DTWIN_FATBIN(file, path) \
    if (!std::strcmp(name, #file)) return dtwin_fatbin_##file;
#include "fatbins.def"
#undef DTWIN_FATBIN
    return nullptr;
}

}  // namespace dtwin::gpu
