// From gradients of predictions to those of edges.
#include <algorithm>
#include <vector>

#include "model/hypernetwork.h"
#include "model/predict.h"
#include "model/readouts.h"
#include "model/refusal.h"
#include "parallel.h"

namespace dtwin::model {
namespace {

// Adds to one subject's d_outputs [B, rows, O], which are zero, what the gradients of subject
// `from` ask of them. `outputs` are read where there are gradients of behaviour.
void spread(const dtwin_model& model, const Run& run, const dtwin_edge_gradients& given,
            bool projected, int64_t rows, int64_t from, const float* outputs, void* workspace,
            float* d_outputs) {
    const int64_t O = model.n_outputs(), Q = model.n_bold();
    int64_t trial = from * run.n_trials, volume = from * run.n_volumes,
            row = from * run.n_contrasts;
    for (const Task* task : run.tasks) {
        const Schedule& schedule = task->schedule;
        for (int64_t n = 0; n < schedule.n_trials() && (given.d_choice_prob || given.d_rt_s); ++n) {
            Response d_response{};
            for (int64_t c = 0; given.d_choice_prob && c < kActions; ++c) {
                d_response.choice_prob[c] = given.d_choice_prob[(trial + n) * kActions + c];
            }
            if (given.d_rt_s) d_response.rt_s = given.d_rt_s[trial + n];
            hazard_back(schedule, n, outputs, O, d_response, workspace, d_outputs);
        }
        for (int64_t v = 0; given.d_bold && v < schedule.n_volumes(); ++v) {
            float* series = d_outputs + schedule.volume_step(v) * O + kActions;
            const float* d_bold = given.d_bold + (volume + v) * Q;
            for (int64_t q = 0; q < Q; ++q) series[q] += d_bold[q];
        }
        const int64_t T = schedule.n_steps();
        for (int64_t k = 0; given.d_contrasts && k < task->n_contrasts(); ++k) {
            const float* d_contrast = given.d_contrasts + (row + k) * Q;
            const float* projection = task->projection.data.get() + k * T;
            if (projected) {
                std::copy_n(d_contrast, Q, d_outputs + k * O + kActions);
                continue;
            }
            for (int64_t t = 0; t < T; ++t) {
                for (int64_t q = 0; q < Q; ++q) {
                    d_outputs[t * O + kActions + q] += projection[t] * d_contrast[q];
                }
            }
        }
        outputs += rows * O;
        d_outputs += rows * O;
        trial += schedule.n_trials();
        volume += schedule.n_volumes();
        row += task->n_contrasts();
    }
}

}  // namespace

void find_gradients(const dtwin_model& model, const dtwin_people& people,
                    const dtwin_edge_gradients& given) {
    const Run run = choose_tasks(model, given.n_tasks, given.tasks);
    const bool behaviour = given.d_choice_prob || given.d_rt_s;
    if (behaviour && !model.hazard) {
        throw Refusal{DTWIN_ERROR_HEAD,
                      sentence("head", "d_choice_prob, d_rt_s",
                               "the peaks of this head are no function that has gradients",
                               "gradients of contrasts or BOLD", "the head sigmoid",
                               "Leave them NULL, or train a twin with the head hazard")};
    }
    if (people.n_subjects == 0) return;
    const bool projected = !behaviour && !given.d_bold && run.most_contrasts > 0;
    const int64_t B = run.n_sequences(), T = run.n_steps, H = model.n_hidden, P = model.n_weights();
    const int64_t rows = projected ? run.most_contrasts : T, values = B * rows * model.n_outputs();
    const int64_t n_inputs = B * T * kInputs;
    Rollouts rollouts(model, people, run, projected, behaviour, values + n_inputs + 2 * P);
    const auto make = [&](int64_t size) {
        return std::vector<float>(static_cast<size_t>(rollouts.chunk() * size));
    };
    std::vector<float> flat = make(P), d_weights = make(P), d_outputs = make(values),
                       d_inputs = make(n_inputs), d_h0 = make(B * H),
                       d_c0 = make(model.cell == DTWIN_LSTM ? B * H : 0);
    size_t workspace = 0;
    for (const Task* task : run.tasks) {
        if (behaviour) workspace = std::max(workspace, hazard_back_bytes(task->schedule));
    }
    const std::vector<Part> parts = weight_parts(model);
    for (int64_t first = 0; first < people.n_subjects; first += rollouts.chunk()) {
        const int64_t n = std::min(rollouts.chunk(), people.n_subjects - first);
        const Personalized personalized(model, people, first, first + n, true);
        personalized.weights(flat.data());
        dtwin_rollout_vjp_params params{};
        params.struct_size = sizeof params;
        params.rollout = rollouts.params(flat.data(), n);
        if (behaviour) {
            check(dtwin_rollout(&params.rollout));
            params.states = params.rollout.states;
        }
        std::fill(d_outputs.begin(), d_outputs.end(), 0.0f);
        const auto run_subject = [&](int64_t s, void* memory) {
            spread(model, run, given, projected, rows, first + s,
                   rollouts.outputs.data() + s * values, memory, d_outputs.data() + s * values);
        };
        check(run_items(n, wanted_threads(people.n_threads), workspace, run_subject));

        params.rollout.outputs = params.rollout.states = params.rollout.h_final =
            params.rollout.c_final = nullptr;
        params.rollout.diverged = nullptr;
        params.d_outputs = d_outputs.data();
        float* d_part = d_weights.data();
        for (const Part& part : parts) {
            params.*part.gradient = d_part;
            d_part += n * part.size;
        }
        params.d_inputs = d_inputs.data();
        params.d_h0 = d_h0.data();
        params.d_c0 = d_c0.empty() ? nullptr : d_c0.data();
        check(dtwin_rollout_vjp(&params));

        std::vector<float> d_flat(static_cast<size_t>(n * P));
        int64_t begin = 0;
        for (const Part& part : parts) {
            for (int64_t s = 0; s < n; ++s) {
                std::copy_n(d_weights.data() + n * begin + s * part.size, part.size,
                            d_flat.data() + s * P + begin);
            }
            begin += part.size;
        }
        personalized.back(std::move(d_flat), given.d_edges);
    }
}

}  // namespace dtwin::model
