// What the kernels ask of a GPU, and nothing else of CUDA's language is used in them. A second
// form of this header (tests/cuda_emulator) runs the same kernels on a CPU.
#pragma once

#include <cstdint>

// A kernel of one argument, `p`: at most `threads` a block, at least `blocks` blocks on a
// multiprocessor at once.
#define DTWIN_KERNEL(name, Params, threads, blocks)                   \
    extern "C" __global__ void __launch_bounds__((threads), (blocks)) \
        name(const __grid_constant__ Params p)

#define DTWIN_DEVICE __device__ __forceinline__
#define DTWIN_UNROLL _Pragma("unroll")
#define DTWIN_UNROLL_2 _Pragma("unroll 2")
#define DTWIN_UNROLL_4 _Pragma("unroll 4")
#define DTWIN_ROLLED _Pragma("unroll 1")  // where copies of the body would take registers

namespace dtwin::gpu {

struct alignas(16) Four {
    float at[4];
};

DTWIN_DEVICE int thread_index() { return threadIdx.x; }
DTWIN_DEVICE int thread_count() { return blockDim.x; }
DTWIN_DEVICE int block_x() { return blockIdx.x; }
DTWIN_DEVICE int block_y() { return blockIdx.y; }

// The block's shared memory, whose size the launch gives.
DTWIN_DEVICE char* shared_memory() {
    extern __shared__ Four dtwin_shared[];
    return reinterpret_cast<char*>(dtwin_shared);
}

// All threads of the block have come here, and see what the others wrote before.
DTWIN_DEVICE void block_barrier() { __syncthreads(); }

// `v` of the lane whose number differs in the bits of `mask`; all 32 lanes of a warp take part.
DTWIN_DEVICE float shuffle_xor(float v, int mask) { return __shfl_xor_sync(0xffffffffu, v, mask); }

// A cluster is `size` blocks along x that run at once and can write each other's shared memory.
// It takes compute capability 9.0; below, and in a launch without clusters, size is 1.
DTWIN_DEVICE int cluster_rank() {
#if __CUDA_ARCH__ >= 900
    unsigned rank;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return static_cast<int>(rank);
#else
    return 0;
#endif
}

// All threads of the cluster have come here, and see what the others wrote before.
DTWIN_DEVICE void cluster_barrier() {
#if __CUDA_ARCH__ >= 900
    asm volatile(
        "barrier.cluster.arrive.release.aligned;\n"
        "barrier.cluster.wait.acquire.aligned;" ::
            : "memory");
#endif
}

// A mailbox in shared memory counts the bytes that the cluster's blocks send to its block: the
// n-th delivery (n from 0) is there when as many have come as its block expected. This costs less
// than a barrier of the cluster, which also waits for all writes to global memory.
using Mailbox = uint64_t;

#if __CUDA_ARCH__ >= 900
DTWIN_DEVICE uint32_t shared_address(const void* shared) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}

// The address that `local`, in this block's shared memory, has for the cluster's block `rank`.
DTWIN_DEVICE uint32_t peer_address(const void* local, int rank) {
    uint32_t remote;
    asm("mapa.shared::cluster.u32 %0, %1, %2;"
        : "=r"(remote)
        : "r"(shared_address(local)), "r"(rank));
    return remote;
}
#endif

// By one thread, with a barrier of the cluster between this and the first send().
DTWIN_DEVICE void open_mailbox(Mailbox* mailbox) {
#if __CUDA_ARCH__ >= 900
    asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(shared_address(mailbox))
                 : "memory");
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
#endif
}

// By one thread, once for each delivery, before the one that follows it can be sent.
DTWIN_DEVICE void expect(Mailbox* mailbox, int bytes) {
#if __CUDA_ARCH__ >= 900
    asm volatile(
        "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(mailbox)),
        "r"(bytes)
        : "memory");
#endif
}

// v to where `to` is in block `rank` of the cluster, counted by that block's mailbox.
DTWIN_DEVICE void send(float* to, float v, Mailbox* mailbox, int rank) {
#if __CUDA_ARCH__ >= 900
    asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.b32 [%0], %1, [%2];" ::"r"(
                     peer_address(to, rank)),
                 "r"(__float_as_uint(v)), "r"(peer_address(mailbox, rank))
                 : "memory");
#endif
}

// Until delivery n is there.
DTWIN_DEVICE void receive(Mailbox* mailbox, int n) {
#if __CUDA_ARCH__ >= 900
#if __CUDACC_VER_MAJOR__ > 12 || (__CUDACC_VER_MAJOR__ == 12 && __CUDACC_VER_MINOR__ >= 8)
    // Only shared memory has news: acquiring all of it would empty the L1 cache.
    asm volatile(
        "{\n"
        ".reg .pred there;\n"
        "again:\n"
        "mbarrier.try_wait.parity.relaxed.cluster.shared::cta.b64 there, [%0], %1;\n"
        "@!there bra again;\n"
        "fence.acquire.sync_restrict::shared::cluster.cluster;\n"
        "}" ::"r"(shared_address(mailbox)),
        "r"(n & 1)
        : "memory");
#else
    asm volatile(
        "{\n"
        ".reg .pred there;\n"
        "again:\n"
        "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 there, [%0], %1;\n"
        "@!there bra again;\n"
        "}" ::"r"(shared_address(mailbox)),
        "r"(n & 1)
        : "memory");
#endif
#endif
}

DTWIN_DEVICE uint32_t bits_of(float v) { return __float_as_uint(v); }
DTWIN_DEVICE float float_of(uint32_t bits) { return __uint_as_float(bits); }
DTWIN_DEVICE float fma(float a, float b, float c) { return __fmaf_rn(a, b, c); }

// v, which is the same in all lanes of the warp. The compiler does not know that two such values
// are equal, so what follows from one is not kept for the other.
DTWIN_DEVICE int afresh(int v) {
    asm volatile("shfl.sync.idx.b32 %0, %0, 0, 31, 0xffffffff;" : "+r"(v));
    return v;
}

// A word of two numbers rounded to bfloat16, to the nearest, ties to even; NaN stays NaN.
DTWIN_DEVICE uint32_t narrow(float low, float high) {
    uint32_t pair;
    asm volatile("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}

// The two bfloat16 of a word as floats. Told apart from ordinary arithmetic, so that the compiler
// does not widen all of a thread's weights before the time loop, into twice the registers.
DTWIN_DEVICE float widen_low(uint32_t pair) {
    uint32_t bits;
    asm volatile("shl.b32 %0, %1, 16;" : "=r"(bits) : "r"(pair));
    return float_of(bits);
}
DTWIN_DEVICE float widen_high(uint32_t pair) {
    uint32_t bits;
    asm volatile("and.b32 %0, %1, 0xffff0000;" : "=r"(bits) : "r"(pair));
    return float_of(bits);
}

// Brings what is at a global address nearer.
DTWIN_DEVICE void prefetch(const float* from) {
    asm volatile("prefetch.global.L2 [%0];" ::"l"(from));
}

// 2^x and a / b within a few units of the last place of numbers around 1.
DTWIN_DEVICE float quick_exp2(float x) {
    float power;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
    return power;
}
DTWIN_DEVICE float quick_divide(float a, float b) { return __fdividef(a, b); }

}  // namespace dtwin::gpu
