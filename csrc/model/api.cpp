// The functions dtwin_model_... of dtwin.h: arguments are checked here, and nothing is thrown past.
#include <algorithm>
#include <cstdio>
#include <memory>
#include <new>
#include <stdexcept>

#include "arrays.h"
#include "model/hypernetwork.h"
#include "model/model.h"
#include "model/predict.h"
#include "model/refusal.h"

namespace dtwin::model {
namespace {

thread_local char message[2048] = "";

int fail(int status, const char* text) {
    std::snprintf(message, sizeof message, "%s", text);
    return status;
}

template <class Work>
int guarded(Work work) noexcept {
    try {
        work();
        return DTWIN_OK;
    } catch (const Refusal& refusal) {
        return fail(refusal.status, refusal.text.c_str());
    } catch (const std::bad_alloc&) {
    } catch (const std::length_error&) {  // of a vector that is larger than all memory
    }
    return fail(DTWIN_ERROR_MEMORY, dtwin_strerror(DTWIN_ERROR_MEMORY));
}

void check_pointer(const void* pointer, const char* name) {
    if (!pointer) {
        throw Refusal{DTWIN_ERROR_NULL, sentence("argument", name, "a required pointer is NULL", "",
                                                 "", "Give what dtwin.h says of it")};
    }
}

template <class Struct>
void check_struct(const Struct* given) {
    check_pointer(given, "a struct");
    if (given->struct_size != sizeof(Struct)) check(DTWIN_ERROR_VERSION);
}

// The arrays of a call: their elements per subject.
class Call {
  public:
    Call(const dtwin_model* model, const dtwin_people* people) {
        check_pointer(model, "model");
        check_struct(people);
        if (people->n_threads < 0 || people->n_threads > DTWIN_MAX_THREADS) {
            check(DTWIN_ERROR_THREADS);
        }
        if (people->unit < DTWIN_PEARSON_R || people->unit > DTWIN_FISHER_Z ||
            people->missing < DTWIN_MISSING_REJECT || people->missing > DTWIN_MISSING_IMPUTE) {
            check(DTWIN_ERROR_CHOICE);
        }
        if (people->n_subjects < 0 || people->max_bytes < 0) check(DTWIN_ERROR_SIZE);
        n_subjects_ = people->n_subjects;
        read(people->edges, model->n_edges());
        if (n_subjects_) check_pointer(people->edges, "edges");
    }

    void read(const float* data, int64_t size) {
        arrays_.read(data, {{n_subjects_, kPacked}, {size, kPacked}});
        misaligned_ |= reinterpret_cast<uintptr_t>(data) % alignof(float) != 0;
    }
    void write(float* data, int64_t size) {
        arrays_.write(data, {{n_subjects_, kPacked}, {size, kPacked}});
        misaligned_ |= reinterpret_cast<uintptr_t>(data) % alignof(float) != 0;
    }
    void write_bytes(uint8_t* data) { arrays_.write_bytes(data, n_subjects_); }

    void finish(const dtwin_model& model, const dtwin_people& people) const {
        if (!arrays_.fit()) check(DTWIN_ERROR_OVERFLOW);
        if (misaligned_) check(DTWIN_ERROR_ALIGNMENT);
        if (arrays_.overlap()) check(DTWIN_ERROR_OVERLAP);
        check_people(model, people);
    }

  private:
    Arrays arrays_{sizeof(float)};
    int64_t n_subjects_ = 0;
    bool misaligned_ = false;
};

template <class List>
const char* name_at(const List& names, int64_t index) {
    if (index < 0 || index >= static_cast<int64_t>(names.size())) return nullptr;
    return names[static_cast<size_t>(index)].c_str();
}

const Task* task_at(const dtwin_model* model, int64_t index) {
    if (!model || index < 0 || index >= static_cast<int64_t>(model->tasks.size())) return nullptr;
    return &model->tasks[static_cast<size_t>(index)];
}

}  // namespace
}  // namespace dtwin::model

using namespace dtwin::model;

extern "C" {

int dtwin_model_load(const char* folder, dtwin_model** model) {
    return guarded([&] {
        check_pointer(model, "model");
        *model = nullptr;
        check_pointer(folder, "folder");
        const Folder opened(folder);
        File config(opened, "config.json", kMostConfigBytes);
        File weights(opened, "model.safetensors", kMostWeightsBytes);
        std::string text(static_cast<size_t>(config.size()), '\0');
        if (!config.read(text.data(), text.size())) {
            refuse_model("model_config", config.name(), "the file ends early");
        }
        auto loaded = std::make_unique<dtwin_model>();
        read_model(text, config.name(), weights, loaded.get());
        *model = loaded.release();
    });
}

void dtwin_model_free(dtwin_model* model) { delete model; }

const char* dtwin_model_message(void) { return message; }

int dtwin_model_get_sizes(const dtwin_model* model, dtwin_model_sizes* sizes) {
    return guarded([&] {
        check_pointer(model, "model");
        check_struct(sizes);
        sizes->cell = model->cell;
        sizes->head = model->hazard ? DTWIN_HAZARD : DTWIN_SIGMOID;
        sizes->n_regions = model->n_regions;
        sizes->n_edges = model->n_edges();
        sizes->n_hidden = model->n_hidden;
        sizes->n_inputs = kInputs;
        sizes->n_outputs = model->n_outputs();
        sizes->n_actions = kActions;
        sizes->n_bold_regions = model->n_bold();
        sizes->n_weights = model->n_weights();
        sizes->n_tasks = static_cast<int64_t>(model->tasks.size());
        sizes->dt_s = model->dt_s;
        sizes->tr_s = model->tr_s;
    });
}

int dtwin_model_get_task_sizes(const dtwin_model* model, int64_t task, dtwin_task_sizes* sizes) {
    return guarded([&] {
        check_pointer(model, "model");
        check_struct(sizes);
        const Task* found = task_at(model, task);
        if (!found) check(DTWIN_ERROR_TASK);
        sizes->n_steps = found->schedule.n_steps();
        sizes->n_trials = found->schedule.n_trials();
        sizes->n_volumes = found->schedule.n_volumes();
        sizes->n_contrasts = found->n_contrasts();
    });
}

const char* dtwin_model_region(const dtwin_model* model, int64_t region) {
    return model ? name_at(model->regions, region) : nullptr;
}

const char* dtwin_model_bold_region(const dtwin_model* model, int64_t region) {
    return model ? name_at(model->bold_regions, region) : nullptr;
}

const char* dtwin_model_task(const dtwin_model* model, int64_t task) {
    const Task* found = task_at(model, task);
    return found ? found->name.c_str() : nullptr;
}

const char* dtwin_model_contrast(const dtwin_model* model, int64_t task, int64_t contrast) {
    const Task* found = task_at(model, task);
    return found ? name_at(found->contrasts, contrast) : nullptr;
}

const char* dtwin_model_sha256(const dtwin_model* model) {
    return model ? model->sha256.c_str() : nullptr;
}

int dtwin_model_personalize(const dtwin_model* model, const dtwin_people* people, float* weights) {
    return guarded([&] {
        Call call(model, people);
        if (people->n_subjects) check_pointer(weights, "weights");
        call.write(weights, model->n_weights());
        call.finish(*model, *people);
        const int64_t n = chunk_size(*people, model->n_edges());
        for (int64_t first = 0; first < people->n_subjects; first += n) {
            const int64_t last = std::min(first + n, people->n_subjects);
            Personalized(*model, *people, first, last, false)
                .weights(weights + first * model->n_weights());
        }
    });
}

int dtwin_model_set_weights(const dtwin_model* model, const float* weights, int64_t n_subjects,
                            dtwin_rollout_params* params) {
    return guarded([&] {
        check_pointer(model, "model");
        check_struct(params);
        if (n_subjects < 0) check(DTWIN_ERROR_SIZE);
        if (n_subjects) check_pointer(weights, "weights");
        set_weights(*model, weights, n_subjects, params);
    });
}

int dtwin_model_encode(const dtwin_model* model, int64_t n_tasks, const char* const* tasks,
                       float* inputs) {
    return guarded([&] {
        check_pointer(model, "model");
        check_pointer(inputs, "inputs");
        const Run run = choose_tasks(*model, n_tasks, tasks);
        std::fill_n(inputs, run.n_sequences() * run.n_steps * kInputs, 0.0f);
        encode(run, inputs);
    });
}

int dtwin_model_predict(const dtwin_model* model, const dtwin_people* people,
                        const dtwin_predictions* predictions) {
    return guarded([&] {
        Call call(model, people);
        check_struct(predictions);
        const dtwin_predictions& p = *predictions;
        const Run run = choose_tasks(*model, p.n_tasks, p.tasks);
        call.write(p.choice_prob, run.n_trials * kActions);
        call.write(p.rt_s, run.n_trials);
        call.write(p.contrasts, run.n_contrasts * model->n_bold());
        call.write(p.bold, run.n_volumes * model->n_bold());
        call.write_bytes(p.diverged);
        call.finish(*model, *people);
        predict(*model, *people, p);
    });
}

int dtwin_model_vjp(const dtwin_model* model, const dtwin_people* people,
                    const dtwin_edge_gradients* gradients) {
    return guarded([&] {
        Call call(model, people);
        check_struct(gradients);
        const dtwin_edge_gradients& g = *gradients;
        const Run run = choose_tasks(*model, g.n_tasks, g.tasks);
        if (people->n_subjects) check_pointer(g.d_edges, "d_edges");
        call.read(g.d_choice_prob, run.n_trials * kActions);
        call.read(g.d_rt_s, run.n_trials);
        call.read(g.d_contrasts, run.n_contrasts * model->n_bold());
        call.read(g.d_bold, run.n_volumes * model->n_bold());
        call.write(g.d_edges, model->n_edges());
        call.finish(*model, *people);
        find_gradients(*model, *people, g);
    });
}

}  // extern "C"
