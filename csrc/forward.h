// The rollout of a subject's sequences.
//
// For each block of steps the input projection comes before the recurrence, and the readout, or
// the time projection of the states, after it.
#pragma once

#include <algorithm>
#include <cstdint>

#include "recurrence.h"

namespace dtwin::DTWIN_ISA {

constexpr int64_t kMaxSteps = 64;             // of a block
constexpr int64_t kBlockBytes = 256 * 1024;   // pre-activations and states of a block: in L2
constexpr int64_t kProjectedBytes = 8 << 20;  // projected states of a block

// False where an element is NaN or infinite: where all bits of its exponent are set.
template <class F>
bool all_finite(const F* values, int64_t n) {
    using Bits = typename Lanes<F>::Bits;
    Bits largest{};
    for (int64_t j = 0; j < n; j += kLanes<F>) {
        const Bits magnitude = (Bits)load_some(values + j, n - j) & ~Lanes<F>::kSign;
        largest = magnitude > largest ? magnitude : largest;
    }
    bool finite = true;
    for (int i = 0; i < kLanes<F>; ++i) finite &= largest[i] < Lanes<F>::kInfinity;
    return finite;
}

template <class Cell, class F, class W>
class Forward : private Recurrence<Cell, F, W> {
  public:
    Forward(const dtwin_rollout_params& params, Workspace& workspace)
        : Base(params, block_sequences(params), block_sequences(params), workspace),
          steps_(block_steps(params)),
          packed_w_out_(workspace.take<W>(packed_columns<F>(params.n_outputs), H)),
          b_out_(workspace.take<F>(round_up(params.n_outputs, kLanes<F>), 1)),
          x_(workspace.take<F>(steps_ * sequences_, gates_)),
          states_(workspace.take<F>((steps_ + 1) * sequences_, hidden_)),
          c_(workspace.take<F>(Cell::kStates > 1 ? sequences_ : 0, hidden_)),
          projected_(workspace.take<F>(times(sequences_, params.n_projected), hidden_)) {}

    // Roll out the sequences [first, last) of a subject; false where one left the finite numbers.
    bool run(int64_t subject, int64_t first, int64_t last) {
        Base::take_weights(subject);
        w_out_ = pack(Base::weight(p_.w_out, p_.w_out_stride), 1, p_.n_outputs, H, packed_w_out_);
        pad_bias<W>(Base::weight(p_.b_out, p_.b_out_stride), 1, p_.n_outputs, b_out_);
        finite_ = true;
        for (first_ = first; first_ < last; first_ += sequences_) {
            count_ = std::min(sequences_, last - first_);
            run_block();
        }
        return finite_;
    }

  private:
    using Base = Recurrence<Cell, F, W>;
    using Base::array, Base::result, Base::sequence, Base::sequences_;
    using Base::count_, Base::first_, Base::gates_, Base::H, Base::hidden_, Base::p_;

    static int64_t block_sequences(const dtwin_rollout_params& p) {
        const int64_t projected = times(times(p.n_projected, p.n_hidden), sizeof(F));
        return std::clamp<int64_t>(kProjectedBytes / std::max<int64_t>(projected, 1), 1,
                                   std::min(kMaxSequences, p.n_sequences));
    }

    int64_t block_steps(const dtwin_rollout_params& p) const {
        const int64_t step = times(times(sequences_, gates_ + hidden_), sizeof(F));
        return std::clamp<int64_t>(kBlockBytes / step, 1, std::min(kMaxSteps, p.n_steps));
    }

    // The block [first_, first_ + count_) of sequences, over all steps.
    void run_block() {
        Base::set_initial_state(state_row(0, 0), c_);
        std::fill_n(projected_, count_ * p_.n_projected * hidden_, F(0));
        for (int64_t t = 0; t < p_.n_steps; t += steps_) {
            const int64_t steps = std::min(steps_, p_.n_steps - t);
            Base::project_inputs(t, steps, x_, gates_);
            for (int64_t i = 0; i < steps; ++i) {
                Base::template advance<false>(x_ + i * count_ * gates_, gates_, state_row(i, 0), c_,
                                              state_row(i + 1, 0), c_);
            }
            // Row by row: beyond H, an infinite state times a padding zero is NaN.
            for (int64_t row = 0; row < steps * count_; ++row) {
                finite_ &= all_finite(state_row(1, 0) + row * hidden_, H);
            }
            if (p_.states) copy_states(t, steps);
            if (p_.projection) {
                project_states(t, steps);
            } else {
                read_out(t, steps);
            }
            std::copy_n(state_row(steps, 0), count_ * hidden_, state_row(0, 0));
        }
        if (p_.projection) read_out_projected();
        copy_final_state();
    }

    void copy_states(int64_t t, int64_t steps) {
        for (int64_t b = 0; b < count_; ++b) {
            F* to = result(p_.states) + (sequence(b) * p_.n_steps + t) * H;
            for (int64_t i = 0; i < steps; ++i, to += H) std::copy_n(state_row(i + 1, b), H, to);
        }
    }

    void read_out(int64_t t, int64_t steps) {
        for (int64_t b = 0; b < count_; ++b) {
            F* outputs = result(p_.outputs) + (sequence(b) * p_.n_steps + t) * p_.n_outputs;
            gemm(steps, p_.n_outputs, H, state_row(1, b), count_ * hidden_, w_out_,
                 from_bias<F>(b_out_, outputs, p_.n_outputs));
            finite_ &= all_finite(outputs, steps * p_.n_outputs);
        }
    }

    void project_states(int64_t t, int64_t steps) {
        for (int64_t b = 0; b < count_; ++b) {
            const Panels<F> states{state_row(1, b), count_ * hidden_, kPanel<F>};
            gemm(p_.n_projected, hidden_, steps, Base::projection(b) + t, p_.n_steps, states,
                 onto(projected(b), hidden_));
        }
    }

    // P (h W_out^T + b_out) = (P h) W_out^T + b_out times the row sums of P.
    void read_out_projected() {
        const int64_t K = p_.n_projected, O = p_.n_outputs;
        for (int64_t b = 0; b < count_; ++b) {
            F* outputs = result(p_.outputs) + sequence(b) * K * O;
            for (int64_t k = 0; k < K; ++k) {
                const F* row = Base::projection(b) + k * p_.n_steps;
                F sum = 0;
                for (int64_t t = 0; t < p_.n_steps; ++t) sum += row[t];
                for (int64_t o = 0; o < O; ++o) outputs[k * O + o] = sum * b_out_[o];
            }
            gemm(K, O, H, projected(b), hidden_, w_out_, onto(outputs, O));
            finite_ &= all_finite(outputs, K * O);
        }
    }

    void copy_final_state() {
        for (int64_t b = 0; b < count_; ++b) {
            const int64_t to = sequence(b) * H;
            std::copy_n(state_row(0, b), H, result(p_.h_final) + to);
            if (Cell::kStates > 1) std::copy_n(c_ + b * hidden_, H, result(p_.c_final) + to);
        }
    }

    F* state_row(int64_t i, int64_t b) const { return states_ + (i * count_ + b) * hidden_; }
    F* projected(int64_t b) const { return projected_ + b * p_.n_projected * hidden_; }

    const int64_t steps_;  // of a block, at most
    W* const packed_w_out_;
    F* const b_out_;
    F* const x_;          // [steps, sequences, gates] W_ih x_t + b_ih
    F* const states_;     // [steps + 1, sequences, hidden]; [0] is the state before the block
    F* const c_;          // [sequences, hidden] the second state
    F* const projected_;  // [sequences, K, hidden] time projection @ states
    Panels<W> w_out_;
    bool finite_ = true;
};

}  // namespace dtwin::DTWIN_ISA
