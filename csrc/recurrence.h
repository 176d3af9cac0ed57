// What a rollout and its gradients share: a subject's packed weights and the steps of a block of
// its sequences, which advance together.
#pragma once

#include <algorithm>
#include <cstdint>

#include "dtwin.h"
#include "gemm.h"
#include "panels.h"
#include "simd/vec.h"
#include "workspace.h"

namespace dtwin::DTWIN_ISA {

constexpr int64_t kMaxSequences = 48;  // of a block; whole tiles for 3 and 6 rows

// Arrays hold F, packed weights are kept as W.
template <class Cell, class F, class W>
class Recurrence {
  protected:
    // `sequences`: of a block; `rows`: of h_, at least as many.
    Recurrence(const dtwin_rollout_params& params, int64_t sequences, int64_t rows,
               Workspace& workspace)
        : p_(params),
          H(params.n_hidden),
          hidden_(round_up(params.n_hidden, kLanes<F>)),
          gates_(Cell::kGates * hidden_),
          sequences_(sequences),
          packed_w_ih_(workspace.take<W>(packed_columns<F>(gates_), params.n_inputs)),
          packed_w_hh_(workspace.take<W>(packed_columns<F>(gates_), params.n_hidden)),
          b_ih_(workspace.take<F>(gates_, 1)),
          b_hh_(workspace.take<F>(gates_, 1)),
          h_(workspace.take<F>(rows, gates_)) {}

    void take_weights(int64_t subject) {
        subject_ = subject;
        w_ih_ = pack(weight(p_.w_ih, p_.w_ih_stride), Cell::kGates, H, p_.n_inputs, packed_w_ih_);
        w_hh_ = pack(weight(p_.w_hh, p_.w_hh_stride), Cell::kGates, H, H, packed_w_hh_);
        pad_bias<W>(weight(p_.b_ih, p_.b_ih_stride), Cell::kGates, H, b_ih_);
        pad_bias<W>(weight(p_.b_hh, p_.b_hh_stride), Cell::kGates, H, b_hh_);
    }

    // The state before the first step into rows of `hidden_`; c only for a cell that has it.
    void set_initial_state(F* h, F* c) const {
        std::fill_n(h, count_ * hidden_, F(0));
        if (Cell::kStates > 1) std::fill_n(c, count_ * hidden_, F(0));
        for (int64_t b = 0; b < count_; ++b) {
            const int64_t from = sequence(b) * H;
            if (p_.h0) std::copy_n(array(p_.h0) + from, H, h + b * hidden_);
            if (Cell::kStates > 1 && p_.c0) std::copy_n(array(p_.c0) + from, H, c + b * hidden_);
        }
    }

    // x [steps, count_], rows `row` apart: W_ih x_t + b_ih of the steps from t on.
    void project_inputs(int64_t t, int64_t steps, F* x, int64_t row) const {
        for (int64_t b = 0; b < count_; ++b) {
            gemm(steps, gates_, p_.n_inputs, inputs(b, t), p_.n_inputs, w_ih_,
                 from_bias(b_ih_, x + b * row, count_ * row));
        }
    }

    // One step of all the block's sequences: from the states [count_, hidden_] before to those
    // after. With kKeep, the cell's slots take the place of x.
    template <bool kKeep>
    void advance(F* x, int64_t row, const F* h_before, const F* c_before, F* h_after, F* c_after) {
        gemm(count_, gates_, H, h_before, hidden_, w_hh_, from_bias<F>(b_hh_, h_, gates_));
        apply_cell<kKeep>(x, row, h_, h_before, c_before, h_after, c_after);
    }

    // The cell's pointwise part of such a step; h [count_, gates_]: W_hh h_{t-1} + b_hh.
    template <bool kKeep>
    void apply_cell(F* x, int64_t row, const F* h, const F* h_before, const F* c_before, F* h_after,
                    F* c_after) const {
        for (int64_t b = 0; b < count_; ++b, x += row, h += gates_) {
            for (int64_t j = 0; j < hidden_; j += kLanes<F>) {
                Vec<F> x_gates[Cell::kGates], h_gates[Cell::kGates];
                Vec<F> state[Cell::kStates], slots[Cell::kSlots];
                for (int g = 0; g < Cell::kGates; ++g) {
                    x_gates[g] = load(x + g * hidden_ + j);
                    h_gates[g] = load(h + g * hidden_ + j);
                }
                const int64_t at = b * hidden_ + j;
                state[0] = load(h_before + at);
                if constexpr (Cell::kStates > 1) state[1] = load(c_before + at);
                Cell::template forward<F>(x_gates, h_gates, state, slots);
                store(h_after + at, state[0]);
                if constexpr (Cell::kStates > 1) store(c_after + at, state[1]);
                if constexpr (kKeep) {
                    for (int k = 0; k < Cell::kSlots; ++k) store(x + k * hidden_ + j, slots[k]);
                }
            }
        }
    }

    static const F* array(const void* data) { return static_cast<const F*>(data); }
    static F* result(void* data) { return static_cast<F*>(data); }

    const F* weight(const void* data, int64_t stride) const {
        return array(data) + subject_ * stride;
    }
    const F* inputs(int64_t b, int64_t t) const {
        return array(p_.inputs) + subject_ * p_.inputs_subject_stride +
               (first_ + b) * p_.inputs_sequence_stride + t * p_.n_inputs;
    }
    const F* projection(int64_t b) const {
        return array(p_.projection) + (first_ + b) * p_.projection_sequence_stride;
    }

    // The index of the block's sequence b among all S * B.
    int64_t sequence(int64_t b) const { return subject_ * p_.n_sequences + first_ + b; }

    const dtwin_rollout_params& p_;
    const int64_t H;
    const int64_t hidden_;     // H padded to whole vectors
    const int64_t gates_;      // G * hidden_
    const int64_t sequences_;  // of a block, at most

  private:
    W *const packed_w_ih_, *const packed_w_hh_;

  protected:
    F *const b_ih_, *const b_hh_;
    F* const h_;  // [rows, gates] W_hh h_{t-1} + b_hh
    Panels<W> w_ih_, w_hh_;
    int64_t subject_ = 0;
    int64_t first_ = 0;  // sequence of the block
    int64_t count_ = 0;  // of its sequences
};

}  // namespace dtwin::DTWIN_ISA
