// The time loop of the gradients, from the last step to the first: product of the transposed kept
// weights with the gradients of the gates after, the cell, one barrier.
#pragma once

#include "forward.h"

namespace dtwin::gpu {

template <class Cell, class Format, int kUnits, int kLanes, int kFours>
class Backward {
    static constexpr int kGates = Cell::kGates;
    static constexpr int kStates = Cell::kStates;

    // What a step reads from memory. It is brought near kAhead steps before, and asked for one.
    static constexpr int kAhead = 4;
    struct Step {
        float d_state, before[kStates], after[kStates], slots[Cell::kSlots];
    };

  public:
    DTWIN_DEVICE explicit Backward(const BackwardParams& params)
        : p(params),
          loop(params.loop),
          me(params.loop),
          gates_(loop, me, kGates * loop.H),
          first_row_(me.sequence(0, loop.B) * loop.T),
          d_states_(reinterpret_cast<float*>(shared_memory() + p.at_d_states)) {}

    DTWIN_DEVICE void run() {
        take_weights();
        take_final_gradients();
        gates_.begin();
        Step next = ask(loop.T - 1, 0);
        DTWIN_ROLLED
        for (int t = loop.T - 1; t >= 0; --t) {
            DTWIN_ROLLED
            for (int b = 0; b < me.count; ++b) {
                const Step now = next;
                next = b + 1 < me.count ? ask(t, b + 1) : ask(t - 1, 0);
                retreat(t, b, now);
            }
            gates_.finish(loop.T - t);
        }
        DTWIN_ROLLED
        for (int b = 0; b < me.count; ++b) {
            float d_h;
            weights_.multiply(gates_.fours(loop.T, b), &d_h);
            if (!me.owns) continue;
            const int64_t to = me.sequence(b, loop.B) * loop.H + me.unit;
            p.d_h0[to] = *d_state(b, 0) + d_h;
            if constexpr (kStates > 1) p.d_c0[to] = *d_state(b, 1);
        }
    }

  private:
    // Of this thread's unit: the gradient of a state after the step to come, but for the way
    // through the product.
    DTWIN_DEVICE float* d_state(int b, int state) const {
        return d_states_ + (b * kStates + state) * loop.units + me.local;
    }

    DTWIN_DEVICE void take_weights() {
        const float* w_hh = loop.w_hh + me.subject * loop.w_hh_stride;
        weights_.take(shared_memory() + loop.at_weights, loop, [&](int u, int, int column, int H) {
            const int local = me.group_unit + u, unit = me.rank * loop.units + local;
            const bool there = local < loop.units && unit < H && column < kGates * H;
            return there ? w_hh[column * H + unit] : 0.0f;
        });
    }

    DTWIN_DEVICE void take_final_gradients() {
        if (!me.owns) return;
        for (int b = 0; b < me.count; ++b) {
            const int64_t from = me.sequence(b, loop.B) * loop.H + me.unit;
            *d_state(b, 0) = p.d_h_final ? p.d_h_final[from] : 0.0f;
            if constexpr (kStates > 1) *d_state(b, 1) = p.d_c_final ? p.d_c_final[from] : 0.0f;
        }
    }

    DTWIN_DEVICE Step ask(int t, int b) const {
        Step step = {};
        if (!me.owns || t < 0) return step;
        const int H = loop.H;
        const int64_t row = first_row_ + static_cast<int64_t>(b) * loop.T + t;
        const int64_t first = me.sequence(b, loop.B) * H + me.unit;
        const bool more = t >= kAhead;
        step.d_state = read(p.d_states + row * H + me.unit, more, H);
        const float* states = p.states + row * H + me.unit;
        const float* kept = p.kept + row * kKept<Cell> * H + me.unit;
        if constexpr (Cell::kKeepsState) {
            step.slots[0] = read(states, more, H);
        } else {
            DTWIN_UNROLL
            for (int k = 0; k < Cell::kSlots; ++k) {
                step.slots[k] = read(kept + k * H, more, kKept<Cell> * H);
            }
            step.before[0] = t ? read(states - H, t > kAhead, H) : p.h0 ? p.h0[first] : 0.0f;
        }
        if constexpr (kStates > 1) {
            const float* c = kept + Cell::kSlots * H;
            step.after[1] = *c;
            step.before[1] = t      ? read(c - kKept<Cell> * H, t > kAhead, kKept<Cell> * H)
                             : p.c0 ? p.c0[first]
                                    : 0.0f;
        }
        return step;
    }

    // What is there; with `more`, what is there kAhead rows before is brought near.
    static DTWIN_DEVICE float read(const float* from, bool more, int row) {
        if (more) prefetch(from - kAhead * row);
        return *from;
    }

    DTWIN_DEVICE void retreat(int t, int b, Step now) {
        float d_h;
        weights_.multiply(gates_.fours(loop.T - 1 - t, b), &d_h);
        if (!me.owns) return;

        float d[kStates];
        d[0] = *d_state(b, 0) + d_h + now.d_state;
        if constexpr (kStates > 1) d[1] = *d_state(b, 1);
        Cell::template backward<float>(now.before, now.after, d, now.slots);
        DTWIN_UNROLL
        for (int k = 0; k < kStates; ++k) *d_state(b, k) = d[k];
        DTWIN_UNROLL
        for (int g = 0; g < kGates; ++g) {
            gates_.tell(loop.T - t, b, g * loop.H + me.unit, now.slots[Cell::hidden_slot(g)]);
        }
        const int64_t row = first_row_ + static_cast<int64_t>(b) * loop.T + t;
        DTWIN_UNROLL
        for (int k = 0; k < Cell::kSlots; ++k) {
            p.kept[(row * kKept<Cell> + k) * loop.H + me.unit] = now.slots[k];
        }
    }

    const BackwardParams& p;
    const Loop& loop;
    const Place<kUnits, kLanes> me;
    Stationary<Format, kUnits, 1, kLanes, kFours> weights_;
    const Vectors gates_;      // the gradients of the gates of a step
    const int64_t first_row_;  // of the block's sequences among all S * B * T steps
    float* const d_states_;
};

}  // namespace dtwin::gpu
