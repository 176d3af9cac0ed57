// Long short-term memory, gates i, f, g, o, as torch.nn.LSTM:
// c' = sigmoid(f) c + sigmoid(i) tanh(g); h' = sigmoid(o) tanh(c').
#pragma once

#include "simd/vec.h"

namespace dtwin::DTWIN_ISA {

struct Lstm {
    static constexpr int kGates = 4;
    static constexpr int kStates = 2;
    static constexpr int kSlots = 4;  // what backward() takes and leaves
    static constexpr bool kKeepsState = false;

    // The slot where backward() leaves the gradient of a gate's h.
    DTWIN_CELL static constexpr int hidden_slot(int gate) { return gate; }

    // x = W_ih x_t + b_ih and h = W_hh h_{t-1} + b_hh, by gate; state (h, c) is replaced.
    template <class F>
    DTWIN_CELL static void forward(const Vec<F>* x, const Vec<F>* h, Vec<F>* state, Vec<F>* slots) {
        const Vec<F> i = sigmoid<F>(x[0] + h[0]);
        const Vec<F> f = sigmoid<F>(x[1] + h[1]);
        const Vec<F> g = tanh<F>(x[2] + h[2]);
        const Vec<F> o = sigmoid<F>(x[3] + h[3]);
        state[1] = f * state[1] + i * g;
        state[0] = o * tanh<F>(state[1]);
        slots[0] = i, slots[1] = f, slots[2] = g, slots[3] = o;
    }

    // Turns forward's slots into the gradients of x (in the first slots) and h, and the gradient
    // of the state after the step into that of the state before, but for the way through h.
    template <class F>
    DTWIN_CELL static void backward(const Vec<F>* before, const Vec<F>* after, Vec<F>* d_state,
                                    Vec<F>* slots) {
        const Vec<F> i = slots[0], f = slots[1], g = slots[2], o = slots[3];
        const Vec<F> tanh_c = tanh<F>(after[1]);
        const Vec<F> d_c = d_state[1] + d_state[0] * o * (F(1) - tanh_c * tanh_c);
        slots[0] = d_c * g * i * (F(1) - i);
        slots[1] = d_c * before[1] * f * (F(1) - f);
        slots[2] = d_c * i * (F(1) - g * g);
        slots[3] = d_state[0] * tanh_c * o * (F(1) - o);
        d_state[0] = Vec<F>{};
        d_state[1] = d_c * f;
    }
};

}  // namespace dtwin::DTWIN_ISA
