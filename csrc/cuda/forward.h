// The time loop of a rollout: product of the kept weights with the states, the cell, one barrier.
#pragma once

#include "params.h"
#include "stationary.h"

namespace dtwin::gpu {

// Slots of a step that the way back needs, and after them the second state where there is one.
template <class Cell>
constexpr int kKept = Cell::kSlots + Cell::kStates - 1;

template <class Cell, class Format, int kUnits, int kLanes, int kFours>
class Forward {
    static constexpr int kGates = Cell::kGates;

  public:
    DTWIN_DEVICE explicit Forward(const ForwardParams& params)
        : p(params),
          loop(params.loop),
          me(params.loop),
          h_(loop, me, loop.H),
          c_(at<float>(p.at_c)),
          w_ih_(at<Four>(p.at_w_ih)),
          inputs_(at<Four>(p.at_inputs)),
          first_row_(me.sequence(0, loop.B) * loop.T),
          projected_(at<float>(p.at_projected)),
          biases_(at<float>(p.at_biases)) {}

    DTWIN_DEVICE void run() {
        take_weights();
        take_initial_state();
        h_.begin();
        DTWIN_ROLLED
        for (int t = 0, left = 0; t < loop.T; ++t, --left) {
            if (left == 0) {
                take_inputs(t);
                left = p.input_steps;
            }
            DTWIN_ROLLED
            for (int b = 0; b < me.count; ++b) step(t, p.input_steps - left, b);
            h_.finish(t + 1);
        }
        if (me.owns) {
            for (int b = 0; b < me.count; ++b) give_final(b);
        }
        if (p.peaks) give_peak();
    }

  private:
    template <class T>
    static DTWIN_DEVICE T* at(int offset) {
        return reinterpret_cast<T*>(shared_memory() + offset);
    }

    DTWIN_DEVICE void take_weights() {
        const int H = loop.H, I = loop.I;
        const float* w_hh = loop.w_hh + me.subject * loop.w_hh_stride;
        weights_.take(at<char>(loop.at_weights), loop, [&](int u, int g, int column, int H) {
            const int local = me.group_unit + u, unit = me.rank * loop.units + local;
            const bool there = local < loop.units && unit < H && column < H;
            return there ? w_hh[(g * H + unit) * H + column] : 0.0f;
        });

        const float* w_ih = p.w_ih + me.subject * p.w_ih_stride;
        for (int i = thread_index(); i < kGates * p.input_fours * loop.units; i += thread_count()) {
            const int local = i % loop.units, four = i / loop.units % p.input_fours;
            const int g = i / loop.units / p.input_fours, unit = me.rank * loop.units + local;
            Four w;
            DTWIN_UNROLL
            for (int j = 0; j < 4; ++j) {
                const int column = 4 * four + j;
                w.at[j] =
                    unit < H && column < I
                        ? Format::rounded(w_ih[static_cast<int64_t>(g * H + unit) * I + column])
                        : 0.0f;
            }
            w_ih_[i] = w;
        }
        if (!me.owns) return;
        DTWIN_UNROLL
        for (int g = 0; g < kGates; ++g) {
            const int row = g * H + me.unit;
            *bias(g, 0) = Format::rounded(p.b_ih[me.subject * p.b_ih_stride + row]);
            *bias(g, 1) = Format::rounded(p.b_hh[me.subject * p.b_hh_stride + row]);
        }
    }

    DTWIN_DEVICE void take_initial_state() {
        block_barrier();
        for (int b = 0; p.h0 && b < me.count; ++b) {
            const float* from = p.h0 + me.sequence(b, loop.B) * loop.H;
            for (int j = thread_index(); j < loop.H; j += thread_count()) h_.at(0, b)[j] = from[j];
        }
        if (!me.owns) return;
        for (int b = 0; b < me.count; ++b) {
            if constexpr (Cell::kStates > 1) {
                c_[b * loop.units + me.local] =
                    p.c0 ? p.c0[me.sequence(b, loop.B) * loop.H + me.unit] : 0.0f;
            }
            for (int k = 0; p.projected && k < p.K; ++k) *projected(b, k) = 0.0f;
        }
    }

    // The inputs of the steps from t on, with zeros up to whole fours.
    DTWIN_DEVICE void take_inputs(int t) {
        const int I = loop.I, padded = 4 * p.input_fours;
        const int steps = loop.T - t < p.input_steps ? loop.T - t : p.input_steps;
        float* to = reinterpret_cast<float*>(inputs_);
        for (int b = 0; b < me.count; ++b) {
            const float* from = p.inputs + me.subject * p.inputs_subject_stride +
                                (me.first + b) * p.inputs_sequence_stride +
                                static_cast<int64_t>(t) * I;
            DTWIN_UNROLL_4
            for (int i = thread_index(); i < steps * padded; i += thread_count()) {
                const int column = i % padded, step = i / padded;
                to[(b * p.input_steps + step) * padded + column] =
                    column < I ? from[static_cast<int64_t>(step) * I + column] : 0.0f;
            }
        }
        block_barrier();
    }

    // `input`: the step among those whose inputs are in shared memory.
    DTWIN_DEVICE void step(int t, int input, int b) {
        float x[kGates] = {}, h[kGates];
        if (me.owns) project_inputs(b, input, x);  // no step waits for this
        weights_.multiply(h_.fours(t, b), h);
        if (!me.owns) return;

        float state[Cell::kStates], slots[Cell::kSlots];
        DTWIN_UNROLL
        for (int g = 0; g < kGates; ++g) h[g] += *bias(g, 1);
        state[0] = h_.at(t, b)[me.unit];
        if constexpr (Cell::kStates > 1) state[1] = c_[b * loop.units + me.local];
        Cell::template forward<float>(x, h, state, slots);
        if constexpr (Cell::kStates > 1) c_[b * loop.units + me.local] = state[1];
        h_.tell(t + 1, b, me.unit, state[0]);

        const float magnitude = state[0] < 0.0f ? -state[0] : state[0];
        if (!(magnitude <= peak_))
            peak_ = magnitude == magnitude ? magnitude : float_of(0x7f800000u);
        give_step(t, b, state, slots);
    }

    // W_ih x_t + b_ih of this thread's unit, by gate.
    DTWIN_DEVICE void project_inputs(int b, int step, float* x) const {
        DTWIN_UNROLL
        for (int g = 0; g < kGates; ++g) x[g] = *bias(g, 0);
        DTWIN_UNROLL_2
        for (int f = 0; f < p.input_fours; ++f) {
            const Four v = inputs_[(b * p.input_steps + step) * p.input_fours + f];
            DTWIN_UNROLL
            for (int g = 0; g < kGates; ++g) {
                const Four w = w_ih_[(g * p.input_fours + f) * loop.units + me.local];
                DTWIN_UNROLL
                for (int i = 0; i < 4; ++i) x[g] = fma(w.at[i], v.at[i], x[g]);
            }
        }
    }

    DTWIN_DEVICE void give_step(int t, int b, const float* state, const float* slots) {
        const int step = b * loop.T + t;  // of the block's sequences
        if (p.states) {
            p.states[first_row_ * loop.H + static_cast<int64_t>(step) * loop.H + me.unit] =
                state[0];
        }
        if (p.kept) {
            const int width = kKept<Cell> * loop.H;
            float* kept =
                p.kept + first_row_ * width + static_cast<int64_t>(step) * width + me.unit;
            DTWIN_UNROLL
            for (int k = 0; k < Cell::kSlots; ++k) kept[k * loop.H] = slots[k];
            if constexpr (Cell::kStates > 1) kept[Cell::kSlots * loop.H] = state[1];
        }
        if (p.projected) {
            const float* row = p.projection + (me.first + b) * p.projection_stride + t;
            DTWIN_ROLLED
            for (int k = 0; k < p.K; ++k) {
                *projected(b, k) =
                    fma(row[static_cast<int64_t>(k) * loop.T], state[0], *projected(b, k));
            }
        }
    }

    DTWIN_DEVICE void give_final(int b) const {
        const int64_t sequence = me.sequence(b, loop.B), to = sequence * loop.H + me.unit;
        if (p.h_final) p.h_final[to] = h_.at(loop.T, b)[me.unit];
        if constexpr (Cell::kStates > 1) {
            if (p.c_final) p.c_final[to] = c_[b * loop.units + me.local];
        }
        for (int k = 0; p.projected && k < p.K; ++k) {
            p.projected[(sequence * p.K + k) * loop.H + me.unit] = *projected(b, k);
        }
    }

    DTWIN_DEVICE void give_peak() const {
        float peak = peak_;
        DTWIN_UNROLL
        for (int mask = 1; mask < 32; mask *= 2) {
            const float other = shuffle_xor(peak, mask);
            peak = other > peak ? other : peak;
        }
        float* peaks = at<float>(p.at_peaks);
        if (thread_index() % 32 == 0) peaks[thread_index() / 32] = peak;
        block_barrier();
        if (thread_index()) return;
        for (int warp = 1; warp < thread_count() / 32; ++warp) {
            peak = peaks[warp] > peak ? peaks[warp] : peak;
        }
        const int blocks = (loop.B + loop.sequences - 1) / loop.sequences;
        p.peaks[(static_cast<int64_t>(me.subject) * blocks + block_y()) * loop.cluster + me.rank] =
            peak;
    }

    // Only its owner reads and writes this element before the end.
    DTWIN_DEVICE float* projected(int b, int k) const {
        return projected_ + (b * p.K + k) * loop.units + me.local;
    }

    // b_ih or b_hh of its unit.
    DTWIN_DEVICE float* bias(int gate, int of_hidden) const {
        return biases_ + (2 * gate + of_hidden) * loop.units + me.local;
    }

    const ForwardParams& p;
    const Loop& loop;
    const Place<kUnits, kLanes> me;
    Stationary<Format, kUnits, kGates, kLanes, kFours> weights_;
    float peak_ = 0.0f;
    const Vectors h_;
    float* const c_;
    Four *const w_ih_, *const inputs_;
    const int64_t first_row_;  // of the block's sequences among all S * B * T steps
    float *const projected_, *const biases_;
};

}  // namespace dtwin::gpu
