// Reads a block again and again on every thread at once: limits BYTES THREADS -> bytes per second.
// The block has the size of one subject's w_hh, which a rollout with B = 1 reads at every step.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

typedef float Vec __attribute__((vector_size(64)));

static double seconds() {
    using namespace std::chrono;
    return duration<double>(steady_clock::now().time_since_epoch()).count();
}

__attribute__((noinline)) static Vec read_block(const Vec* block, size_t n) {
    asm volatile("" : : : "memory");  // or the compiler would see that nothing changes
    Vec sums[8] = {};                 // enough to hide the latency of an addition
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (size_t k = 0; k < 8; ++k) sums[k] += block[i + k];
    for (; i < n; ++i) sums[0] += block[i];
    for (size_t k = 1; k < 8; ++k) sums[0] += sums[k];
    return sums[0];
}

int main(int argc, char** argv) {
    if (argc != 3) return 2;
    const size_t n = std::max<size_t>(1, std::strtoull(argv[1], nullptr, 10) / sizeof(Vec));
    const int n_threads = std::max(1, std::atoi(argv[2]));
    const double long_enough_s = 0.1;
    double best = 0;
    for (int round = 0; round < 5; ++round) {
        std::atomic<int> ready{0};
        std::vector<double> rates(n_threads);
        std::vector<std::thread> threads;
        for (int t = 0; t < n_threads; ++t)
            threads.emplace_back([&, t] {
                // Large pages, or the block would spread unevenly over the sets of the cache.
                const size_t page = 2 << 20, room = (n * sizeof(Vec) + page - 1) / page * page;
                Vec* block = static_cast<Vec*>(std::aligned_alloc(page, room));
                if (block == nullptr) std::abort();
#if defined(__linux__)
                madvise(block, room, MADV_HUGEPAGE);
#endif
                std::fill_n(reinterpret_cast<float*>(block), n * 16, 1.0f);
                volatile float sink = read_block(block, n)[0];
                for (++ready; ready < n_threads;) {
                }
                double start = seconds(), now = start, bytes = 0;
                while (now - start < long_enough_s) {
                    for (size_t done = 0; done < (1u << 20);
                         done += n * sizeof(Vec), bytes += n * sizeof(Vec))
                        sink = read_block(block, n)[0];
                    now = seconds();
                }
                rates[t] = bytes / (now - start);
                std::free(block);
            });
        for (auto& thread : threads) thread.join();
        double sum = 0;
        for (double rate : rates) sum += rate;
        best = std::max(best, sum);
    }
    std::printf("%.6e\n", best);
}
