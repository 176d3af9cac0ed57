// The threads of one call and their workspaces.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <system_error>
#include <thread>

#include "dtwin.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace dtwin {

// A large workspace lies in large pages where the system has them: each step reads all of a
// subject's weights, and small pages would spread them unevenly over the sets of the cache.
constexpr size_t kPage = 2 << 20;
constexpr size_t kLarge = kPage / 2;
constexpr size_t kLine = 64;

struct FreeMemory {
    std::align_val_t alignment{kLine};
    void operator()(std::byte* memory) const { ::operator delete[](memory, alignment); }
};
using Memory = std::unique_ptr<std::byte[], FreeMemory>;

// `bytes` of workspace, or null.
inline Memory allocate(size_t bytes) {
    const bool large = bytes >= kLarge;
    const std::align_val_t alignment{large ? kPage : kLine};
    void* memory = ::operator new[](bytes, alignment, std::nothrow);
#if defined(__linux__)
    if (memory && large) madvise(memory, bytes, MADV_HUGEPAGE);  // advice, taken or not
#endif
    return Memory(static_cast<std::byte*>(memory), {alignment});
}

inline int64_t wanted_threads(int64_t n_threads) {
    const int64_t wanted =
        n_threads ? n_threads : std::max(1u, std::thread::hardware_concurrency());
    return std::min<int64_t>(wanted, DTWIN_MAX_THREADS);
}

constexpr int64_t kEvenly = 4;  // items for each thread: the last ones to end wait little

// The threads of one call; they are joined on every way out.
class Threads {
  public:
    ~Threads() {
        for (int64_t i = 0; i < n_started_; ++i) threads_[i].join();
    }

    template <class Work>
    void start(int64_t count, Work work) {
        if (count == 0) return;
        threads_.reset(new (std::nothrow) std::thread[count]);
        try {
            for (; threads_ && n_started_ < count; ++n_started_) {
                threads_[n_started_] = std::thread(work, n_started_);
            }
        } catch (const std::system_error&) {
            // The system grants no more threads; those that run take all the items.
        } catch (const std::bad_alloc&) {
        }
    }

  private:
    std::unique_ptr<std::thread[]> threads_;
    int64_t n_started_ = 0;
};

// Call `run(item, workspace)` for every item; each thread has a workspace of `bytes`.
template <class Run>
int run_items(int64_t n_items, int64_t n_threads, size_t bytes, Run run) {
    // Every workspace is there before the first item starts, so a failure writes nothing.
    n_threads = std::min(n_threads, n_items);
    std::unique_ptr<Memory[]> workspaces(new (std::nothrow) Memory[n_threads]);
    if (!workspaces) return DTWIN_ERROR_MEMORY;
    if (bytes >= kLarge) {
        if (__builtin_add_overflow(bytes, kPage - 1, &bytes)) return DTWIN_ERROR_OVERFLOW;
        bytes -= bytes % kPage;
    }
    for (int64_t i = 0; i < n_threads; ++i) {
        workspaces[i] = allocate(bytes);
        if (!workspaces[i]) return DTWIN_ERROR_MEMORY;
    }

    // Who takes an item next is a race, but an item's arithmetic is its own: same bits.
    std::atomic<int64_t> next_item{0};
    const auto work = [&](int64_t thread) {
        for (int64_t item; (item = next_item.fetch_add(1)) < n_items;) {
            run(item, workspaces[thread].get());
        }
    };
    Threads threads;
    threads.start(n_threads - 1, work);
    work(n_threads - 1);
    return DTWIN_OK;
}

}  // namespace dtwin
