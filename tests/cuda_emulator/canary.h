// Words around memory that nobody may write. They are a NaN, so that reading them shows too.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace dtwin::emulator {

constexpr size_t kCanaryBytes = 256;
constexpr int kPoison = 0xff;  // a byte of fresh memory: floats of it are NaN

inline unsigned char canary_byte(size_t i) {
    constexpr unsigned char kWord[] = {0xee, 0xff, 0xc0, 0x7f};
    return kWord[i % sizeof kWord];
}

inline void put_canary(char* at, size_t bytes) {
    for (size_t i = 0; i < bytes; ++i) at[i] = static_cast<char>(canary_byte(i));
}

// The first byte that changed, or bytes.
inline size_t changed_canary(const char* at, size_t bytes) {
    size_t i = 0;
    while (i < bytes && static_cast<unsigned char>(at[i]) == canary_byte(i)) ++i;
    return i;
}

}  // namespace dtwin::emulator
