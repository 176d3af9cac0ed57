// The engine inside ONNX Runtime: where this library is registered, a session runs it in place of
// the body of the model-local function dtwin::Rollout (export/rollout.py), on the session's own
// threads. Nothing of the runtime is linked: all of it is reached through the table it hands over.

#include <onnxruntime_c_api.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <exception>
#include <initializer_list>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "dtwin.h"

namespace {

// The lowest with KernelContext_ParallelFor, and the version whose layout OrtCustomOp is filled in
// as: a runtime refuses a library that asks for more than it has, and never for less.
constexpr uint32_t kApiVersion = DTWIN_ORT_API;

constexpr const char* kDomain = "dtwin";
enum Input { kWIh, kWHh, kBIh, kBHh, kWOut, kBOut, kInputs, kInputCount };
enum Output { kOutputs, kDiverged, kOutputCount };
constexpr const char* kInputNames[] = {"w_ih", "w_hh", "b_ih", "b_hh", "w_out", "b_out", "inputs"};
constexpr size_t kRanks[] = {3, 3, 2, 2, 3, 2, 3};

constexpr struct {
    const char* name;
    int32_t cell;
    int64_t n_gates, n_states;
} kCells[] = {{"rnn", DTWIN_RNN, 1, 1}, {"gru", DTWIN_GRU, 3, 1}, {"lstm", DTWIN_LSTM, 4, 2}};

struct Kernel {
    const OrtApi* api;
    int32_t cell;
    int64_t n_gates, n_states;
};

// Ends a function whose call of the runtime failed.
#define DTWIN_TRY(call) \
    if (OrtStatus* failed = (call)) return failed

OrtStatus* refuse(const OrtApi* api, const std::string& what) {
    return api->CreateStatus(ORT_INVALID_ARGUMENT, ("dtwin::Rollout: " + what).c_str());
}

// Whatever the runtime calls: no exception may leave through its C interface, which throws none.
template <class Work>
OrtStatus* guarded(const OrtApi* api, Work work) noexcept {
    try {
        return work();
    } catch (const std::exception& error) {
        return api->CreateStatus(ORT_RUNTIME_EXCEPTION, error.what());
    }
}

struct Tensor {
    const float* data;
    std::array<int64_t, 3> shape;  // ones after the last axis
};

OrtStatus* read_input(const OrtApi* api, OrtKernelContext* context, size_t index, Tensor* tensor) {
    const OrtValue* value = nullptr;
    DTWIN_TRY(api->KernelContext_GetInput(context, index, &value));
    OrtTensorTypeAndShapeInfo* info = nullptr;
    DTWIN_TRY(api->GetTensorTypeAndShape(value, &info));
    size_t rank = 0;
    OrtStatus* failed = api->GetDimensionsCount(info, &rank);
    tensor->shape.fill(1);
    if (!failed && rank == kRanks[index])
        failed = api->GetDimensions(info, tensor->shape.data(), rank);
    api->ReleaseTensorTypeAndShapeInfo(info);
    if (failed) return failed;
    if (rank != kRanks[index])
        return refuse(api, std::string(kInputNames[index]) + " has " + std::to_string(rank) +
                               " axes, not " + std::to_string(kRanks[index]));
    void* data = nullptr;
    DTWIN_TRY(api->GetTensorMutableData(const_cast<OrtValue*>(value), &data));
    tensor->data = static_cast<const float*>(data);
    return nullptr;
}

template <class T>
OrtStatus* make_output(const OrtApi* api, OrtKernelContext* context, size_t index,
                       std::initializer_list<int64_t> shape, T** data) {
    OrtValue* value = nullptr;
    DTWIN_TRY(api->KernelContext_GetOutput(context, index, shape.begin(), shape.size(), &value));
    return api->GetTensorMutableData(value, reinterpret_cast<void**>(data));
}

// The people of a call, each of them rolled out on one thread.
struct Job {
    dtwin_rollout_params params;  // of the first person
    int64_t outputs_stride, state_stride;
    std::atomic<int> status{DTWIN_OK};
};

const float* after(const void* first, int64_t stride, size_t i) {
    return static_cast<const float*>(first) + stride * static_cast<int64_t>(i);
}

void roll_out_person(void* data, size_t i) {
    Job& job = *static_cast<Job*>(data);
    dtwin_rollout_params p = job.params;
    p.w_ih = after(p.w_ih, p.w_ih_stride, i);
    p.w_hh = after(p.w_hh, p.w_hh_stride, i);
    p.b_ih = after(p.b_ih, p.b_ih_stride, i);
    p.b_hh = after(p.b_hh, p.b_hh_stride, i);
    p.w_out = after(p.w_out, p.w_out_stride, i);
    p.b_out = after(p.b_out, p.b_out_stride, i);
    p.outputs = const_cast<float*>(after(p.outputs, job.outputs_stride, i));
    p.h_final = const_cast<float*>(after(p.h_final, job.state_stride, i));
    if (p.c_final) p.c_final = const_cast<float*>(after(p.c_final, job.state_stride, i));
    p.diverged += i;
    if (const int status = dtwin_rollout(&p)) job.status = status;
}

OrtStatus* compute(const Kernel& kernel, OrtKernelContext* context) {
    const OrtApi* api = kernel.api;
    std::array<Tensor, kInputCount> in;
    for (size_t i = 0; i < kInputCount; ++i) DTWIN_TRY(read_input(api, context, i, &in[i]));
    const auto [S, GH, I] = in[kWIh].shape;
    const int64_t H = GH / kernel.n_gates, O = in[kWOut].shape[1];
    const int64_t B = in[kInputs].shape[0], T = in[kInputs].shape[1];
    const std::array<int64_t, 3> wanted[] = {{S, kernel.n_gates * H, I},
                                             {S, GH, H},
                                             {S, GH, 1},
                                             {S, GH, 1},
                                             {S, O, H},
                                             {S, O, 1},
                                             {B, T, I}};
    for (size_t i = 0; i < kInputCount; ++i)
        if (in[i].shape != wanted[i])
            return refuse(api, std::string("the shape of ") + kInputNames[i] +
                                   " does not fit those of the other inputs");
    if (std::min({B, T, I, H, O}) < 1) return refuse(api, dtwin_strerror(DTWIN_ERROR_SIZE));

    Job job;
    dtwin_rollout_params& p = job.params;
    p = {};
    float* outputs = nullptr;
    DTWIN_TRY(make_output(api, context, kOutputs, {S, B, T, O}, &outputs));
    DTWIN_TRY(make_output(api, context, kDiverged, {S}, &p.diverged));
    if (S == 0) return nullptr;  // and the other sizes may be anything
    // Nobody asked for the last states, but the engine says them. Every other product of sizes is
    // at most the number of elements of an array that is there.
    int64_t n_last = 0;
    if (__builtin_mul_overflow(S * B, kernel.n_states * H, &n_last))
        return refuse(api, dtwin_strerror(DTWIN_ERROR_OVERFLOW));
    std::vector<float> last(static_cast<size_t>(n_last));

    p.struct_size = sizeof p;
    p.cell = kernel.cell;
    p.dtype = DTWIN_FLOAT32;
    p.n_threads = 1;
    p.n_subjects = 1;
    p.n_sequences = B;
    p.n_steps = T;
    p.n_inputs = I;
    p.n_hidden = H;
    p.n_outputs = O;
    p.w_ih = in[kWIh].data;
    p.w_hh = in[kWHh].data;
    p.b_ih = in[kBIh].data;
    p.b_hh = in[kBHh].data;
    p.w_out = in[kWOut].data;
    p.b_out = in[kBOut].data;
    p.w_ih_stride = GH * I;
    p.w_hh_stride = GH * H;
    p.b_ih_stride = p.b_hh_stride = GH;
    p.w_out_stride = O * H;
    p.b_out_stride = O;
    p.inputs = in[kInputs].data;
    p.inputs_sequence_stride = T * I;
    job.outputs_stride = B * T * O;
    job.state_stride = B * H;
    p.outputs = outputs;
    p.h_final = last.data();
    if (kernel.n_states == 2) p.c_final = last.data() + S * B * H;
    DTWIN_TRY(
        api->KernelContext_ParallelFor(context, roll_out_person, static_cast<size_t>(S), 0, &job));
    return job.status == DTWIN_OK ? nullptr : refuse(api, dtwin_strerror(job.status));
}

OrtStatus* create_kernel(const OrtApi* api, const OrtKernelInfo* info, void** kernel) {
    char cell[8] = "";
    size_t size = sizeof cell;
    DTWIN_TRY(api->KernelInfoGetAttribute_string(info, "cell", cell, &size));
    for (const auto& known : kCells)
        if (!std::strcmp(cell, known.name)) {
            *kernel = new Kernel{api, known.cell, known.n_gates, known.n_states};
            return nullptr;
        }
    return refuse(api, "there is no such cell");
}

OrtCustomOp rollout_op() {
    OrtCustomOp op = {};
    op.version = kApiVersion;
    op.GetName = [](const OrtCustomOp*) { return "Rollout"; };
    op.GetExecutionProviderType = [](const OrtCustomOp*) -> const char* { return nullptr; };
    op.GetInputTypeCount = [](const OrtCustomOp*) -> size_t { return kInputCount; };
    op.GetInputType = [](const OrtCustomOp*, size_t) {
        return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
    };
    op.GetInputCharacteristic = [](const OrtCustomOp*, size_t) { return INPUT_OUTPUT_REQUIRED; };
    op.GetInputMemoryType = [](const OrtCustomOp*, size_t) { return OrtMemTypeDefault; };
    op.GetOutputTypeCount = [](const OrtCustomOp*) -> size_t { return kOutputCount; };
    op.GetOutputType = [](const OrtCustomOp*, size_t index) {
        return index == kDiverged ? ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL
                                  : ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
    };
    op.GetOutputCharacteristic = [](const OrtCustomOp*, size_t) { return INPUT_OUTPUT_REQUIRED; };
    op.GetStartVersion = [](const OrtCustomOp*) { return 1; };
    op.GetEndVersion = [](const OrtCustomOp*) { return 1; };
    op.CreateKernelV2 = [](const OrtCustomOp*, const OrtApi* api, const OrtKernelInfo* info,
                           void** kernel) {
        return guarded(api, [&] { return create_kernel(api, info, kernel); });
    };
    op.KernelComputeV2 = [](void* kernel, OrtKernelContext* context) {
        const Kernel& known = *static_cast<Kernel*>(kernel);
        return guarded(known.api, [&] { return compute(known, context); });
    };
    op.KernelDestroy = [](void* kernel) { delete static_cast<Kernel*>(kernel); };
    return op;
}

OrtStatus* add_domain(const OrtApi* api, OrtSessionOptions* options) {
    static const OrtCustomOp op = rollout_op();
    // A domain must outlive all sessions, so there is one for each runtime, never released.
    static std::mutex mutex;
    static auto& domains = *new std::map<const OrtApi*, OrtCustomOpDomain*>;
    const std::lock_guard<std::mutex> lock(mutex);
    OrtCustomOpDomain*& domain = domains[api];
    if (!domain) {
        OrtCustomOpDomain* made = nullptr;
        DTWIN_TRY(api->CreateCustomOpDomain(kDomain, &made));
        if (OrtStatus* failed = api->CustomOpDomain_Add(made, &op)) {
            api->ReleaseCustomOpDomain(made);
            return failed;
        }
        domain = made;
    }
    return api->AddCustomOpDomain(options, domain);
}

OrtStatus* refuse_runtime(const OrtApiBase* base) {
    const std::string what = "libdtwin_ort needs ONNX Runtime 1." + std::to_string(kApiVersion) +
                             " or newer, this is " + base->GetVersionString();
    return base->GetApi(1)->CreateStatus(ORT_FAIL, what.c_str());
}

}  // namespace

// What a session calls that this library is registered with.
extern "C" DTWIN_API OrtStatus* RegisterCustomOps(OrtSessionOptions* options,
                                                  const OrtApiBase* base) {
    if (const OrtApi* api = base->GetApi(kApiVersion))
        return guarded(api, [&] { return add_domain(api, options); });
    return guarded(base->GetApi(1), [&] { return refuse_runtime(base); });
}
