// No memory: model_memory FOLDER. Every allocation of a load, a prediction and its gradients fails
// once, alone and with all that follow it; each such call says DTWIN_ERROR_MEMORY and leaks
// nothing.
#include <cstdio>
#include <vector>

#include "dtwin.h"
#include "failing_memory.h"

int main(int argc, char** argv) {
    if (argc != 2) return 2;
    dtwin_model* model = nullptr;
    Count loads, calls;
    sweep(
        [&] {
            dtwin_model* loaded = nullptr;
            const int status = dtwin_model_load(argv[1], &loaded);
            dtwin_model_free(loaded);
            return status;
        },
        &loads);
    if (dtwin_model_load(argv[1], &model)) return 3;
    dtwin_model_sizes sizes{};
    sizes.struct_size = sizeof sizes;
    dtwin_model_get_sizes(model, &sizes);
    dtwin_task_sizes task{};
    task.struct_size = sizeof task;
    dtwin_model_get_task_sizes(model, 0, &task);
    const char* const name = dtwin_model_task(model, 0);
    std::vector<float> edges(static_cast<size_t>(sizes.n_edges), 0.25f), d_edges = edges;
    std::vector<float> rt_s(static_cast<size_t>(task.n_trials));
    dtwin_people people{};
    people.struct_size = sizeof people;
    people.n_threads = 2;
    people.n_subjects = 1;
    people.edges = edges.data();
    dtwin_predictions predictions{};
    predictions.struct_size = sizeof predictions;
    predictions.n_tasks = 1;
    predictions.tasks = &name;
    predictions.rt_s = rt_s.data();
    dtwin_edge_gradients gradients{};
    gradients.struct_size = sizeof gradients;
    gradients.n_tasks = 1;
    gradients.tasks = &name;
    gradients.d_rt_s = rt_s.data();
    gradients.d_edges = d_edges.data();
    sweep([&] { return dtwin_model_predict(model, &people, &predictions); }, &calls);
    sweep([&] { return dtwin_model_vjp(model, &people, &gradients); }, &calls);
    dtwin_model_free(model);
    std::printf("%ld loads, %ld calls without memory: %ld leaks, %ld other statuses\n",
                loads.failed, calls.failed, loads.leaks + calls.leaks, loads.other + calls.other);
    return 0;
}
