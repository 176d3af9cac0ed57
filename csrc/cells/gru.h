// Gated recurrent unit, gates r, z, n, reset applied after the matrix product, as torch.nn.GRU:
// r = sigmoid(x_r + h_r); z = sigmoid(x_z + h_z); n = tanh(x_n + r h_n); h' = n + z (h - n).
#pragma once

#include "simd/vec.h"

namespace dtwin::DTWIN_ISA {

struct Gru {
    static constexpr int kGates = 3;
    static constexpr int kStates = 1;

    // x = W_ih x_t + b_ih and h = W_hh h_{t-1} + b_hh, by gate; state is replaced.
    template <class F>
    static void forward(const Vec<F>* x, const Vec<F>* h, Vec<F>* state) {
        const Vec<F> r = sigmoid<F>(x[0] + h[0]);
        const Vec<F> z = sigmoid<F>(x[1] + h[1]);
        const Vec<F> n = tanh<F>(x[2] + r * h[2]);
        state[0] = n + z * (state[0] - n);
    }
};

}  // namespace dtwin::DTWIN_ISA
