// The gradients of one subject.
//
// A block of sequences is rolled out again with all its steps kept. Then only the scan back over
// the steps is sequential (delta_t W_hh, as in the recurrence); the gradients of the weights,
// sum over t of delta_t h_{t-1}^T and the like, are products over all steps after it.
#pragma once

#include <algorithm>
#include <cstdint>

#include "dtwin.h"
#include "gemm.h"
#include "layout.h"
#include "simd/vec.h"

namespace dtwin::DTWIN_ISA {

constexpr int64_t kKeptBytes = 64 << 20;  // what a block keeps, unless one sequence takes more

template <class Cell, class F>
class BackwardLayout : public Layout<F> {
  public:
    explicit BackwardLayout(const dtwin_rollout_params& p)
        : hidden(round_up(p.n_hidden, kLanes<F>)),
          gates(Cell::kGates * hidden),
          slots(Cell::kSlots * hidden) {
        const int64_t element = sizeof(F);
        const int64_t kept = multiply(p.n_steps + 1, slots + (Cell::kStates + 1) * hidden);
        sequences = std::clamp<int64_t>(kKeptBytes / element / std::max<int64_t>(kept, 1), 1,
                                        std::min(kMaxSequences, p.n_sequences));
        const int64_t rows = multiply(p.n_steps + 1, sequences);

        w_ih = take(packed_columns<F>(gates), p.n_inputs);
        w_hh = take(packed_columns<F>(gates), p.n_hidden);
        b_ih = take(gates, 1);
        b_hh = take(gates, 1);
        w_ih_back = take(packed_columns<F>(p.n_inputs), Cell::kGates * p.n_hidden);
        w_hh_back = take(packed_columns<F>(p.n_hidden), Cell::kGates * p.n_hidden);
        w_out_back = take(packed_columns<F>(p.n_hidden), p.n_outputs);
        steps = take(rows, slots);
        states = take(rows, hidden);
        c = take(Cell::kStates > 1 ? rows : 0, hidden);
        d_states = take(rows, hidden);
        d_c = take(Cell::kStates > 1 ? sequences : 0, hidden);
        h = take(sequences, gates);
        projected = take(p.n_projected, hidden);
        d_w_ih = take(p.n_inputs, gates);
        left = take(kLeftRows, kLeftStride);
        partial = take(std::max(multiply(kLeftRows, gates), p.n_outputs), 1);
    }

    int64_t hidden;     // H padded to whole vectors
    int64_t gates;      // G * hidden
    int64_t slots;      // the cell's slots, each of `hidden`
    int64_t sequences;  // of a block
    int64_t w_ih, w_hh, b_ih, b_hh;
    int64_t w_ih_back, w_hh_back, w_out_back;  // the right factors W, where the others are W^T
    int64_t steps;      // [T, sequences, slots] W_ih x_t + b_ih; what the cell keeps; gradients
    int64_t states;     // [T + 1, sequences, hidden]; [0] is the state before the first step
    int64_t c;          // the same of the second state
    int64_t d_states;   // [T + 1, sequences, hidden] gradients of the states
    int64_t d_c;        // [sequences, hidden] gradient of the second state
    int64_t h;          // [sequences, gates] W_hh h_{t-1} + b_hh
    int64_t projected;  // [K, hidden] time projection @ states, or d_outputs @ W_out
    int64_t d_w_ih;     // [I, gates] transposed gradient of W_ih
    int64_t left;       // the block of gemm_transposed()
    int64_t partial;    // its partial sums and those of add_rows()

  private:
    using Layout<F>::multiply;
    using Layout<F>::take;
};

template <class Cell, class F>
class BackwardSubject {
  public:
    BackwardSubject(const dtwin_rollout_vjp_params& params, int64_t subject, F* workspace)
        : g_(params),
          p_(params.rollout),
          subject_(subject),
          at_(params.rollout),
          b_ih_(workspace + at_.b_ih),
          b_hh_(workspace + at_.b_hh),
          steps_(workspace + at_.steps),
          states_(workspace + at_.states),
          c_(workspace + at_.c),
          d_states_(workspace + at_.d_states),
          d_c_(workspace + at_.d_c),
          h_(workspace + at_.h),
          projected_(workspace + at_.projected),
          d_w_ih_(workspace + at_.d_w_ih),
          left_(workspace + at_.left),
          partial_(workspace + at_.partial) {
        const F* w_ih = array(p_.w_ih) + subject * p_.w_ih_stride;
        const F* w_hh = array(p_.w_hh) + subject * p_.w_hh_stride;
        const F* w_out = array(p_.w_out) + subject * p_.w_out_stride;
        w_ih_ = pack(w_ih, Cell::kGates, H(), at_.hidden, p_.n_inputs, workspace + at_.w_ih);
        w_hh_ = pack(w_hh, Cell::kGates, H(), at_.hidden, H(), workspace + at_.w_hh);
        w_ih_back_ = pack_untransposed(w_ih, GH(), p_.n_inputs, workspace + at_.w_ih_back);
        w_hh_back_ = pack_untransposed(w_hh, GH(), H(), workspace + at_.w_hh_back);
        w_out_back_ = pack_untransposed(w_out, p_.n_outputs, H(), workspace + at_.w_out_back);
        const F* b_ih = array(p_.b_ih) + subject * p_.b_ih_stride;
        const F* b_hh = array(p_.b_hh) + subject * p_.b_hh_stride;
        pad_bias<F>(b_ih, Cell::kGates, H(), at_.hidden, b_ih_);
        pad_bias<F>(b_hh, Cell::kGates, H(), at_.hidden, b_hh_);
    }

    void run() {
        std::fill_n(gradient(g_.d_w_hh, GH() * H()), GH() * H(), F(0));
        std::fill_n(gradient(g_.d_b_ih, GH()), GH(), F(0));
        std::fill_n(gradient(g_.d_b_hh, GH()), GH(), F(0));
        std::fill_n(gradient(g_.d_w_out, p_.n_outputs * H()), p_.n_outputs * H(), F(0));
        std::fill_n(gradient(g_.d_b_out, p_.n_outputs), p_.n_outputs, F(0));
        std::fill_n(d_w_ih_, p_.n_inputs * at_.gates, F(0));
        for (int64_t b = 0; b < p_.n_sequences; b += at_.sequences) {
            first_ = b;
            count_ = std::min(at_.sequences, p_.n_sequences - b);
            roll_out();
            read_back();
            scan();
            add_weight_gradients();
            write_input_gradients();
            write_initial_gradients();
        }
        write_d_w_ih();
    }

  private:
    // The block's sequences forward, as the rollout does, with every step kept.
    void roll_out() {
        std::fill_n(state_row(states_, 0, 0), count_ * at_.hidden, F(0));
        if (Cell::kStates > 1) std::fill_n(state_row(c_, 0, 0), count_ * at_.hidden, F(0));
        for (int64_t b = 0; b < count_; ++b) {
            const int64_t from = sequence(b) * H();
            if (p_.h0) std::copy_n(array(p_.h0) + from, H(), state_row(states_, 0, b));
            if (Cell::kStates > 1 && p_.c0) {
                std::copy_n(array(p_.c0) + from, H(), state_row(c_, 0, b));
            }
        }
        for (int64_t row = 0; row < p_.n_steps * count_; ++row) {
            std::copy_n(b_ih_, at_.gates, steps_ + row * at_.slots);
        }
        for (int64_t b = 0; b < count_; ++b) {
            gemm(p_.n_steps, at_.gates, p_.n_inputs, inputs(b), p_.n_inputs, w_ih_, step(0, b),
                 count_ * at_.slots);
        }
        for (int64_t t = 0; t < p_.n_steps; ++t) advance(t);
    }

    void advance(int64_t t) {
        for (int64_t b = 0; b < count_; ++b) std::copy_n(b_hh_, at_.gates, h_ + b * at_.gates);
        gemm(count_, at_.gates, H(), state_row(states_, t, 0), at_.hidden, w_hh_, h_, at_.gates);
        for (int64_t b = 0; b < count_; ++b) {
            for (int64_t j = 0; j < at_.hidden; j += kLanes<F>) {
                Vec<F> x[Cell::kGates], h[Cell::kGates], state[Cell::kStates], slots[Cell::kSlots];
                for (int g = 0; g < Cell::kGates; ++g) {
                    x[g] = load(step(t, b) + g * at_.hidden + j);
                    h[g] = load(h_ + b * at_.gates + g * at_.hidden + j);
                }
                load_state(t, b, j, state);
                Cell::template forward<F>(x, h, state, slots);
                store(state_row(states_, t + 1, b) + j, state[0]);
                if constexpr (Cell::kStates > 1) store(state_row(c_, t + 1, b) + j, state[1]);
                for (int k = 0; k < Cell::kSlots; ++k) {
                    store(step(t, b) + k * at_.hidden + j, slots[k]);
                }
            }
        }
    }

    // Back through the readout: gradients of the states, W_out and b_out.
    void read_back() {
        const int64_t O = p_.n_outputs;
        const int64_t row_stride = count_ * at_.hidden;
        F* d_w_out = gradient(g_.d_w_out, O * H());
        F* d_b_out = gradient(g_.d_b_out, O);
        std::fill_n(d_states_, (p_.n_steps + 1) * row_stride, F(0));
        for (int64_t b = 0; b < count_; ++b) {
            F* d_states = state_row(d_states_, 1, b);
            const Panels<F> states{state_row(states_, 1, b), row_stride, kPanel<F>};
            if (!p_.projection) {
                const F* d_outputs = array(g_.d_outputs) + sequence(b) * p_.n_steps * O;
                gemm(p_.n_steps, at_.hidden, O, d_outputs, O, w_out_back_, d_states, row_stride);
                gemm_transposed(O, H(), p_.n_steps, d_outputs, O, states, d_w_out, H(), left_,
                                partial_);
                add_rows(O, p_.n_steps, d_outputs, O, d_b_out, partial_);
                continue;
            }
            const int64_t K = p_.n_projected;
            const F* projection =
                array(p_.projection) + (first_ + b) * p_.projection_sequence_stride;
            const F* d_outputs = array(g_.d_outputs) + sequence(b) * K * O;
            const Panels<F> projected{projected_, at_.hidden, kPanel<F>};

            std::fill_n(projected_, K * at_.hidden, F(0));
            gemm(K, at_.hidden, p_.n_steps, projection, p_.n_steps, states, projected_, at_.hidden);
            gemm_transposed(O, H(), K, d_outputs, O, projected, d_w_out, H(), left_, partial_);

            std::fill_n(projected_, K * at_.hidden, F(0));
            gemm(K, at_.hidden, O, d_outputs, O, w_out_back_, projected_, at_.hidden);
            gemm_transposed(p_.n_steps, at_.hidden, K, projection, p_.n_steps, projected, d_states,
                            row_stride, left_, partial_);
            for (int64_t k = 0; k < K; ++k) {
                F sum = 0;
                for (int64_t t = 0; t < p_.n_steps; ++t) sum += projection[k * p_.n_steps + t];
                for (int64_t o = 0; o < O; ++o) d_b_out[o] += sum * d_outputs[k * O + o];
            }
        }
    }

    // Back over the steps; leaves the gradients of the pre-activations in steps_.
    void scan() {
        if (Cell::kStates > 1) std::fill_n(d_c_, count_ * at_.hidden, F(0));
        for (int64_t t = p_.n_steps; t-- > 0;) {
            for (int64_t b = 0; b < count_; ++b) {
                for (int64_t j = 0; j < at_.hidden; j += kLanes<F>) retreat(t, b, j);
            }
            for (int g = 0; g < Cell::kGates; ++g) {
                gemm(count_, at_.hidden, H(), step(t, 0) + Cell::kHiddenSlot[g] * at_.hidden,
                     at_.slots, rows_from(w_hh_back_, g * H()), state_row(d_states_, t, 0),
                     at_.hidden);
            }
        }
    }

    // One vector of one step back.
    void retreat(int64_t t, int64_t b, int64_t j) {
        Vec<F> before[Cell::kStates], after[Cell::kStates], d_state[Cell::kStates];
        Vec<F> slots[Cell::kSlots];
        load_state(t, b, j, before);
        load_state(t + 1, b, j, after);
        d_state[0] = load(state_row(d_states_, t + 1, b) + j);
        if constexpr (Cell::kStates > 1) d_state[1] = load(d_c_ + b * at_.hidden + j);
        for (int k = 0; k < Cell::kSlots; ++k) slots[k] = load(step(t, b) + k * at_.hidden + j);
        Cell::template backward<F>(before, after, d_state, slots);
        for (int k = 0; k < Cell::kSlots; ++k) store(step(t, b) + k * at_.hidden + j, slots[k]);
        F* d_before = state_row(d_states_, t, b) + j;
        store(d_before, load(d_before) + d_state[0]);
        if constexpr (Cell::kStates > 1) store(d_c_ + b * at_.hidden + j, d_state[1]);
    }

    void add_weight_gradients() {
        const int64_t rows = p_.n_steps * count_;
        for (int g = 0; g < Cell::kGates; ++g) {
            const F* d_x = steps_ + g * at_.hidden;
            const F* d_h = steps_ + Cell::kHiddenSlot[g] * at_.hidden;
            gemm_transposed(H(), H(), rows, d_h, at_.slots, {states_, at_.hidden, kPanel<F>},
                            gradient(g_.d_w_hh, GH() * H()) + g * H() * H(), H(), left_, partial_);
            add_rows(H(), rows, d_x, at_.slots, gradient(g_.d_b_ih, GH()) + g * H(), partial_);
            add_rows(H(), rows, d_h, at_.slots, gradient(g_.d_b_hh, GH()) + g * H(), partial_);
        }
        for (int64_t b = 0; b < count_; ++b) {
            gemm_transposed(p_.n_inputs, at_.gates, p_.n_steps, inputs(b), p_.n_inputs,
                            {step(0, b), count_ * at_.slots, kPanel<F>}, d_w_ih_, at_.gates, left_,
                            partial_);
        }
    }

    void write_input_gradients() {
        for (int64_t b = 0; b < count_; ++b) {
            const int64_t n = p_.n_steps * p_.n_inputs;
            F* d_inputs = result(g_.d_inputs) + sequence(b) * n;
            std::fill_n(d_inputs, n, F(0));
            for (int g = 0; g < Cell::kGates; ++g) {
                gemm(p_.n_steps, p_.n_inputs, H(), step(0, b) + g * at_.hidden, count_ * at_.slots,
                     rows_from(w_ih_back_, g * H()), d_inputs, p_.n_inputs);
            }
        }
    }

    void write_initial_gradients() {
        for (int64_t b = 0; b < count_; ++b) {
            const int64_t to = sequence(b) * H();
            std::copy_n(state_row(d_states_, 0, b), H(), result(g_.d_h0) + to);
            if (Cell::kStates > 1) {
                std::copy_n(d_c_ + b * at_.hidden, H(), result(g_.d_c0) + to);
            }
        }
    }

    void write_d_w_ih() {
        F* to = gradient(g_.d_w_ih, GH() * p_.n_inputs);
        for (int g = 0; g < Cell::kGates; ++g) {
            for (int64_t j = 0; j < H(); ++j) {
                for (int64_t i = 0; i < p_.n_inputs; ++i) {
                    *to++ = d_w_ih_[i * at_.gates + g * at_.hidden + j];
                }
            }
        }
    }

    static Panels<F> rows_from(Panels<F> b, int64_t row) {
        return {b.data + row * b.row_stride, b.row_stride, b.panel_stride};
    }

    void load_state(int64_t slot, int64_t b, int64_t j, Vec<F>* state) const {
        state[0] = load(state_row(states_, slot, b) + j);
        if constexpr (Cell::kStates > 1) state[1] = load(state_row(c_, slot, b) + j);
    }

    static const F* array(const void* data) { return static_cast<const F*>(data); }
    static F* result(void* data) { return static_cast<F*>(data); }

    // This subject's block of a gradient of n elements per subject.
    F* gradient(void* data, int64_t n) const { return result(data) + subject_ * n; }

    const F* inputs(int64_t b) const {
        return array(p_.inputs) + subject_ * p_.inputs_subject_stride +
               (first_ + b) * p_.inputs_sequence_stride;
    }

    // The index of the block's sequence b among all S * B.
    int64_t sequence(int64_t b) const { return subject_ * p_.n_sequences + first_ + b; }

    F* step(int64_t t, int64_t b) const { return steps_ + (t * count_ + b) * at_.slots; }
    F* state_row(F* states, int64_t slot, int64_t b) const {
        return states + (slot * count_ + b) * at_.hidden;
    }

    int64_t H() const { return p_.n_hidden; }
    int64_t GH() const { return Cell::kGates * p_.n_hidden; }

    const dtwin_rollout_vjp_params& g_;
    const dtwin_rollout_params& p_;
    const int64_t subject_;
    const BackwardLayout<Cell, F> at_;
    F *const b_ih_, *const b_hh_, *const steps_,
                                      *const states_,
                                          *const c_, *const d_states_,
                                                         *const d_c_,
                                                             *const h_, *const projected_,
                                                                            *const d_w_ih_,
                                                                                *const left_,
                                                                                    *const partial_;
    Panels<F> w_ih_, w_hh_, w_ih_back_, w_hh_back_, w_out_back_;
    int64_t first_ = 0;
    int64_t count_ = 0;
};

}  // namespace dtwin::DTWIN_ISA
