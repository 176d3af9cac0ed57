// The gradients of one subject.
//
// A block of sequences is rolled out again with all its steps kept; where the caller has kept the
// states, that is no loop over the steps but one product, and for rnn none. Then only the scan back
// over the steps is sequential (delta_t W_hh, as in the recurrence); the gradients of the weights,
// sum over t of delta_t h_{t-1}^T and the like, are products over all steps after it.
//
// Blocks may run on several threads. Each sums its weights' gradients on its own, and they are
// added up in the order of the blocks.
//
// Where all steps would take too much memory, T is cut into segments: a first pass keeps the state
// before each, and each is rolled out a second time when the way back comes to it (Chen et al.
// 2016, arXiv:1604.06174). A segment goes back tile by tile, whose gradients stay in cache.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "recurrence.h"
#include "rollout.h"

namespace dtwin::DTWIN_ISA {

constexpr int64_t kKeptBytes = 64 << 20;  // of a segment's steps, unless sqrt(T) steps take more
constexpr int64_t kTileBytes = 1 << 20;   // of the steps that go back together: in L2
constexpr int64_t kManySequences = 12;    // of a block: more would leave threads without one

// The gradients of one subject's weights.
template <class F>
struct WeightGradients {
    F *w_ih, *w_hh, *b_ih, *b_hh, *w_out, *b_out;
};

template <class Cell, class F, class W>
class Backward : private Recurrence<Cell, F, W> {
  public:
    Backward(const dtwin_rollout_vjp_params& params, Workspace& workspace)
        : Base(params.rollout, block_sequences(params.rollout), kMaxSequences, workspace),
          g_(params),
          slots_(Cell::kSlots * hidden_),
          steps_(segment_steps()),
          tile_steps_(tile_steps()),
          packed_w_ih_back_(workspace.take<W>(packed_columns<F>(p_.n_inputs), Cell::kGates * H)),
          packed_w_hh_back_(workspace.take<W>(packed_columns<F>(H), Cell::kGates * H)),
          packed_w_out_back_(workspace.take<W>(packed_columns<F>(H), p_.n_outputs)),
          kept_(workspace.take<F>(times(steps_, sequences_), slots_)),
          states_(workspace.take<F>(times(steps_ + 1, sequences_), hidden_)),
          c_(workspace.take<F>(times(kSecond * (steps_ + 1), sequences_), hidden_)),
          d_states_(workspace.take<F>(times(steps_ + 1, sequences_), hidden_)),
          d_c_(workspace.take<F>(kSecond * sequences_, hidden_)),
          saved_states_(workspace.take<F>(times(segments(), sequences_), hidden_)),
          saved_c_(workspace.take<F>(times(kSecond * segments(), sequences_), hidden_)),
          projected_(workspace.take<F>(p_.n_projected, hidden_)),
          d_w_ih_(workspace.take<F>(p_.n_inputs, gates_)),
          sum_(take_gradients(workspace)),
          left_(workspace.take<F>(kLeftRows, kLeftStride)),
          partial_(workspace.take<F>(std::max(H, p_.n_outputs), 1)) {}

    // Of the sequences of a subject.
    int64_t blocks() const { return divide_up(p_.n_sequences, sequences_); }

    // The gradients of the blocks [first, last) of a subject. Block 0 writes those of the weights,
    // the others add theirs.
    void run(int64_t subject, int64_t first, int64_t last, Turns& turns) {
        Base::take_weights(subject);
        w_ih_back_ = pack_untransposed(Base::weight(p_.w_ih, p_.w_ih_stride), GH(), p_.n_inputs,
                                       packed_w_ih_back_);
        w_hh_back_ =
            pack_untransposed(Base::weight(p_.w_hh, p_.w_hh_stride), GH(), H, packed_w_hh_back_);
        w_out_back_ = pack_untransposed(Base::weight(p_.w_out, p_.w_out_stride), p_.n_outputs, H,
                                        packed_w_out_back_);
        const WeightGradients<F> results = subject_results();
        for (int64_t block = first; block < last; ++block) {
            first_ = block * sequences_;
            count_ = std::min(sequences_, p_.n_sequences - first_);
            to_ = block ? sum_ : results;
            for_each_gradient([&](F* WeightGradients<F>::* weight, int64_t n) {
                std::fill_n(to_.*weight, n, F(0));
            });
            run_block();
            if (block) {
                turns.wait(subject, block);
                for_each_gradient([&](F* WeightGradients<F>::* weight, int64_t n) {
                    for (int64_t i = 0; i < n; ++i) (results.*weight)[i] += (sum_.*weight)[i];
                });
            }
            turns.pass_on(subject, block);
        }
    }

  private:
    using Base = Recurrence<Cell, F, W>;
    using Base::array, Base::result, Base::sequence, Base::sequences_;
    using Base::count_, Base::first_, Base::gates_, Base::H, Base::hidden_, Base::p_;

    static constexpr int64_t kSecond = Cell::kStates - 1;  // 1 where there is a second state

    // What a step of one sequence keeps.
    static int64_t step_bytes(const dtwin_rollout_params& p) {
        const int64_t rows = Cell::kSlots + Cell::kStates + 1;
        return times(times(rows, round_up(p.n_hidden, kLanes<F>)), sizeof(F));
    }

    static int64_t block_sequences(const dtwin_rollout_params& p) {
        const int64_t most = std::min(kManySequences, p.n_sequences);
        const int64_t fit = std::clamp(kKeptBytes / times(p.n_steps, step_bytes(p)),
                                       std::min(kFewSequences, most), most);
        return divide_up(p.n_sequences, divide_up(p.n_sequences, fit));  // all about as large
    }

    int64_t segment_steps() const {
        const auto root = static_cast<int64_t>(std::sqrt(static_cast<double>(p_.n_steps)));
        return std::clamp(kKeptBytes / times(sequences_, step_bytes(p_)), root, p_.n_steps);
    }

    // Whole stretches of gemm_transposed().
    int64_t tile_steps() const {
        const int64_t fit = kTileBytes / times(sequences_, step_bytes(p_));
        return std::max(fit / kLeftDepth, int64_t(1)) * kLeftDepth;
    }

    int64_t segments() const { return divide_up(p_.n_steps, steps_); }

    template <class Action>
    void for_each_gradient(Action act) const {
        using All = WeightGradients<F>;
        act(&All::w_ih, GH() * p_.n_inputs), act(&All::w_hh, GH() * H);
        act(&All::b_ih, GH()), act(&All::b_hh, GH());
        act(&All::w_out, p_.n_outputs * H), act(&All::b_out, p_.n_outputs);
    }

    // Where a block sums its own; the only one needs none.
    WeightGradients<F> take_gradients(Workspace& workspace) const {
        const int64_t any = blocks() > 1 ? 1 : 0;
        const int64_t gates = any * GH(), outputs = any * p_.n_outputs;
        return {workspace.take<F>(gates, p_.n_inputs), workspace.take<F>(gates, H),
                workspace.take<F>(gates, 1),           workspace.take<F>(gates, 1),
                workspace.take<F>(outputs, H),         workspace.take<F>(outputs, 1)};
    }

    WeightGradients<F> subject_results() const {
        const auto of_subject = [&](void* data, int64_t n) {
            return result(data) + this->subject_ * n;
        };
        return {of_subject(g_.d_w_ih, GH() * p_.n_inputs),
                of_subject(g_.d_w_hh, GH() * H),
                of_subject(g_.d_b_ih, GH()),
                of_subject(g_.d_b_hh, GH()),
                of_subject(g_.d_w_out, p_.n_outputs * H),
                of_subject(g_.d_b_out, p_.n_outputs)};
    }

    // The block [first_, first_ + count_) of sequences.
    void run_block() {
        std::fill_n(d_w_ih_, p_.n_inputs * gates_, F(0));
        Base::set_initial_state(saved_states_, saved_c_);
        for (int64_t i = 0; i + 1 < segments(); ++i) {
            if (g_.states && !kSecond) {
                take_segment(i);
                copy_states();
            } else {
                roll_out(i);
            }
            std::copy_n(state_row(states_, steps_, 0), rows(1), saved_states_ + rows(i + 1));
            if (kSecond) std::copy_n(state_row(c_, steps_, 0), rows(1), saved_c_ + rows(i + 1));
        }
        if (kSecond) set_final_gradient(g_.d_c_final, d_c_);
        for (int64_t i = segments(); i-- > 0;) {
            roll_out(i);
            start_back();
            // What is projected goes back once, as its products have no tiles to share.
            if (p_.projection) read_back(0, n_);
            for (int64_t end = n_; end > 0; end = tile_start(end)) go_back(tile_start(end), end);
        }
        write_initial_gradients();
        write_d_w_ih();
    }

    // Segment i forward, with every step kept.
    void roll_out(int64_t i) {
        take_segment(i);
        std::copy_n(saved_states_ + rows(i), rows(1), states_);
        if (kSecond) std::copy_n(saved_c_ + rows(i), rows(1), c_);
        if (g_.states) copy_states();
        if (keeps_nothing()) return;
        Base::project_inputs(first_step_, n_, kept_, slots_);
        if (g_.states) {
            apply_cells();
            return;
        }
        for (int64_t t = 0; t < n_; ++t) {
            Base::template advance<true>(step(t, 0), slots_, state_row(states_, t, 0),
                                         state_row(c_, t, 0), state_row(states_, t + 1, 0),
                                         state_row(c_, t + 1, 0));
        }
    }

    void take_segment(int64_t i) {
        first_step_ = i * steps_;
        n_ = std::min(steps_, p_.n_steps - first_step_);
    }

    void copy_states() {
        std::fill_n(state_row(states_, 1, 0), rows(n_), F(0));
        for (int64_t b = 0; b < count_; ++b) {
            const F* from = array(g_.states) + (sequence(b) * p_.n_steps + first_step_) * H;
            for (int64_t t = 1; t <= n_; ++t, from += H) {
                std::copy_n(from, H, state_row(states_, t, b));
            }
        }
    }

    // The kept steps where the states are known: the products of many steps at once.
    void apply_cells() {
        const int64_t some = kMaxSequences / count_;
        for (int64_t first = 0; first < n_; first += some) {
            const int64_t last = std::min(first + some, n_);
            gemm((last - first) * count_, gates_, H, state_row(states_, first, 0), hidden_,
                 this->w_hh_, from_bias<F>(this->b_hh_, this->h_, gates_));
            for (int64_t t = first; t < last; ++t) {
                Base::template apply_cell<true>(
                    step(t, 0), slots_, this->h_ + (t - first) * count_ * gates_,
                    state_row(states_, t, 0), state_row(c_, t, 0), state_row(states_, t + 1, 0),
                    state_row(c_, t + 1, 0));
            }
        }
    }

    // Rows [count_, hidden_] of the gradient of a final state, zeros where none is given.
    void set_final_gradient(const void* gradient, F* to) {
        std::fill_n(to, rows(1), F(0));
        for (int64_t b = 0; gradient && b < count_; ++b) {
            std::copy_n(array(gradient) + sequence(b) * H, H, to + b * hidden_);
        }
    }

    // Whether the cell keeps of a step what the caller has kept already.
    bool keeps_nothing() const { return g_.states && Cell::kKeepsState; }

    int64_t tile_start(int64_t end) const { return (end - 1) / tile_steps_ * tile_steps_; }

    // The gradient of the segment's last state, from outside or from the segment after it.
    void start_back() {
        if (first_step_ + n_ == p_.n_steps) {
            set_final_gradient(g_.d_h_final, state_row(d_states_, n_, 0));
        } else {
            std::copy_n(d_states_, rows(1), state_row(d_states_, n_, 0));
        }
    }

    // The steps [start, end) of the segment.
    void go_back(int64_t start, int64_t end) {
        if (keeps_nothing()) {
            std::copy_n(state_row(states_, start + 1, 0), rows(end - start), step(start, 0));
        }
        if (!p_.projection) read_back(start, end);
        scan(start, end);
        add_weight_gradients(start, end);
        write_input_gradients(start, end);
    }

    // Back through the readout: gradients of W_out and b_out from these steps, and of the states
    // before each of them. So the sums of a row of d_states_ begin with its readout and have one
    // order, wherever T is cut; the state after the steps has its gradient from those after it.
    void read_back(int64_t start, int64_t end) {
        const int64_t first = first_step_ + start ? start : 1;
        const int64_t last = first_step_ + end == p_.n_steps ? end + 1 : end;
        std::fill_n(state_row(d_states_, start, 0), rows(end - start), F(0));
        for (int64_t b = 0; b < count_; ++b) {
            F* d_states = state_row(d_states_, first, b);
            const int64_t t = first_step_ + first - 1;
            if (g_.d_states) add_state_gradients(b, t, last - first, d_states);
            if (p_.projection) {
                read_back_projected(b, t, last - first, d_states);
            } else {
                read_back_steps(b, t, last - first, d_states);
                add_readout_gradients(b, start, end);
            }
        }
    }

    void add_state_gradients(int64_t b, int64_t t, int64_t steps, F* d_states) {
        const F* given = array(g_.d_states) + (sequence(b) * p_.n_steps + t) * H;
        for (int64_t i = 0; i < steps; ++i, given += H, d_states += rows(1)) {
            for (int64_t j = 0; j < H; ++j) d_states[j] += given[j];
        }
    }

    void read_back_steps(int64_t b, int64_t t, int64_t steps, F* d_states) {
        const int64_t O = p_.n_outputs;
        const F* d_outputs = array(g_.d_outputs) + sequence(b) * p_.n_steps * O;
        gemm(steps, hidden_, O, d_outputs + t * O, O, w_out_back_, onto(d_states, rows(1)));
    }

    void add_readout_gradients(int64_t b, int64_t start, int64_t end) {
        const int64_t O = p_.n_outputs, n = end - start;
        const F* d_outputs = array(g_.d_outputs);
        d_outputs += (sequence(b) * p_.n_steps + first_step_ + start) * O;
        gemm_transposed(O, H, n, d_outputs, O, states(b, start), to_.w_out, H, left_);
        add_rows(O, n, d_outputs, O, to_.b_out, partial_);
    }

    void read_back_projected(int64_t b, int64_t t, int64_t steps, F* d_states) {
        const int64_t O = p_.n_outputs, K = p_.n_projected, T = p_.n_steps;
        const F* projection = Base::projection(b);
        const F* d_outputs = array(g_.d_outputs) + sequence(b) * K * O;
        const Panels<F> projected{projected_, hidden_, kPanel<F>};

        std::fill_n(projected_, K * hidden_, F(0));
        gemm(K, hidden_, O, d_outputs, O, w_out_back_, onto(projected_, hidden_));
        gemm_transposed(steps, hidden_, K, projection + t, T, projected, d_states, rows(1), left_);

        projection += first_step_;
        std::fill_n(projected_, K * hidden_, F(0));
        gemm(K, hidden_, n_, projection, T, states(b, 0), onto(projected_, hidden_));
        gemm_transposed(O, H, K, d_outputs, O, projected, to_.w_out, H, left_);
        for (int64_t k = 0; k < K; ++k) {
            F sum = 0;
            for (int64_t i = 0; i < n_; ++i) sum += projection[k * T + i];
            for (int64_t o = 0; o < O; ++o) to_.b_out[o] += sum * d_outputs[k * O + o];
        }
    }

    // Back over the steps; leaves the gradients of the pre-activations in the slots.
    void scan(int64_t start, int64_t end) {
        for (int64_t t = end; t-- > start;) {
            for (int64_t b = 0; b < count_; ++b) {
                for (int64_t j = 0; j < hidden_; j += kLanes<F>) retreat(t, b, j);
            }
            for (int g = 0; g < Cell::kGates; ++g) {
                gemm(count_, hidden_, H, step(t, 0) + Cell::hidden_slot(g) * hidden_, slots_,
                     w_hh_back_.from_row(g * H), onto(state_row(d_states_, t, 0), hidden_));
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
        if constexpr (Cell::kStates > 1) d_state[1] = load(d_c_ + b * hidden_ + j);
        for (int k = 0; k < Cell::kSlots; ++k) slots[k] = load(step(t, b) + k * hidden_ + j);
        Cell::template backward<F>(before, after, d_state, slots);
        for (int k = 0; k < Cell::kSlots; ++k) store(step(t, b) + k * hidden_ + j, slots[k]);
        F* d_before = state_row(d_states_, t, b) + j;
        store(d_before, load(d_before) + d_state[0]);
        if constexpr (Cell::kStates > 1) store(d_c_ + b * hidden_ + j, d_state[1]);
    }

    void add_weight_gradients(int64_t start, int64_t end) {
        const int64_t n = end - start, depth = n * count_;
        const Panels<F> before{state_row(states_, start, 0), hidden_, kPanel<F>};
        for (int g = 0; g < Cell::kGates; ++g) {
            const F* d_x = step(start, 0) + g * hidden_;
            const F* d_h = step(start, 0) + Cell::hidden_slot(g) * hidden_;
            gemm_transposed(H, H, depth, d_h, slots_, before, to_.w_hh + g * H * H, H, left_);
            add_rows(H, depth, d_x, slots_, to_.b_ih + g * H, partial_);
            add_rows(H, depth, d_h, slots_, to_.b_hh + g * H, partial_);
        }
        for (int64_t b = 0; b < count_; ++b) {
            gemm_transposed(p_.n_inputs, gates_, n, Base::inputs(b, first_step_ + start),
                            p_.n_inputs, {step(start, b), count_ * slots_, kPanel<F>}, d_w_ih_,
                            gates_, left_);
        }
    }

    void write_input_gradients(int64_t start, int64_t end) {
        for (int64_t b = 0; b < count_; ++b) {
            const int64_t from = sequence(b) * p_.n_steps + first_step_ + start;
            F* d_inputs = result(g_.d_inputs) + from * p_.n_inputs;
            std::fill_n(d_inputs, (end - start) * p_.n_inputs, F(0));
            for (int g = 0; g < Cell::kGates; ++g) {
                gemm(end - start, p_.n_inputs, H, step(start, b) + g * hidden_, count_ * slots_,
                     w_ih_back_.from_row(g * H), onto(d_inputs, p_.n_inputs));
            }
        }
    }

    void write_initial_gradients() {
        for (int64_t b = 0; b < count_; ++b) {
            const int64_t to = sequence(b) * H;
            std::copy_n(state_row(d_states_, 0, b), H, result(g_.d_h0) + to);
            if (kSecond) std::copy_n(d_c_ + b * hidden_, H, result(g_.d_c0) + to);
        }
    }

    void write_d_w_ih() {
        F* to = to_.w_ih;
        for (int g = 0; g < Cell::kGates; ++g) {
            for (int64_t j = 0; j < H; ++j) {
                for (int64_t i = 0; i < p_.n_inputs; ++i) {
                    *to++ = d_w_ih_[i * gates_ + g * hidden_ + j];
                }
            }
        }
    }

    void load_state(int64_t t, int64_t b, int64_t j, Vec<F>* state) const {
        state[0] = load(state_row(states_, t, b) + j);
        if constexpr (Cell::kStates > 1) state[1] = load(state_row(c_, t, b) + j);
    }

    // The states after the steps from `start` on, as a right factor.
    Panels<F> states(int64_t b, int64_t start) const {
        return {state_row(states_, start + 1, b), rows(1), kPanel<F>};
    }

    F* step(int64_t t, int64_t b) const { return kept_ + (t * count_ + b) * slots_; }
    F* state_row(F* states, int64_t t, int64_t b) const {
        return states + (t * count_ + b) * hidden_;
    }
    int64_t rows(int64_t steps) const { return steps * count_ * hidden_; }  // elements
    int64_t GH() const { return Cell::kGates * H; }

    const dtwin_rollout_vjp_params& g_;
    const int64_t slots_;       // the cell's slots, each of `hidden_`
    const int64_t steps_;       // of a segment, at most
    const int64_t tile_steps_;  // of a tile, at most
    // The right factors W, where those of the recurrence are W^T.
    W *const packed_w_ih_back_, *const packed_w_hh_back_, *const packed_w_out_back_;
    F* const kept_;    // [steps, sequences, slots] W_ih x_t + b_ih; what the cell keeps; gradients
    F* const states_;  // [steps + 1, sequences, hidden]; [0] is the state before the segment
    F* const c_;       // the same of the second state
    F* const d_states_;  // [steps + 1, sequences, hidden] gradients of the states
    F* const d_c_;       // [sequences, hidden] gradient of the second state
    F *const saved_states_, *const saved_c_;  // [segments, sequences, hidden] before each segment
    F* const projected_;            // [K, hidden] time projection @ states, or d_outputs @ W_out
    F* const d_w_ih_;               // [I, gates] transposed gradient of W_ih
    const WeightGradients<F> sum_;  // a block's
    F* const left_;                 // the block of gemm_transposed()
    F* const partial_;              // partial sums of add_rows()
    Panels<W> w_ih_back_, w_hh_back_, w_out_back_;
    WeightGradients<F> to_{};
    int64_t first_step_ = 0;  // of the segment
    int64_t n_ = 0;           // of its steps
};

}  // namespace dtwin::DTWIN_ISA
