// Gated recurrent unit, gates r, z, n, reset applied after the matrix product, as torch.nn.GRU:
// r = sigmoid(x_r + h_r); z = sigmoid(x_z + h_z); n = tanh(x_n + r h_n); h' = n + z (h - n).
#pragma once

#include "simd/vec.h"

namespace dtwin::DTWIN_ISA {

struct Gru {
    static constexpr int kGates = 3;
    static constexpr int kStates = 1;
    static constexpr int kSlots = 4;  // what backward() takes and leaves
    static constexpr bool kKeepsState = false;

    // The slot where backward() leaves the gradient of a gate's h.
    DTWIN_CELL static constexpr int hidden_slot(int gate) { return gate < 2 ? gate : 3; }

    // x = W_ih x_t + b_ih and h = W_hh h_{t-1} + b_hh, by gate; state is replaced.
    template <class F>
    DTWIN_CELL static void forward(const Vec<F>* x, const Vec<F>* h, Vec<F>* state, Vec<F>* slots) {
        const Vec<F> r = sigmoid<F>(x[0] + h[0]);
        const Vec<F> z = sigmoid<F>(x[1] + h[1]);
        const Vec<F> n = tanh<F>(x[2] + r * h[2]);
        state[0] = n + z * (state[0] - n);
        slots[0] = r, slots[1] = z, slots[2] = n, slots[3] = h[2];
    }

    // Turns forward's slots into the gradients of x (in the first slots) and h, and the gradient
    // of the state after the step into that of the state before, but for the way through h.
    template <class F>
    DTWIN_CELL static void backward(const Vec<F>* before, const Vec<F>*, Vec<F>* d_state,
                                    Vec<F>* slots) {
        const Vec<F> r = slots[0], z = slots[1], n = slots[2], h_n = slots[3];
        const Vec<F> d_n = d_state[0] * (F(1) - z) * (F(1) - n * n);
        slots[0] = d_n * h_n * r * (F(1) - r);
        slots[1] = d_state[0] * (before[0] - n) * z * (F(1) - z);
        slots[2] = d_n;
        slots[3] = d_n * r;
        d_state[0] = d_state[0] * z;
    }
};

}  // namespace dtwin::DTWIN_ISA
