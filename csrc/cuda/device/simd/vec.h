// What csrc/simd/vec.h is to a processor's vectors, for a GPU's threads: each holds one element,
// so a cell's file (csrc/cells) serves both.
//
// Relative errors: tanh 3e-7, sigmoid 2e-7 where it is not tiny.
#pragma once

#include <device.h>

#define DTWIN_CELL DTWIN_DEVICE

namespace dtwin::DTWIN_ISA {

template <class F>
using Vec = F;

template <class F>
constexpr F kLog2E = F(1.44269504088896341);

// (1 - e) / (1 + e) with e = exp(-2|x|), which cannot overflow; 1 - e cancels near 0, where an odd
// polynomial takes over (least squares of the relative error on |x| < 1/2: 1.6e-8).
template <class F>
DTWIN_DEVICE F tanh(F x) {
    const F magnitude = x < F(0) ? -x : x, square = x * x;
    const F e = gpu::quick_exp2(F(-2) * kLog2E<F> * magnitude);
    const F large = gpu::quick_divide(F(1) - e, F(1) + e);
    F series = gpu::fma(F(0.01723548), square, F(-0.05304221));
    series = gpu::fma(series, square, F(0.13325822));
    series = gpu::fma(series, square, F(-0.3333314));
    const F small = gpu::fma(x * square, series, x);
    return magnitude < F(0.5) ? small : x < F(0) ? -large : large;
}

// 1 / (1 + exp(-x)), through exp(-|x|).
template <class F>
DTWIN_DEVICE F sigmoid(F x) {
    const F e = gpu::quick_exp2(kLog2E<F> * (x < F(0) ? x : -x));
    return gpu::quick_divide(x < F(0) ? e : F(1), F(1) + e);
}

}  // namespace dtwin::DTWIN_ISA
