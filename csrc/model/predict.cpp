#include "model/predict.h"

#include <algorithm>
#include <string>
#include <string_view>

#include "model/hypernetwork.h"
#include "model/readouts.h"
#include "model/refusal.h"
#include "parallel.h"

namespace dtwin::model {
namespace {

constexpr int64_t kMaxBytes = int64_t{256} << 20;
constexpr int64_t kMostSubjects = 64;  // more at once gain nothing

const Task* find_task(const dtwin_model& model, std::string_view name) {
    for (const Task& task : model.tasks) {
        if (task.name == name) return &task;
    }
    return nullptr;
}

[[noreturn]] void refuse_task(const dtwin_model& model, const std::string& what) {
    std::string known;
    for (const Task& task : model.tasks) known += (known.empty() ? "" : " | ") + task.name;
    throw Refusal{DTWIN_ERROR_TASK, sentence("task", "tasks", what, known, "",
                                             "Name tasks of this model, each once")};
}

// Reads one subject's outputs [B, rows, O] into the results of subject `to`.
void read_out(const dtwin_model& model, const Run& run, const dtwin_predictions& wanted,
              bool projected, int64_t rows, const float* outputs, int64_t to) {
    const int64_t O = model.n_outputs(), Q = model.n_bold();
    int64_t trial = to * run.n_trials, volume = to * run.n_volumes, row = to * run.n_contrasts;
    for (const Task* task : run.tasks) {
        const Schedule& schedule = task->schedule;
        for (int64_t n = 0; n < schedule.n_trials() && (wanted.choice_prob || wanted.rt_s); ++n) {
            const Response said =
                (model.hazard ? read_hazard : read_sigmoid)(schedule, n, outputs, O);
            for (int64_t c = 0; wanted.choice_prob && c < kActions; ++c) {
                wanted.choice_prob[(trial + n) * kActions + c] =
                    static_cast<float>(said.choice_prob[c]);
            }
            if (wanted.rt_s) wanted.rt_s[trial + n] = static_cast<float>(said.rt_s);
        }
        for (int64_t v = 0; wanted.bold && v < schedule.n_volumes(); ++v) {
            const float* series = outputs + schedule.volume_step(v) * O + kActions;
            std::copy_n(series, Q, wanted.bold + (volume + v) * Q);
        }
        const int64_t T = schedule.n_steps();
        for (int64_t k = 0; wanted.contrasts && k < task->n_contrasts(); ++k) {
            const float* projection = task->projection.data.get() + k * T;
            for (int64_t q = 0; q < Q; ++q) {
                double sum = 0;
                for (int64_t t = 0; !projected && t < T; ++t) {
                    sum += double{projection[t]} * outputs[t * O + kActions + q];
                }
                wanted.contrasts[(row + k) * Q + q] =
                    projected ? outputs[k * O + kActions + q] : static_cast<float>(sum);
            }
        }
        outputs += rows * O;
        trial += schedule.n_trials();
        volume += schedule.n_volumes();
        row += task->n_contrasts();
    }
}

}  // namespace

void check(int status) {
    if (status) throw Refusal{status, dtwin_strerror(status)};
}

Run choose_tasks(const dtwin_model& model, int64_t n_tasks, const char* const* names) {
    if (n_tasks < 0) check(DTWIN_ERROR_SIZE);
    if (n_tasks && !names) check(DTWIN_ERROR_NULL);
    if (n_tasks > static_cast<int64_t>(model.tasks.size())) refuse_task(model, "too many tasks");
    Run run;
    for (int64_t i = 0; i < n_tasks; ++i) {
        if (!names[i]) check(DTWIN_ERROR_NULL);
        const Task* task = find_task(model, names[i]);
        if (!task) refuse_task(model, "this model was not trained on one of these");
        if (std::count(run.tasks.begin(), run.tasks.end(), task)) {
            refuse_task(model, "a task is named twice");
        }
        run.tasks.push_back(task);
    }
    if (n_tasks == 0) {
        for (const Task& task : model.tasks) run.tasks.push_back(&task);
    }
    for (const Task* task : run.tasks) {
        run.n_steps = std::max(run.n_steps, task->schedule.n_steps());
        run.n_trials += task->schedule.n_trials();
        run.n_volumes += task->schedule.n_volumes();
        run.n_contrasts += task->n_contrasts();
        run.most_contrasts = std::max(run.most_contrasts, task->n_contrasts());
    }
    return run;
}

void encode(const Run& run, float* inputs) {
    for (const Task* task : run.tasks) {
        task->schedule.encode(inputs);
        inputs += run.n_steps * kInputs;
    }
}

int64_t chunk_size(const dtwin_people& people, int64_t values) {
    const int64_t bytes = people.max_bytes ? people.max_bytes : kMaxBytes;
    const int64_t fit = bytes / std::max<int64_t>(1, values) / int64_t{sizeof(float)};
    return std::min(std::clamp<int64_t>(fit, 1, kMostSubjects), people.n_subjects);
}

void set_weights(const dtwin_model& model, const float* weights, int64_t n_subjects,
                 dtwin_rollout_params* params) {
    params->cell = model.cell;
    params->dtype = DTWIN_FLOAT32;
    params->n_subjects = n_subjects;
    params->n_inputs = kInputs;
    params->n_hidden = model.n_hidden;
    params->n_outputs = model.n_outputs();
    for (const Part& part : weight_parts(model)) {
        params->*part.values = weights;
        params->*part.stride = model.n_weights();
        if (weights) weights += part.size;  // NULL of nobody stays what it is
    }
}

Rollouts::Rollouts(const dtwin_model& model, const dtwin_people& people, const Run& run,
                   bool projected, bool keep_states, int64_t more)
    : model_(model),
      people_(people),
      run_(run),
      rows_(projected ? run.most_contrasts : run.n_steps) {
    const int64_t B = run.n_sequences(), T = run.n_steps, H = model.n_hidden;
    const int64_t values = B * rows_ * model.n_outputs(), kept = keep_states ? B * T * H : 0;
    chunk_ = chunk_size(people, model.n_edges() + model.n_weights() + values + kept + more);
    inputs_.resize(static_cast<size_t>(B * T * kInputs));
    encode(run, inputs_.data());
    if (projected) projection_.resize(static_cast<size_t>(B * rows_ * T));
    for (int64_t b = 0; projected && b < B; ++b) {
        const Task& task = *run.tasks[static_cast<size_t>(b)];
        const int64_t own = task.schedule.n_steps();
        for (int64_t k = 0; k < task.n_contrasts(); ++k) {
            std::copy_n(task.projection.data.get() + k * own, own,
                        projection_.data() + (b * rows_ + k) * T);
        }
    }
    outputs.resize(static_cast<size_t>(chunk_ * values));
    states.resize(static_cast<size_t>(chunk_ * kept));
    h_final.resize(static_cast<size_t>(chunk_ * B * H));
    c_final.resize(model.cell == DTWIN_LSTM ? h_final.size() : 0);
    diverged.resize(static_cast<size_t>(chunk_));
}

dtwin_rollout_params Rollouts::params(const float* flat, int64_t n) {
    dtwin_rollout_params params{};
    params.struct_size = sizeof params;
    params.n_threads = people_.n_threads;
    set_weights(model_, flat, n, &params);
    params.n_sequences = run_.n_sequences();
    params.n_steps = run_.n_steps;
    params.inputs = inputs_.data();
    params.inputs_sequence_stride = run_.n_steps * kInputs;
    if (!projection_.empty()) {
        params.projection = projection_.data();
        params.n_projected = rows_;
        params.projection_sequence_stride = rows_ * run_.n_steps;
    }
    params.outputs = outputs.data();
    params.states = states.empty() ? nullptr : states.data();
    params.h_final = h_final.data();
    params.c_final = c_final.empty() ? nullptr : c_final.data();
    params.diverged = diverged.data();
    return params;
}

void predict(const dtwin_model& model, const dtwin_people& people,
             const dtwin_predictions& wanted) {
    const Run run = choose_tasks(model, wanted.n_tasks, wanted.tasks);
    const bool series = wanted.choice_prob || wanted.rt_s || wanted.bold;
    if (people.n_subjects == 0 || (!series && !wanted.contrasts && !wanted.diverged)) return;
    const bool projected = !series && run.most_contrasts > 0;
    Rollouts rollouts(model, people, run, projected, false, 0);
    std::vector<float> flat(static_cast<size_t>(rollouts.chunk() * model.n_weights()));
    const int64_t values = run.n_sequences() * rollouts.rows() * model.n_outputs();
    for (int64_t first = 0; first < people.n_subjects; first += rollouts.chunk()) {
        const int64_t last = std::min(first + rollouts.chunk(), people.n_subjects);
        Personalized(model, people, first, last, false).weights(flat.data());
        const dtwin_rollout_params params = rollouts.params(flat.data(), last - first);
        check(dtwin_rollout(&params));
        const auto run_subject = [&](int64_t s, void*) {
            read_out(model, run, wanted, projected, rollouts.rows(),
                     rollouts.outputs.data() + s * values, first + s);
        };
        check(run_items(last - first, wanted_threads(people.n_threads), 0, run_subject));
        if (wanted.diverged) {
            std::copy_n(rollouts.diverged.data(), last - first, wanted.diverged + first);
        }
    }
}

}  // namespace dtwin::model
