// The time loop, compiled once per instruction set (DTWIN_ISA is its namespace, DTWIN_ISA_TABLE
// the table it fills in); backward.h has that of the gradients.
//
// A subject's weights are packed once and stay in cache for all T. Its sequences advance together
// in blocks; for each block of steps the input projection comes before the recurrence and the
// readout, or the time projection of the states, after it.

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "backward.h"
#include "cells/gru.h"
#include "cells/lstm.h"
#include "cells/rnn.h"
#include "gemm.h"
#include "layout.h"
#include "rollout.h"
#include "simd/vec.h"

namespace dtwin::DTWIN_ISA {
namespace {

constexpr int64_t kMaxSteps = 64;             // of a block
constexpr int64_t kBlockBytes = 256 * 1024;   // pre-activations and states of a block: in L2
constexpr int64_t kProjectedBytes = 8 << 20;  // projected states of a block

template <class Cell, class F>
class ForwardLayout : public Layout<F> {
  public:
    explicit ForwardLayout(const dtwin_rollout_params& p)
        : hidden(round_up(p.n_hidden, kLanes<F>)), gates(Cell::kGates * hidden) {
        const int64_t element = sizeof(F);
        const int64_t projected_bytes = std::max<int64_t>(multiply(p.n_projected, hidden), 1);
        sequences = std::clamp<int64_t>(kProjectedBytes / element / projected_bytes, 1,
                                        std::min(kMaxSequences, p.n_sequences));
        const int64_t step_bytes = multiply(sequences * element, gates + hidden);
        steps = std::clamp<int64_t>(kBlockBytes / std::max<int64_t>(step_bytes, 1), 1,
                                    std::min(kMaxSteps, p.n_steps));

        w_ih = take(packed_columns<F>(gates), p.n_inputs);
        w_hh = take(packed_columns<F>(gates), p.n_hidden);
        w_out = take(packed_columns<F>(p.n_outputs), p.n_hidden);
        b_ih = take(gates, 1);
        b_hh = take(gates, 1);
        x = take(steps * sequences, gates);
        h = take(sequences, gates);
        states = take((steps + 1) * sequences, hidden);
        c = take(Cell::kStates > 1 ? sequences : 0, hidden);
        projected = take(multiply(sequences, p.n_projected), hidden);
    }

    int64_t hidden;     // H padded to whole vectors
    int64_t gates;      // G * hidden
    int64_t sequences;  // of a block
    int64_t steps;      // of a block
    int64_t w_ih, w_hh, w_out, b_ih, b_hh;
    int64_t x;          // [steps, sequences, gates] W_ih x_t + b_ih
    int64_t h;          // [sequences, gates] W_hh h_{t-1} + b_hh
    int64_t states;     // [steps + 1, sequences, hidden]; [0] is the state before the block
    int64_t c;          // [sequences, hidden] the second state
    int64_t projected;  // [sequences, K, hidden] time projection @ states

  private:
    using Layout<F>::multiply;
    using Layout<F>::take;
};

// False where an element is NaN or infinite.
template <class F>
bool all_finite(const F* values, int64_t n) {
    bool finite = true;
    for (int64_t i = 0; i < n; ++i) finite &= values[i] - values[i] == F(0);
    return finite;
}

template <class Cell, class F>
class Subject {
  public:
    Subject(const dtwin_rollout_params& params, int64_t subject, F* workspace)
        : p_(params),
          subject_(subject),
          at_(params),
          x_(workspace + at_.x),
          h_(workspace + at_.h),
          states_(workspace + at_.states),
          c_(workspace + at_.c),
          projected_(workspace + at_.projected),
          b_ih_(workspace + at_.b_ih),
          b_hh_(workspace + at_.b_hh),
          b_out_(weight(p_.b_out, p_.b_out_stride)) {
        const int64_t H = p_.n_hidden;
        w_ih_ = pack(weight(p_.w_ih, p_.w_ih_stride), Cell::kGates, H, at_.hidden, p_.n_inputs,
                     workspace + at_.w_ih);
        w_hh_ = pack(weight(p_.w_hh, p_.w_hh_stride), Cell::kGates, H, at_.hidden, H,
                     workspace + at_.w_hh);
        w_out_ = pack(weight(p_.w_out, p_.w_out_stride), 1, p_.n_outputs, p_.n_outputs, H,
                      workspace + at_.w_out);
        pad_bias<F>(weight(p_.b_ih, p_.b_ih_stride), Cell::kGates, H, at_.hidden, b_ih_);
        pad_bias<F>(weight(p_.b_hh, p_.b_hh_stride), Cell::kGates, H, at_.hidden, b_hh_);
    }

    void run() {
        for (int64_t b = 0; b < p_.n_sequences; b += at_.sequences) {
            first_ = b;
            count_ = std::min(at_.sequences, p_.n_sequences - b);
            run_sequences();
        }
        p_.diverged[subject_] = !finite_;
    }

  private:
    // The block [first_, first_ + count_) of sequences, over all steps.
    void run_sequences() {
        set_initial_state();
        std::fill_n(projected_, count_ * p_.n_projected * at_.hidden, F(0));
        for (int64_t t = 0; t < p_.n_steps; t += at_.steps) {
            const int64_t steps = std::min(at_.steps, p_.n_steps - t);
            project_inputs(t, steps);
            for (int64_t step = 0; step < steps; ++step) advance(step);
            // Row by row: beyond H, an infinite state times a padding zero is NaN.
            for (int64_t row = 0; row < steps * count_; ++row) {
                finite_ &= all_finite(state_row(1, 0) + row * at_.hidden, p_.n_hidden);
            }
            if (p_.states) copy_states(t, steps);
            if (p_.projection) {
                project_states(t, steps);
            } else {
                read_out(t, steps);
            }
            std::copy_n(state_row(steps, 0), count_ * at_.hidden, state_row(0, 0));
        }
        if (p_.projection) read_out_projected();
        copy_final_state();
    }

    void set_initial_state() {
        std::fill_n(states_, count_ * at_.hidden, F(0));
        if (Cell::kStates > 1) std::fill_n(c_, count_ * at_.hidden, F(0));
        for (int64_t b = 0; b < count_; ++b) {
            const int64_t from = sequence(b) * p_.n_hidden;
            if (p_.h0) std::copy_n(array(p_.h0) + from, p_.n_hidden, state_row(0, b));
            if (Cell::kStates > 1 && p_.c0) {
                std::copy_n(array(p_.c0) + from, p_.n_hidden, c_ + b * at_.hidden);
            }
        }
    }

    void project_inputs(int64_t t, int64_t steps) {
        for (int64_t row = 0; row < steps * count_; ++row) {
            std::copy_n(b_ih_, at_.gates, x_ + row * at_.gates);
        }
        for (int64_t b = 0; b < count_; ++b) {
            const F* inputs = array(p_.inputs) + subject_ * p_.inputs_subject_stride +
                              (first_ + b) * p_.inputs_sequence_stride + t * p_.n_inputs;
            gemm(steps, at_.gates, p_.n_inputs, inputs, p_.n_inputs, w_ih_, x_ + b * at_.gates,
                 count_ * at_.gates);
        }
    }

    // One step of all the block's sequences.
    void advance(int64_t step) {
        for (int64_t b = 0; b < count_; ++b) std::copy_n(b_hh_, at_.gates, h_ + b * at_.gates);
        gemm(count_, at_.gates, p_.n_hidden, state_row(step, 0), at_.hidden, w_hh_, h_, at_.gates);
        for (int64_t b = 0; b < count_; ++b) {
            const F* x = x_ + (step * count_ + b) * at_.gates;
            const F* h = h_ + b * at_.gates;
            for (int64_t j = 0; j < at_.hidden; j += kLanes<F>) {
                Vec<F> x_gates[Cell::kGates], h_gates[Cell::kGates], state[Cell::kStates];
                Vec<F> not_kept[Cell::kSlots];
                for (int g = 0; g < Cell::kGates; ++g) {
                    x_gates[g] = load(x + g * at_.hidden + j);
                    h_gates[g] = load(h + g * at_.hidden + j);
                }
                state[0] = load(state_row(step, b) + j);
                if constexpr (Cell::kStates > 1) state[1] = load(c_ + b * at_.hidden + j);
                Cell::template forward<F>(x_gates, h_gates, state, not_kept);
                store(state_row(step + 1, b) + j, state[0]);
                if constexpr (Cell::kStates > 1) store(c_ + b * at_.hidden + j, state[1]);
            }
        }
    }

    void copy_states(int64_t t, int64_t steps) {
        for (int64_t b = 0; b < count_; ++b) {
            F* to = result(p_.states) + (sequence(b) * p_.n_steps + t) * p_.n_hidden;
            for (int64_t step = 0; step < steps; ++step, to += p_.n_hidden) {
                std::copy_n(state_row(step + 1, b), p_.n_hidden, to);
            }
        }
    }

    void read_out(int64_t t, int64_t steps) {
        for (int64_t b = 0; b < count_; ++b) {
            F* outputs = result(p_.outputs) + (sequence(b) * p_.n_steps + t) * p_.n_outputs;
            for (int64_t step = 0; step < steps; ++step) {
                std::copy_n(b_out_, p_.n_outputs, outputs + step * p_.n_outputs);
            }
            gemm(steps, p_.n_outputs, p_.n_hidden, state_row(1, b), count_ * at_.hidden, w_out_,
                 outputs, p_.n_outputs);
            finite_ &= all_finite(outputs, steps * p_.n_outputs);
        }
    }

    void project_states(int64_t t, int64_t steps) {
        for (int64_t b = 0; b < count_; ++b) {
            const Panels<F> states{state_row(1, b), count_ * at_.hidden, kPanel<F>};
            gemm(p_.n_projected, at_.hidden, steps, projection(b) + t, p_.n_steps, states,
                 projected_ + b * p_.n_projected * at_.hidden, at_.hidden);
        }
    }

    // P (h W_out^T + b_out) = (P h) W_out^T + b_out times the row sums of P.
    void read_out_projected() {
        for (int64_t b = 0; b < count_; ++b) {
            F* outputs = result(p_.outputs) + sequence(b) * p_.n_projected * p_.n_outputs;
            for (int64_t k = 0; k < p_.n_projected; ++k) {
                const F* row = projection(b) + k * p_.n_steps;
                F sum = 0;
                for (int64_t t = 0; t < p_.n_steps; ++t) sum += row[t];
                for (int64_t o = 0; o < p_.n_outputs; ++o) {
                    outputs[k * p_.n_outputs + o] = sum * b_out_[o];
                }
            }
            gemm(p_.n_projected, p_.n_outputs, p_.n_hidden,
                 projected_ + b * p_.n_projected * at_.hidden, at_.hidden, w_out_, outputs,
                 p_.n_outputs);
            finite_ &= all_finite(outputs, p_.n_projected * p_.n_outputs);
        }
    }

    void copy_final_state() {
        for (int64_t b = 0; b < count_; ++b) {
            const int64_t to = sequence(b) * p_.n_hidden;
            std::copy_n(state_row(0, b), p_.n_hidden, result(p_.h_final) + to);
            if (Cell::kStates > 1) {
                std::copy_n(c_ + b * at_.hidden, p_.n_hidden, result(p_.c_final) + to);
            }
        }
    }

    static const F* array(const void* data) { return static_cast<const F*>(data); }
    static F* result(void* data) { return static_cast<F*>(data); }

    const F* weight(const void* data, int64_t stride) const {
        return array(data) + subject_ * stride;
    }
    const F* projection(int64_t b) const {
        return array(p_.projection) + (first_ + b) * p_.projection_sequence_stride;
    }

    // The index of the block's sequence b among all S * B.
    int64_t sequence(int64_t b) const { return subject_ * p_.n_sequences + first_ + b; }

    F* state_row(int64_t slot, int64_t b) const {
        return states_ + (slot * count_ + b) * at_.hidden;
    }

    const dtwin_rollout_params& p_;
    const int64_t subject_;
    const ForwardLayout<Cell, F> at_;
    F *const x_, *const h_, *const states_, *const c_, *const projected_, *const b_ih_,
                                                                              *const b_hh_;
    const F* const b_out_;
    Panels<F> w_ih_, w_hh_, w_out_;
    int64_t first_ = 0;
    int64_t count_ = 0;
    bool finite_ = true;
};

// Call `work` with the types that `params` names.
template <template <class, class> class Work, class... Args>
auto with_types(const dtwin_rollout_params& params, Args... args) {
    const auto with_float = [&](auto cell) {
        using Cell = decltype(cell);
        return params.dtype == DTWIN_FLOAT64 ? Work<Cell, double>::call(params, args...)
                                             : Work<Cell, float>::call(params, args...);
    };
    switch (params.cell) {
        case DTWIN_GRU:
            return with_float(Gru{});
        case DTWIN_LSTM:
            return with_float(Lstm{});
        default:
            return with_float(Rnn{});
    }
}

template <class Cell, class F>
struct Bytes {
    static bool call(const dtwin_rollout_params& params, size_t* bytes) {
        return ForwardLayout<Cell, F>(params).bytes(bytes);
    }
};

template <class Cell, class F>
struct Run {
    static void call(const dtwin_rollout_params& params, int64_t subject, void* workspace) {
        Subject<Cell, F>(params, subject, static_cast<F*>(workspace)).run();
    }
};

template <class Cell, class F>
struct VjpBytes {
    static bool call(const dtwin_rollout_params& params, size_t* bytes) {
        return BackwardLayout<Cell, F>(params).bytes(bytes);
    }
};

template <class Cell, class F>
struct RunVjp {
    static void call(const dtwin_rollout_params&, const dtwin_rollout_vjp_params* params,
                     int64_t subject, void* workspace) {
        BackwardSubject<Cell, F>(*params, subject, static_cast<F*>(workspace)).run();
    }
};

bool workspace_bytes(const dtwin_rollout_params& params, size_t* bytes) {
    return with_types<Bytes>(params, bytes);
}

void rollout_subject(const dtwin_rollout_params& params, int64_t subject, void* workspace) {
    with_types<Run>(params, subject, workspace);
}

bool vjp_workspace_bytes(const dtwin_rollout_vjp_params& params, size_t* bytes) {
    return with_types<VjpBytes>(params.rollout, bytes);
}

void vjp_subject(const dtwin_rollout_vjp_params& params, int64_t subject, void* workspace) {
    with_types<RunVjp>(params.rollout, &params, subject, workspace);
}

}  // namespace
}  // namespace dtwin::DTWIN_ISA

#define DTWIN_TEXT_OF(name) #name
#define DTWIN_TEXT(name) DTWIN_TEXT_OF(name)

namespace dtwin {
extern const Isa DTWIN_ISA_TABLE;  // const alone would keep it inside this file
const Isa DTWIN_ISA_TABLE{DTWIN_TEXT(DTWIN_ISA), DTWIN_ISA::workspace_bytes,
                          DTWIN_ISA::rollout_subject, DTWIN_ISA::vjp_workspace_bytes,
                          DTWIN_ISA::vjp_subject};
}  // namespace dtwin
