// Calls from several threads at once, each with several threads of its own, on weights and inputs
// that they share: every result must have the bits of the same call alone. Built with
// -DDTWIN_SANITIZE=thread it shows races, with address,undefined what lies outside an array.

#include <cstdio>
#include <cstring>
#include <initializer_list>
#include <optional>
#include <thread>
#include <vector>

#include "dtwin.h"

namespace {

constexpr int kCallers = 4;
constexpr int64_t kSubjects = 5, kInputs = 3, kOutputs = 6, kProjected = 2;

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
    std::vector<F> w_ih, w_hh, b_ih, b_hh, w_out, b_out, inputs, h0, c0, projection, d_outputs;

    Problem(int cell, int64_t B, int64_t T, int64_t H, bool projected)
        : gates((cell == DTWIN_LSTM  ? 4
                 : cell == DTWIN_GRU ? 3
                                     : 1) *
                H),
          w_ih(numbers<F>(kSubjects * gates * kInputs, 1)),
          w_hh(numbers<F>(kSubjects * gates * H, 2)),
          b_ih(numbers<F>(kSubjects * gates, 3)),
          b_hh(numbers<F>(kSubjects * gates, 4)),
          w_out(numbers<F>(kSubjects * kOutputs * H, 5)),
          b_out(numbers<F>(kSubjects * kOutputs, 6)),
          inputs(numbers<F>(B * T * kInputs, 7)),
          h0(numbers<F>(kSubjects * B * H, 8)),
          c0(numbers<F>(kSubjects * B * H, 9)),
          projection(numbers<F>(kProjected * T, 10)),
          d_outputs(numbers<F>(kSubjects * B * (projected ? kProjected : T) * kOutputs, 11)) {
        p.struct_size = sizeof p;
        p.cell = cell;
        p.dtype = sizeof(F) == sizeof(double) ? DTWIN_FLOAT64 : DTWIN_FLOAT32;
        p.n_subjects = kSubjects;
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
        if (projected) {
            p.projection = projection.data();
            p.n_projected = kProjected;
        }
    }
};

// All results of the rollout and its gradients.
template <class F>
struct Results {
    int status = -1;
    std::vector<uint8_t> diverged = std::vector<uint8_t>(kSubjects);
    std::vector<std::vector<F>> arrays;

    F* room(int64_t n) {
        arrays.emplace_back(n);
        return arrays.back().data();
    }

    Results(const Problem<F>& problem, int n_threads) {
        dtwin_rollout_params p = problem.p;
        const int64_t S = p.n_subjects, B = p.n_sequences, T = p.n_steps, H = p.n_hidden;
        p.n_threads = n_threads;

        dtwin_rollout_vjp_params g{};
        g.struct_size = sizeof g;
        g.rollout = p;
        g.d_outputs = problem.d_outputs.data();
        g.d_w_ih = room(S * problem.gates * kInputs);
        g.d_w_hh = room(S * problem.gates * H);
        g.d_b_ih = room(S * problem.gates);
        g.d_b_hh = room(S * problem.gates);
        g.d_w_out = room(S * kOutputs * H);
        g.d_b_out = room(S * kOutputs);
        g.d_inputs = room(S * B * T * kInputs);
        g.d_h0 = room(S * B * H);
        g.d_c0 = room(S * B * H);

        p.outputs = room(static_cast<int64_t>(problem.d_outputs.size()));
        p.states = room(S * B * T * H);
        p.h_final = room(S * B * H);
        p.c_final = room(S * B * H);
        p.diverged = diverged.data();
        status = dtwin_rollout(&p);
        if (!status) status = dtwin_rollout_vjp(&g);
    }

    bool same_bits(const Results& other) const {
        if (status || other.status || diverged != other.diverged) return false;
        for (size_t i = 0; i < arrays.size(); ++i) {
            const size_t bytes = arrays[i].size() * sizeof(F);
            if (std::memcmp(arrays[i].data(), other.arrays[i].data(), bytes)) return false;
        }
        return true;
    }
};

template <class F>
int failures_of(int cell, int64_t B, int64_t T, int64_t H, bool projected) {
    const Problem<F> problem(cell, B, T, H, projected);
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
            "cell %d, %zu-byte reals, B %ld, T %ld, H %ld, projection %d: status %d, %d of "
            "%d calls differ\n",
            cell, sizeof(F), static_cast<long>(B), static_cast<long>(T), static_cast<long>(H),
            projected, alone.status, failures, kCallers);
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
                    const int64_t T = B == 7 ? 70 : 9;
                    failures += failures_of<float>(cell, B, T, H, projected);
                    failures += failures_of<double>(cell, B, T, H, projected);
                    problems += 2;
                }
            }
        }
    }
    std::printf("%s: %d problems, %d calls of each at once, %d differ\n",
                dtwin_isa() ? dtwin_isa() : "no such instruction set", problems, kCallers,
                failures);
    return failures != 0;
}
