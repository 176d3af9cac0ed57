#include "host_arrays.h"

#include <algorithm>
#include <vector>

#include "launch.h"
#include "plan.h"
#include "queue.h"

namespace dtwin::gpu {
namespace {

constexpr double kShareOfFree = 0.9;  // of the device's free memory; others may want some too
constexpr size_t kFloat = sizeof(float);

// Frees what it holds.
class Memory {
  public:
    explicit Memory(size_t bytes) {
        check(driver().cuMemAlloc(&at_, bytes), "allocating GPU memory");
    }
    ~Memory() { driver().cuMemFree(at_); }
    Memory(const Memory&) = delete;
    Memory& operator=(const Memory&) = delete;
    char* at(size_t offset) const { return reinterpret_cast<char*>(at_) + offset; }

  private:
    CUdeviceptr at_ = 0;
};

class Stream {
  public:
    Stream() { check(driver().cuStreamCreate(&stream_, CU_STREAM_NON_BLOCKING), "a stream"); }
    ~Stream() { driver().cuStreamDestroy(stream_); }
    Stream(const Stream&) = delete;
    Stream& operator=(const Stream&) = delete;
    operator CUstream() const { return stream_; }
    void wait() const { check(driver().cuStreamSynchronize(stream_), "running on the GPU"); }

  private:
    CUstream stream_ = nullptr;
};

// The arrays of `count` subjects on the device. Walked twice: without memory it counts bytes, with
// memory it replaces the pointers of a struct, and copies.
class Arrays {
  public:
    Arrays(const Memory* memory, CUstream stream, int64_t first, int64_t count)
        : memory_(memory), stream_(stream), first_(first), count_(count) {}

    // An array that is read: a dense block of `size` for each subject, `*stride` elements apart in
    // host memory; 0 where all have one.
    void read(const void** array, int64_t* stride, int64_t size) {
        const bool shared = *stride == 0;
        copy_in(array, first_ * *stride, *stride, size, shared ? 1 : count_);
        *stride = shared ? 0 : size;
    }
    void read_dense(const void** array, int64_t size) {
        int64_t stride = size;
        read(array, &stride, size);
    }

    // Blocks of `size` for each subject and sequence.
    void read_inputs(const void** array, int64_t* subject, int64_t* sequence, int64_t size,
                     int64_t B) {
        const int64_t n_subjects = *subject ? count_ : 1, n_sequences = *sequence ? B : 1;
        char* const there = take(n_subjects * n_sequences * size * kFloat);
        for (int64_t s = 0; there && s < n_subjects; ++s) {
            const float* from =
                static_cast<const float*>(*array) + (*subject ? first_ + s : 0) * *subject;
            copy_rows(there + s * n_sequences * size * kFloat, from, *sequence, size, n_sequences);
        }
        *array = there;
        *subject = *subject ? n_sequences * size : 0;
        *sequence = *sequence ? size : 0;
    }

    // A result: a dense block of `bytes` for each subject.
    void write(void** array, int64_t bytes) {
        if (!*array) return;
        char* const there = take(count_ * bytes);
        if (there) {
            results_.push_back({static_cast<char*>(*array) + first_ * bytes, there,
                                static_cast<size_t>(count_ * bytes)});
        }
        *array = there;
    }

    char* take(size_t bytes) {
        char* const taken = memory_ ? memory_->at(used_) : nullptr;
        used_ += (bytes + 255) / 256 * 256;
        return taken;
    }

    void copy_results() const {
        for (const Result& r : results_) {
            check(driver().cuMemcpyDtoHAsync(r.host, address(r.device), r.bytes, stream_),
                  "copying from the GPU");
        }
    }

    size_t used() const { return used_; }

  private:
    struct Result {
        void* host;
        const void* device;
        size_t bytes;
    };

    void copy_in(const void** array, int64_t offset, int64_t stride, int64_t size, int64_t n) {
        if (!*array) return;
        char* const there = take(n * size * kFloat);
        if (there) copy_rows(there, static_cast<const float*>(*array) + offset, stride, size, n);
        *array = there;
    }

    // n blocks of `size` floats, `stride` floats apart in host memory.
    void copy_rows(char* to, const float* from, int64_t stride, int64_t size, int64_t n) const {
        if (stride == size || n == 1) {
            check(driver().cuMemcpyHtoDAsync(address(to), from, n * size * kFloat, stream_),
                  "copying to the GPU");
            return;
        }
        CUDA_MEMCPY2D rows{};
        rows.srcMemoryType = CU_MEMORYTYPE_HOST;
        rows.srcHost = from;
        rows.srcPitch = stride * kFloat;
        rows.dstMemoryType = CU_MEMORYTYPE_DEVICE;
        rows.dstDevice = address(to);
        rows.dstPitch = rows.WidthInBytes = size * kFloat;
        rows.Height = n;
        check(driver().cuMemcpy2DAsync(&rows, stream_), "copying to the GPU");
    }

    const Memory* memory_;
    const CUstream stream_;
    const int64_t first_, count_;
    size_t used_ = 0;
    std::vector<Result> results_;
};

int64_t gated(const dtwin_rollout_params& p) { return n_gates(p.cell) * p.n_hidden; }

int64_t output_rows(const dtwin_rollout_params& p) {
    return p.n_projected ? p.n_projected : p.n_steps;
}

void place_read(Arrays& arrays, dtwin_rollout_params& p) {
    const int64_t H = p.n_hidden, state = p.n_sequences * H, GH = gated(p);
    arrays.read(&p.w_ih, &p.w_ih_stride, GH * p.n_inputs);
    arrays.read(&p.w_hh, &p.w_hh_stride, GH * H);
    arrays.read(&p.b_ih, &p.b_ih_stride, GH);
    arrays.read(&p.b_hh, &p.b_hh_stride, GH);
    arrays.read(&p.w_out, &p.w_out_stride, p.n_outputs * H);
    arrays.read(&p.b_out, &p.b_out_stride, p.n_outputs);
    arrays.read_inputs(&p.inputs, &p.inputs_subject_stride, &p.inputs_sequence_stride,
                       p.n_steps * p.n_inputs, p.n_sequences);
    arrays.read_dense(&p.h0, state);
    arrays.read_dense(&p.c0, state);
    if (p.projection) {
        int64_t no_subjects = 0;
        arrays.read_inputs(&p.projection, &no_subjects, &p.projection_sequence_stride,
                           p.n_projected * p.n_steps, p.n_sequences);
    }
}

void place(Arrays& arrays, dtwin_rollout_params& p) {
    place_read(arrays, p);
    const int64_t state = p.n_sequences * p.n_hidden * kFloat;
    arrays.write(&p.outputs, p.n_sequences * output_rows(p) * p.n_outputs * kFloat);
    arrays.write(&p.states, p.n_steps * state);
    arrays.write(&p.h_final, state);
    arrays.write(&p.c_final, state);
    void* diverged = p.diverged;
    arrays.write(&diverged, 1);
    p.diverged = static_cast<uint8_t*>(diverged);
}

void place(Arrays& arrays, dtwin_rollout_vjp_params& g) {
    dtwin_rollout_params& p = g.rollout;
    place_read(arrays, p);
    const int64_t H = p.n_hidden, state = p.n_sequences * H, GH = gated(p);
    arrays.read_dense(&g.states, p.n_steps * state);
    arrays.read_dense(&g.d_outputs, p.n_sequences * output_rows(p) * p.n_outputs);
    arrays.read_dense(&g.d_states, p.n_steps * state);
    arrays.read_dense(&g.d_h_final, state);
    arrays.read_dense(&g.d_c_final, state);
    arrays.write(&g.d_w_ih, GH * p.n_inputs * kFloat);
    arrays.write(&g.d_w_hh, GH * H * kFloat);
    arrays.write(&g.d_b_ih, GH * kFloat);
    arrays.write(&g.d_b_hh, GH * kFloat);
    arrays.write(&g.d_w_out, p.n_outputs * H * kFloat);
    arrays.write(&g.d_b_out, p.n_outputs * kFloat);
    arrays.write(&g.d_inputs, p.n_sequences * p.n_steps * p.n_inputs * kFloat);
    arrays.write(&g.d_h0, state * kFloat);
    arrays.write(&g.d_c0, state * kFloat);
}

dtwin_rollout_params& rollout_of(dtwin_rollout_params& params) { return params; }
dtwin_rollout_params& rollout_of(dtwin_rollout_vjp_params& params) { return params.rollout; }

struct Bytes {
    size_t arrays, workspace;
};

template <class Params>
Bytes count_bytes(Device& device, Params params, int64_t n_subjects) {
    rollout_of(params).n_subjects = n_subjects;
    const Device::Turn turn(device);
    const size_t workspace = workspace_bytes(device, params);
    Arrays arrays(nullptr, nullptr, 0, n_subjects);
    place(arrays, params);
    return {arrays.used(), workspace};
}

template <class Params>
void run(Device& device, const Params& params) {
    Params whole = params;
    const int64_t S = rollout_of(whole).n_subjects;
    size_t free = 0, total = 0;
    check(driver().cuMemGetInfo(&free, &total), "asking for the GPU's free memory");
    int64_t at_once = S;
    Bytes bytes = count_bytes(device, params, at_once);
    while (at_once > 1 && bytes.arrays + bytes.workspace > kShareOfFree * free) {
        at_once = (at_once + 1) / 2;
        bytes = count_bytes(device, params, at_once);
    }
    const Memory memory(bytes.arrays + bytes.workspace);
    const Stream stream;
    for (int64_t first = 0; first < S; first += at_once) {
        const int64_t count = std::min(at_once, S - first);
        Params some = params;
        Arrays arrays(&memory, stream, first, count);
        place(arrays, some);
        rollout_of(some).n_subjects = count;
        {
            const Device::Turn turn(device);
            roll_out(device, some, stream, memory.at(bytes.arrays), bytes.workspace);
        }
        arrays.copy_results();
        stream.wait();
    }
}

}  // namespace

void roll_out_host(Device& device, const dtwin_rollout_params& params) { run(device, params); }

void roll_out_host(Device& device, const dtwin_rollout_vjp_params& params) { run(device, params); }

}  // namespace dtwin::gpu
