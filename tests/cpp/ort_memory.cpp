// The op of csrc/ort in a runtime that has no memory and fails: a table of its own in place of ONNX
// Runtime's. Every failure is a status, and nothing leaks.
#include <onnxruntime_c_api.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <vector>

#include "dtwin.h"
#include "failing_memory.h"

extern "C" OrtStatus* RegisterCustomOps(OrtSessionOptions* options, const OrtApiBase* base);

struct OrtStatus {
    char text[256];
};
struct OrtValue {
    std::vector<int64_t> shape;
    std::vector<float> data;
};
struct OrtCustomOpDomain {};

namespace {

OrtStatus said;
OrtCustomOpDomain the_domain;
long domains = 0;  // created and not released
bool adding_fails = false, rolled_out = false;
const OrtCustomOp* op = nullptr;
std::vector<OrtValue> inputs;
OrtValue results[2];

OrtApi make_api() {
    OrtApi api{};
    api.CreateStatus = [](OrtErrorCode, const char* text) noexcept {
        std::snprintf(said.text, sizeof said.text, "%s", text);
        return &said;
    };
    api.CreateCustomOpDomain = [](const char*, OrtCustomOpDomain** domain) noexcept -> OrtStatus* {
        ++domains;
        *domain = &the_domain;
        return nullptr;
    };
    api.ReleaseCustomOpDomain = [](OrtCustomOpDomain*) noexcept { --domains; };
    api.CustomOpDomain_Add = [](OrtCustomOpDomain*, const OrtCustomOp* added) noexcept {
        op = added;
        return adding_fails ? &said : nullptr;
    };
    api.AddCustomOpDomain = [](OrtSessionOptions*, OrtCustomOpDomain*) noexcept -> OrtStatus* {
        return nullptr;
    };
    api.KernelInfoGetAttribute_string = [](const OrtKernelInfo*, const char*, char* text,
                                           size_t*) noexcept -> OrtStatus* {
        std::strcpy(text, "lstm");
        return nullptr;
    };
    // A tensor is its own description.
    api.KernelContext_GetInput = [](const OrtKernelContext*, size_t index,
                                    const OrtValue** value) noexcept -> OrtStatus* {
        *value = &inputs[index];
        return nullptr;
    };
    api.GetTensorTypeAndShape = [](const OrtValue* value,
                                   OrtTensorTypeAndShapeInfo** info) noexcept -> OrtStatus* {
        *info = reinterpret_cast<OrtTensorTypeAndShapeInfo*>(const_cast<OrtValue*>(value));
        return nullptr;
    };
    api.ReleaseTensorTypeAndShapeInfo = [](OrtTensorTypeAndShapeInfo*) noexcept {};
    api.GetDimensionsCount = [](const OrtTensorTypeAndShapeInfo* info,
                                size_t* rank) noexcept -> OrtStatus* {
        *rank = reinterpret_cast<const OrtValue*>(info)->shape.size();
        return nullptr;
    };
    api.GetDimensions = [](const OrtTensorTypeAndShapeInfo* info, int64_t* shape,
                           size_t rank) noexcept -> OrtStatus* {
        std::copy_n(reinterpret_cast<const OrtValue*>(info)->shape.begin(), rank, shape);
        return nullptr;
    };
    api.GetTensorMutableData = [](OrtValue* value, void** data) noexcept -> OrtStatus* {
        *data = value->data.data();
        return nullptr;
    };
    api.KernelContext_GetOutput = [](OrtKernelContext*, size_t index, const int64_t*, size_t,
                                     OrtValue** value) noexcept -> OrtStatus* {
        *value = &results[index];
        return nullptr;
    };
    api.KernelContext_ParallelFor = [](const OrtKernelContext*, void (*work)(void*, size_t),
                                       size_t n, size_t, void* data) noexcept -> OrtStatus* {
        rolled_out = true;
        for (size_t i = 0; i < n; ++i) work(data, i);
        return nullptr;
    };
    return api;
}

const OrtApi api = make_api();
const OrtApiBase base = {[](uint32_t) noexcept { return &api; },
                         []() noexcept { return "of this test"; }};
const OrtApiBase old_base = {
    [](uint32_t version) noexcept { return version == 1 ? &api : nullptr; },
    []() noexcept { return "a version that is too long for a string without memory of its own"; }};

// Sizes of an lstm; arrays hold `room` numbers each, whatever their shapes.
void fill_inputs(int64_t S, int64_t B, int64_t T, int64_t I, int64_t H, int64_t O, size_t room) {
    const std::vector<int64_t> shapes[] = {{S, 4 * H, I}, {S, 4 * H, H}, {S, 4 * H}, {S, 4 * H},
                                           {S, O, H},     {S, O},        {B, T, I}};
    inputs.clear();
    for (const auto& shape : shapes) inputs.push_back({shape, std::vector<float>(room, 0.1f)});
    for (OrtValue& result : results) result.data.assign(room, 0.0f);
}

int as_status(const OrtStatus* status) { return status ? DTWIN_ERROR_MEMORY : DTWIN_OK; }

// Registers until memory lasts; says how often it did not.
long register_without_memory(const OrtApiBase& runtime) {
    for (long n = 0;; ++n) {
        left = n;
        const OrtStatus* status = RegisterCustomOps(nullptr, &runtime);
        const bool failed = left < 0;
        left = -1;
        if (!failed) return n;
        if (!status || !std::strstr(status->text, "bad_alloc")) return -1;
    }
}

}  // namespace

int main() {
    // A runtime that is too old is told why, and has no domain.
    const long refusals = register_without_memory(old_base);
    if (!std::strstr(said.text, "or newer, this is a version") || domains) return 2;
    const long registrations = register_without_memory(base);
    const long kept = domains;

    void* kernel = nullptr;
    Count kernels, rollouts;
    sweep(
        [&] {
            const OrtStatus* status = op->CreateKernelV2(op, &api, nullptr, &kernel);
            if (!status) op->KernelDestroy(kernel);
            return as_status(status);
        },
        &kernels);
    if (op->CreateKernelV2(op, &api, nullptr, &kernel)) return 3;
    fill_inputs(2, 3, 4, 5, 6, 7, 1000);
    sweep([&] { return as_status(op->KernelComputeV2(kernel, nullptr)); }, &rollouts);
    std::printf(
        "%ld refusals, %ld registrations, %ld kernels, %ld rollouts without memory: "
        "%ld domains, %ld leaks, %ld without an error\n",
        refusals, registrations, kernels.failed, rollouts.failed, kept,
        kernels.leaks + rollouts.leaks, kernels.without + rollouts.without);

    // The product of the last states' sizes is 0 in 64 bits, and each array alone would fit.
    rolled_out = false;
    const int64_t huge = int64_t{1} << 31;
    fill_inputs(huge, huge, 1, 1, 2, 1, 16);
    const OrtStatus* status = op->KernelComputeV2(kernel, nullptr);
    std::printf("%s, rolled out: %d\n", status ? status->text : "", rolled_out);
    op->KernelDestroy(kernel);

    // Another runtime, which does not take the op at first.
    static const OrtApi other_api = api;
    const OrtApiBase other = {[](uint32_t) noexcept { return &other_api; },
                              []() noexcept { return ""; }};
    for (const bool fails : {true, false}) {
        adding_fails = fails;
        const bool refused = RegisterCustomOps(nullptr, &other) == &said;
        std::printf("refused: %d, domains: %ld\n", refused, domains - kept);
    }
    return 0;
}
