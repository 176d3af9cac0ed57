// Elman cell with tanh, as torch.nn.RNN: h' = tanh(W_ih x + b_ih + W_hh h + b_hh).
#pragma once

#include "simd/vec.h"

namespace dtwin::DTWIN_ISA {

struct Rnn {
    static constexpr int kGates = 1;
    static constexpr int kStates = 1;

    // x = W_ih x_t + b_ih and h = W_hh h_{t-1} + b_hh, by gate; state is replaced.
    template <class F>
    static void forward(const Vec<F>* x, const Vec<F>* h, Vec<F>* state) {
        state[0] = tanh<F>(x[0] + h[0]);
    }
};

}  // namespace dtwin::DTWIN_ISA
