#pragma once

namespace dtwin::emulator {

// A program's error that a GPU would not survive either, or would hide: one line on stderr, with
// the kernel's name if one runs, and the end of the process.
[[noreturn, gnu::format(printf, 1, 2)]] void fail(const char* format, ...);

extern const char* kernel_name;  // of the kernel that runs, or null

}  // namespace dtwin::emulator
