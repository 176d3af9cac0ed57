// One model in several threads at once: model_threads FOLDER. Loads, predictions, gradients and
// refusals side by side have the results of one alone, and each thread its own message.
#include <atomic>
#include <cstdio>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "dtwin.h"

namespace {

constexpr int64_t kSubjects = 3;
constexpr int kThreads = 4, kRounds = 5;

// What is computed of people with a model.
struct Results {
    std::vector<float> weights, contrasts, rt_s, d_edges;
    bool ok = true;

    bool operator==(const Results& other) const {
        return ok && other.ok && weights == other.weights && contrasts == other.contrasts &&
               rt_s == other.rt_s && d_edges == other.d_edges;
    }
};

std::vector<float> make_edges(int64_t n_edges) {
    std::vector<float> edges(static_cast<size_t>(kSubjects * n_edges));
    for (size_t i = 0; i < edges.size(); ++i)
        edges[i] = static_cast<float>(i * 37 % 19) / 20 - 0.4f;
    return edges;
}

Results compute(const dtwin_model* model) {
    dtwin_model_sizes sizes{};
    sizes.struct_size = sizeof sizes;
    dtwin_task_sizes task{};
    task.struct_size = sizeof task;
    Results results;
    results.ok &= dtwin_model_get_sizes(model, &sizes) == DTWIN_OK;
    results.ok &= dtwin_model_get_task_sizes(model, 0, &task) == DTWIN_OK;
    const auto make = [](int64_t size) {
        return std::vector<float>(static_cast<size_t>(kSubjects * size));
    };
    const std::vector<float> edges = make_edges(sizes.n_edges);
    results.weights = make(sizes.n_weights);
    results.contrasts = make(task.n_contrasts * sizes.n_bold_regions);
    results.rt_s = make(task.n_trials);
    results.d_edges = make(sizes.n_edges);
    dtwin_people people{};
    people.struct_size = sizeof people;
    people.n_threads = 2;
    people.n_subjects = kSubjects;
    people.edges = edges.data();
    const char* const name = dtwin_model_task(model, 0);
    dtwin_predictions predictions{};
    predictions.struct_size = sizeof predictions;
    predictions.n_tasks = 1;
    predictions.tasks = &name;
    predictions.contrasts = results.contrasts.data();
    predictions.rt_s = results.rt_s.data();
    results.ok &= dtwin_model_personalize(model, &people, results.weights.data()) == DTWIN_OK;
    results.ok &= dtwin_model_predict(model, &people, &predictions) == DTWIN_OK;
    dtwin_edge_gradients gradients{};
    gradients.struct_size = sizeof gradients;
    gradients.n_tasks = 1;
    gradients.tasks = &name;
    gradients.d_contrasts = results.contrasts.data();
    gradients.d_rt_s = results.rt_s.data();
    gradients.d_edges = results.d_edges.data();
    results.ok &= dtwin_model_vjp(model, &people, &gradients) == DTWIN_OK;
    return results;
}

// A refusal of this thread's own, whose message must stay its own.
bool refused(int thread) {
    const std::string absent = "/absent/" + std::to_string(thread);
    dtwin_model* none = nullptr;
    return dtwin_model_load(absent.c_str(), &none) == DTWIN_ERROR_MODEL && !none &&
           std::strstr(dtwin_model_message(), absent.c_str());
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 2) return 2;
    dtwin_model* shared = nullptr;
    if (dtwin_model_load(argv[1], &shared)) return 3;
    const Results alone = compute(shared);
    std::atomic<int> wrong{0};
    std::vector<std::thread> threads;
    for (int thread = 0; thread < kThreads; ++thread) {
        threads.emplace_back([&, thread] {
            for (int round = 0; round < kRounds; ++round) {
                dtwin_model* own = nullptr;
                const bool loaded = dtwin_model_load(argv[1], &own) == DTWIN_OK;
                wrong += !loaded || !(compute(own) == alone) || !(compute(shared) == alone);
                wrong += !refused(thread);
                dtwin_model_free(own);
            }
        });
    }
    for (std::thread& thread : threads) thread.join();
    dtwin_model_free(shared);
    std::printf("%d threads, %d rounds, %d wrong\n", kThreads, kRounds, wrong.load());
    return 0;
}
