// The kernels' primitives on a CPU: what csrc/cuda/device/device.h declares for a GPU. Each thread
// of a block is a fiber; those that wait for other threads are in cluster.cpp.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace dtwin::gpu {

// What a kernel can know of the thread that runs it.
struct EmulatedThread {
    int index, count, block_x, block_y, cluster_rank;
    char* shared;
};
extern EmulatedThread* emulated_thread;  // the one that runs

// A kernel of the library, found by its name.
struct EmulatedKernel {
    EmulatedKernel(const char* name, size_t params_bytes, int most_threads,
                   void (*run)(const void* params));
    const char* name;
    size_t params_bytes;
    int most_threads;
    void (*run)(const void* params);
    const EmulatedKernel* next;
};

}  // namespace dtwin::gpu

#define DTWIN_KERNEL(name, Params, threads, blocks)                              \
    static_assert(std::is_trivially_copyable<Params>::value, "a GPU copies it"); \
    static_assert((threads) > 0 && (threads) <= 1024 && (blocks) > 0, "");       \
    static void name(const Params& p);                                           \
    static const ::dtwin::gpu::EmulatedKernel name##_emulated(                   \
        #name, sizeof(Params), (threads),                                        \
        [](const void* params) { name(*static_cast<const Params*>(params)); });  \
    static void name(const Params& p)

// Inlined for another reason than on a GPU: two files may give one name to different functions.
#define DTWIN_DEVICE inline __attribute__((always_inline))
#define DTWIN_UNROLL
#define DTWIN_UNROLL_2
#define DTWIN_UNROLL_4
#define DTWIN_ROLLED

namespace dtwin::gpu {

struct alignas(16) Four {
    float at[4];
};

DTWIN_DEVICE int thread_index() { return emulated_thread->index; }
DTWIN_DEVICE int thread_count() { return emulated_thread->count; }
DTWIN_DEVICE int block_x() { return emulated_thread->block_x; }
DTWIN_DEVICE int block_y() { return emulated_thread->block_y; }
DTWIN_DEVICE char* shared_memory() { return emulated_thread->shared; }
DTWIN_DEVICE int cluster_rank() { return emulated_thread->cluster_rank; }

void block_barrier();
float shuffle_xor(float v, int mask);
void cluster_barrier();

// Its bytes in shared memory: see cluster.cpp.
using Mailbox = uint64_t;
void open_mailbox(Mailbox* mailbox);
void expect(Mailbox* mailbox, int bytes);
void send(float* to, float v, Mailbox* mailbox, int rank);
void receive(Mailbox* mailbox, int n);

DTWIN_DEVICE uint32_t bits_of(float v) {
    uint32_t bits;
    std::memcpy(&bits, &v, sizeof bits);
    return bits;
}
DTWIN_DEVICE float float_of(uint32_t bits) {
    float v;
    std::memcpy(&v, &bits, sizeof v);
    return v;
}
DTWIN_DEVICE float fma(float a, float b, float c) { return std::fma(a, b, c); }

DTWIN_DEVICE int afresh(int v) { return v; }

DTWIN_DEVICE uint32_t upper_half(float v) {
    const uint32_t bits = bits_of(v);
    return (v != v ? bits | 0x400000u : bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
}
DTWIN_DEVICE uint32_t narrow(float low, float high) {
    return upper_half(low) | upper_half(high) << 16;
}
DTWIN_DEVICE float widen_low(uint32_t pair) { return float_of(pair << 16); }
DTWIN_DEVICE float widen_high(uint32_t pair) { return float_of(pair & 0xffff0000u); }

DTWIN_DEVICE void prefetch(const float*) {}
DTWIN_DEVICE float quick_exp2(float x) { return std::exp2(x); }
// The GPU's divides by nothing beyond 2^126: it gives 0 there, and NaN where a is infinite.
DTWIN_DEVICE float quick_divide(float a, float b) {
    return std::fabs(b) > 0x1p126f && std::isfinite(b) ? a * 0.0f : a / b;
}

}  // namespace dtwin::gpu
