// Long short-term memory, gates i, f, g, o, as torch.nn.LSTM:
// c' = sigmoid(f) c + sigmoid(i) tanh(g); h' = sigmoid(o) tanh(c').
#pragma once

#include "simd/vec.h"

namespace dtwin::DTWIN_ISA {

struct Lstm {
    static constexpr int kGates = 4;
    static constexpr int kStates = 2;

    // x = W_ih x_t + b_ih and h = W_hh h_{t-1} + b_hh, by gate; state (h, c) is replaced.
    template <class F>
    static void forward(const Vec<F>* x, const Vec<F>* h, Vec<F>* state) {
        const Vec<F> i = sigmoid<F>(x[0] + h[0]);
        const Vec<F> f = sigmoid<F>(x[1] + h[1]);
        const Vec<F> g = tanh<F>(x[2] + h[2]);
        const Vec<F> o = sigmoid<F>(x[3] + h[3]);
        state[1] = f * state[1] + i * g;
        state[0] = o * tanh<F>(state[1]);
    }
};

}  // namespace dtwin::DTWIN_ISA
