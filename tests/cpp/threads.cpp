// Calls from several threads at once, each with several threads of its own, on weights and inputs
// that they share: every result must have the bits of the same call alone, on one thread. Few
// subjects have their sequences taken by several threads. Built with -DDTWIN_SANITIZE=thread it
// shows races, with address,undefined what lies outside an array.

#include <cstdio>
#include <cstring>
#include <initializer_list>
#include <optional>
#include <thread>
#include <vector>

#include "dtwin.h"

namespace {

constexpr int kCallers = 4;
constexpr int64_t kInputs = 3, kOutputs = 6, kProjected = 2;

struct Shape {
    int cell;
    int64_t S, B, T, H;
    bool projected;
    bool given;     // gradients of the states and of the final ones, too
    bool bfloat16;  // weights
};

// Reals within +-1/2.
template <class F>
std::vector<F> numbers(int64_t n, unsigned seed) {
    std::vector<F> values(n);
    for (int64_t i = 0; i < n; ++i) values[i] = F((i * 37 + seed * 11) % 61) / 61 - F(0.5);
    return values;
}

template <class F>
struct Problem {
    dtwin_rollout_params p{};
    int64_t gates;
    std::vector<F> w_ih, w_hh, b_ih, b_hh, w_out, b_out, inputs, h0, c0, projection;
    std::vector<F> d_outputs, d_states, d_h_final, d_c_final;

    explicit Problem(const Shape& shape) : Problem(shape, shape.S, shape.B, shape.T, shape.H) {}

    Problem(const Shape& shape, int64_t S, int64_t B, int64_t T, int64_t H)
        : gates((shape.cell == DTWIN_LSTM  ? 4
                 : shape.cell == DTWIN_GRU ? 3
                                           : 1) *
                H),
          w_ih(numbers<F>(S * gates * kInputs, 1)),
          w_hh(numbers<F>(S * gates * H, 2)),
          b_ih(numbers<F>(S * gates, 3)),
          b_hh(numbers<F>(S * gates, 4)),
          w_out(numbers<F>(S * kOutputs * H, 5)),
          b_out(numbers<F>(S * kOutputs, 6)),
          inputs(numbers<F>(B * T * kInputs, 7)),
          h0(numbers<F>(S * B * H, 8)),
          c0(numbers<F>(S * B * H, 9)),
          projection(numbers<F>(kProjected * T, 10)),
          d_outputs(numbers<F>(S * B * (shape.projected ? kProjected : T) * kOutputs, 11)),
          d_states(numbers<F>(shape.given ? S * B * T * H : 0, 12)),
          d_h_final(numbers<F>(shape.given ? S * B * H : 0, 13)),
          d_c_final(numbers<F>(shape.given ? S * B * H : 0, 14)) {
        p.struct_size = sizeof p;
        p.cell = shape.cell;
        p.dtype = sizeof(F) == sizeof(double) ? DTWIN_FLOAT64 : DTWIN_FLOAT32;
        p.weights = shape.bfloat16 ? DTWIN_WEIGHTS_BFLOAT16 : DTWIN_WEIGHTS_FULL;
        p.n_subjects = S;
        p.n_sequences = B;
        p.n_steps = T;
        p.n_inputs = kInputs;
        p.n_hidden = H;
        p.n_outputs = kOutputs;
        p.w_ih = w_ih.data();
        p.w_hh = w_hh.data();
        p.b_ih = b_ih.data();
        p.b_hh = b_hh.data();
        p.w_out = w_out.data();
        p.b_out = b_out.data();
        p.w_ih_stride = gates * kInputs;
        p.w_hh_stride = gates * H;
        p.b_ih_stride = p.b_hh_stride = gates;
        p.w_out_stride = kOutputs * H;
        p.b_out_stride = kOutputs;
        p.inputs = inputs.data();
        p.inputs_sequence_stride = T * kInputs;
        p.h0 = h0.data();
        p.c0 = c0.data();
        if (shape.projected) {
            p.projection = projection.data();
            p.n_projected = kProjected;
        }
    }
};

// All results of the rollout and its gradients, those with and without its states.
template <class F>
struct Results {
    int status = -1;
    std::vector<uint8_t> diverged;
    std::vector<std::vector<F>> rolled_out, gradients, gradients_of_known;

    Results(const Problem<F>& problem, int n_threads) : diverged(problem.p.n_subjects) {
        dtwin_rollout_params p = problem.p;
        p.n_threads = n_threads;
        status = roll_out(p, static_cast<int64_t>(problem.d_outputs.size()));
        if (!status) status = differentiate(problem, p, nullptr, &gradients);
        const void* states = rolled_out[1].data();
        if (!status) status = differentiate(problem, p, states, &gradients_of_known);
    }

    bool same_bits(const Results& other) const {
        return !status && !other.status && diverged == other.diverged &&
               same(rolled_out, other.rolled_out) && same(gradients, other.gradients) &&
               same(gradients_of_known, other.gradients);
    }

  private:
    int roll_out(dtwin_rollout_params p, int64_t n_outputs) {
        const int64_t rows = p.n_subjects * p.n_sequences, H = p.n_hidden;
        const auto room = [this](int64_t n) { return rolled_out.emplace_back(n).data(); };
        p.outputs = room(n_outputs);
        p.states = room(rows * p.n_steps * H);
        p.h_final = room(rows * H);
        p.c_final = room(rows * H);
        p.diverged = diverged.data();
        return dtwin_rollout(&p);
    }

    static int differentiate(const Problem<F>& problem, const dtwin_rollout_params& p,
                             const void* states, std::vector<std::vector<F>>* results) {
        const int64_t S = p.n_subjects, B = p.n_sequences, H = p.n_hidden;
        const auto room = [results](int64_t n) { return results->emplace_back(n).data(); };
        const auto given = [](const std::vector<F>& d) { return d.empty() ? nullptr : d.data(); };
        dtwin_rollout_vjp_params g{};
        g.struct_size = sizeof g;
        g.rollout = p;
        g.states = states;
        g.d_outputs = problem.d_outputs.data();
        g.d_states = given(problem.d_states);
        g.d_h_final = given(problem.d_h_final);
        g.d_c_final = given(problem.d_c_final);
        g.d_w_ih = room(S * problem.gates * kInputs);
        g.d_w_hh = room(S * problem.gates * H);
        g.d_b_ih = room(S * problem.gates);
        g.d_b_hh = room(S * problem.gates);
        g.d_w_out = room(S * kOutputs * H);
        g.d_b_out = room(S * kOutputs);
        g.d_inputs = room(S * B * p.n_steps * kInputs);
        g.d_h0 = room(S * B * H);
        g.d_c0 = room(S * B * H);
        return dtwin_rollout_vjp(&g);
    }

    static bool same(const std::vector<std::vector<F>>& ours,
                     const std::vector<std::vector<F>>& theirs) {
        for (size_t i = 0; i < ours.size(); ++i) {
            const size_t bytes = ours[i].size() * sizeof(F);
            if (std::memcmp(ours[i].data(), theirs[i].data(), bytes)) return false;
        }
        return ours.size() == theirs.size();
    }
};

template <class F>
int failures_of(const Shape& shape) {
    const Problem<F> problem(shape);
    std::vector<std::optional<Results<F>>> found(kCallers);
    std::vector<std::thread> callers;
    for (int i = 0; i < kCallers; ++i) {
        callers.emplace_back([&problem, &mine = found[i], i] { mine.emplace(problem, i + 1); });
    }
    for (std::thread& caller : callers) caller.join();
    const Results<F> alone(problem, 1);
    int failures = 0;
    for (int i = 0; i < kCallers; ++i) failures += !found[i]->same_bits(alone);
    if (failures) {
        std::printf(
            "cell %d, %zu-byte reals, S %ld, B %ld, T %ld, H %ld, projection %d, d_states %d, "
            "bfloat16 %d: status %d, %d of %d calls differ\n",
            shape.cell, sizeof(F), static_cast<long>(shape.S), static_cast<long>(shape.B),
            static_cast<long>(shape.T), static_cast<long>(shape.H), shape.projected, shape.given,
            shape.bfloat16, alone.status, failures, kCallers);
    }
    return failures;
}

// Layers of callers with other numbers of threads, and of one row after the other.
int failures_of_layer(int64_t rows, int64_t n_in, int64_t n_out, bool back) {
    const std::vector<float> weight = numbers<float>(n_in * n_out, 1);
    const std::vector<float> bias = numbers<float>(n_out, 2);
    const int64_t from = back ? n_out : n_in, to = back ? n_in : n_out;
    const std::vector<float> x = numbers<float>(rows * from, 3);
    const auto call = [&](int64_t first, int64_t count, int n_threads, float* y) {
        dtwin_affine_params p{};
        p.struct_size = sizeof p;
        p.n_threads = n_threads;
        p.n_rows = count;
        p.n_in = n_in;
        p.n_out = n_out;
        p.weight = weight.data();
        p.bias = bias.data();
        p.x = x.data() + first * from;
        p.y = y + first * to;
        return back ? dtwin_affine_vjp(&p) : dtwin_affine(&p);
    };
    std::vector<std::vector<float>> found(kCallers, std::vector<float>(rows * to));
    std::vector<std::thread> callers;
    for (int i = 0; i < kCallers; ++i) {
        callers.emplace_back([&, i] { call(0, rows, i + 1, found[i].data()); });
    }
    for (std::thread& caller : callers) caller.join();
    std::vector<float> alone(rows * to);
    int failures = 0;
    for (int64_t row = 0; row < rows; ++row) failures += call(row, 1, 1, alone.data()) != 0;
    for (const std::vector<float>& each : found) failures += each != alone;
    if (failures) {
        std::printf("layer %ld x %ld x %ld, back %d: %d differ\n", static_cast<long>(rows),
                    static_cast<long>(n_in), static_cast<long>(n_out), back, failures);
    }
    return failures;
}

}  // namespace

int main() {
    int problems = 0, failures = 0;
    for (int cell : {DTWIN_RNN, DTWIN_GRU, DTWIN_LSTM}) {
        for (bool projected : {false, true}) {
            for (int64_t H : {1, 17, 40}) {
                for (int64_t B : {1, 7, 50}) {
                    const Shape shape{cell, 5, B, B == 7 ? 70 : 9, H, projected, false, false};
                    failures += failures_of<float>(shape);
                    failures += failures_of<double>(shape);
                    problems += 2;
                }
            }
            for (int64_t B : {3, 31, 50}) {
                for (bool given : {false, true}) {
                    Shape shape{cell, B == 50 ? 2 : 1, B, 9, 17, projected, given, false};
                    failures += failures_of<float>(shape);
                    failures += failures_of<double>(shape);
                    shape.bfloat16 = true;
                    failures += failures_of<float>(shape);
                    problems += 3;
                }
            }
        }
    }
    for (bool back : {false, true}) {
        for (int64_t rows : {1, 50, 200}) {
            for (int64_t n_in : {1, 77, 300}) {
                failures += failures_of_layer(rows, n_in, 130, back);
                ++problems;
            }
        }
    }
    std::printf("%s: %d problems, %d calls of each at once, %d differ\n",
                dtwin_isa() ? dtwin_isa() : "no such instruction set", problems, kCallers,
                failures);
    return failures != 0;
}
