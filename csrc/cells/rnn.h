// Elman cell with tanh, as torch.nn.RNN: h' = tanh(W_ih x + b_ih + W_hh h + b_hh).
#pragma once

#include "simd/vec.h"

namespace dtwin::DTWIN_ISA {

struct Rnn {
    static constexpr int kGates = 1;
    static constexpr int kStates = 1;
    static constexpr int kSlots = 1;           // what backward() takes and leaves
    static constexpr bool kKeepsState = true;  // the state, and nothing else

    // The slot where backward() leaves the gradient of a gate's h.
    DTWIN_CELL static constexpr int hidden_slot(int gate) { return gate; }

    // x = W_ih x_t + b_ih and h = W_hh h_{t-1} + b_hh, by gate; state is replaced.
    template <class F>
    DTWIN_CELL static void forward(const Vec<F>* x, const Vec<F>* h, Vec<F>* state, Vec<F>* slots) {
        state[0] = tanh<F>(x[0] + h[0]);
        slots[0] = state[0];
    }

    // Turns forward's slots into the gradients of x (in the first slots) and h, and the gradient
    // of the state after the step into that of the state before, but for the way through h.
    template <class F>
    DTWIN_CELL static void backward(const Vec<F>*, const Vec<F>*, Vec<F>* d_state, Vec<F>* slots) {
        slots[0] = d_state[0] * (F(1) - slots[0] * slots[0]);
        d_state[0] = Vec<F>{};
    }
};

}  // namespace dtwin::DTWIN_ISA
