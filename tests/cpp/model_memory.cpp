// No memory: model_memory FOLDER. Every allocation of a load, a prediction and its gradients fails
// once, alone and with all that follow it; each such call says DTWIN_ERROR_MEMORY and leaks
// nothing.
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <vector>

#include "dtwin.h"

namespace {

std::atomic<long> left{-1};  // allocations that still succeed; negative: all
std::atomic<bool> for_good{false};
std::atomic<long> live{0};

bool fails() {
    if (left < 0) return false;
    const long before = left--;
    if (before == 0 && for_good) left = 0;
    return before == 0;
}

void* allocate(size_t size, size_t alignment) noexcept {
    if (fails()) return nullptr;
    void* memory = nullptr;
    if (posix_memalign(&memory, alignment < sizeof(void*) ? sizeof(void*) : alignment, size)) {
        return nullptr;
    }
    ++live;
    return memory;
}

void* allocate_or_throw(size_t size, size_t alignment) {
    void* memory = allocate(size, alignment);
    if (!memory) throw std::bad_alloc();
    return memory;
}

void release(void* memory) noexcept {
    if (!memory) return;
    --live;
    std::free(memory);
}

}  // namespace

// The library's allocations come here too.
using Align = std::align_val_t;
void* operator new(size_t n) { return allocate_or_throw(n, 16); }
void* operator new[](size_t n) { return allocate_or_throw(n, 16); }
void* operator new(size_t n, Align a) { return allocate_or_throw(n, static_cast<size_t>(a)); }
void* operator new[](size_t n, Align a) { return allocate_or_throw(n, static_cast<size_t>(a)); }
void* operator new(size_t n, const std::nothrow_t&) noexcept { return allocate(n, 16); }
void* operator new[](size_t n, const std::nothrow_t&) noexcept { return allocate(n, 16); }
void* operator new(size_t n, Align a, const std::nothrow_t&) noexcept {
    return allocate(n, static_cast<size_t>(a));
}
void* operator new[](size_t n, Align a, const std::nothrow_t&) noexcept {
    return allocate(n, static_cast<size_t>(a));
}
void operator delete(void* p) noexcept { release(p); }
void operator delete[](void* p) noexcept { release(p); }
void operator delete(void* p, size_t) noexcept { release(p); }
void operator delete[](void* p, size_t) noexcept { release(p); }
void operator delete(void* p, Align) noexcept { release(p); }
void operator delete[](void* p, Align) noexcept { release(p); }
void operator delete(void* p, size_t, Align) noexcept { release(p); }
void operator delete[](void* p, size_t, Align) noexcept { release(p); }

namespace {

struct Count {
    long failed = 0, leaks = 0, other = 0;
};

// Fails the first allocation of `work`, then the second, and so on to the last.
template <class Work>
void sweep(Work work, Count* count) {
    for (const bool good : {false, true}) {
        for (long n = 0;; ++n) {
            const long before = live;
            for_good = good;
            left = n;
            const int status = work();
            const bool reached = left < 0 || (good && left == 0);
            left = -1;
            count->leaks += live != before;
            if (!reached) break;
            ++count->failed;
            // What can be done without, such as a second thread, need not fail the call.
            count->other += status != DTWIN_ERROR_MEMORY && status != DTWIN_OK;
        }
    }
}

}  // namespace

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
