// bfloat16: the upper half of a float. Weights are kept in it to halve what a step reads from
// cache; they are widened exactly as they are read, and all arithmetic is in float.
#pragma once

#include <cstdint>

#include "simd/vec.h"

namespace dtwin::DTWIN_ISA {

struct BFloat16 {
    uint16_t bits;
};

// v as W keeps it: itself, or rounded to bfloat16, to the nearest, ties to even; NaN stays NaN.
template <class W, class F>
inline Vec<F> as_kept(Vec<F> v) {
    if constexpr (sizeof(W) == sizeof(F)) return v;
    using Bits = typename Lanes<F>::Bits;
    const Bits bits = (Bits)v;
    const Bits rounded = bits + 0x7fffu + (bits >> 16 & 1u);
    return (Vec<F>)((v != v ? bits | 0x400000u : rounded) & 0xffff0000u);
}

}  // namespace dtwin::DTWIN_ISA
