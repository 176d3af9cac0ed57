// The CUDA driver's functions that the engine calls, on emulated devices: everything runs at once,
// in the calling thread. What a GPU would refuse is refused; what would break a program there, or
// go unseen, ends the process with a line on stderr.
//
// The environment says what is emulated, and is read at each call:
//   DTWIN_EMULATED_DEVICES     1; with 0 cuInit finds none; 8 at most
//   DTWIN_EMULATED_CAPABILITY  9.0
//   DTWIN_EMULATED_SMS         132 multiprocessors
//   DTWIN_EMULATED_MEMORY      4294967296 bytes for each device
//   DTWIN_EMULATED_DRIVER      13000
//   DTWIN_EMULATED_ORDER       forward; reverse, random:SEED (order.h)
#include <cuda.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "call.h"
#include "cluster.h"
#include "fail.h"
#include "memory.h"

using namespace dtwin::emulator;

// The handles that cuda.h leaves open.
struct CUctx_st {
    int device = 0, n_retained = 0;
};
struct CUfunc_st {
    const dtwin::gpu::EmulatedKernel* kernel;
    size_t most_shared;  // dynamic, per block
    bool non_portable_cluster;
};
struct CUmod_st {
    std::map<std::string, CUfunc_st> functions;
};
struct CUstream_st {};

namespace {

constexpr int kMostDevices = 8;
constexpr size_t kSharedWithoutAttribute = 48 << 10;
constexpr int kPortableCluster = 8, kMostCluster = 16;

struct State {
    std::mutex mutex;
    std::map<std::string, long> counts;
    bool initialised = false;
    CUctx_st contexts[kMostDevices];
    std::set<CUmodule> modules;
    std::set<CUstream> streams;
};
State& state = *new State;  // never destroyed: a program's last call may come after its end of main
thread_local std::vector<CUcontext> current;

long knob(const char* name, long otherwise) {
    const char* text = std::getenv(name);
    if (!text) return otherwise;
    char* end;
    const long value = std::strtol(text, &end, 10);
    if (end == text || *end || value < 0) fail("%s is \"%s\", not a whole number", name, text);
    return value;
}

int device_count() {
    return static_cast<int>(std::min<long>(knob("DTWIN_EMULATED_DEVICES", 1), kMostDevices));
}
size_t memory_bytes() { return knob("DTWIN_EMULATED_MEMORY", 4L << 30); }

struct Capability {
    int major, minor;
};

Capability capability() {
    const char* text = std::getenv("DTWIN_EMULATED_CAPABILITY");
    Capability got = {9, 0};
    char more;
    if (text && std::sscanf(text, "%d.%d%c", &got.major, &got.minor, &more) != 2)
        fail("DTWIN_EMULATED_CAPABILITY is \"%s\", not of the form 9.0", text);
    return got;
}

// A block's most shared memory, by capability, as the CUDA programming guide's table has it.
size_t shared_limit() {
    const auto [major, minor] = capability();
    if (major < 8) return minor == 5 ? 64 << 10 : 96 << 10;
    if (major == 8) return minor == 0 || minor == 7 ? 163 << 10 : 99 << 10;
    return major < 12 ? 227 << 10 : 99 << 10;
}
// The system keeps 1 KiB for each block.
size_t kept_shared() { return capability().major < 8 ? 0 : 1 << 10; }

bool has_clusters() { return capability().major >= 9; }

CUresult ready() {
    if (!state.initialised) return CUDA_ERROR_NOT_INITIALIZED;
    if (current.empty()) return CUDA_ERROR_INVALID_CONTEXT;
    return current.back()->n_retained > 0 ? CUDA_SUCCESS : CUDA_ERROR_CONTEXT_IS_DESTROYED;
}

// ready(), for a call on a stream.
CUresult ready(CUstream stream) {
    const bool known = !stream || stream == CU_STREAM_LEGACY || stream == CU_STREAM_PER_THREAD ||
                       state.streams.count(stream);
    const CUresult result = ready();
    return result != CUDA_SUCCESS || known ? result : CUDA_ERROR_INVALID_HANDLE;
}

bool known_device(CUdevice device) { return device >= 0 && device < device_count(); }

// What a launch asks for, or why a GPU would refuse it.
CUresult plan(const CUlaunchConfig& config, const CUfunc_st& function, Grid* grid) {
    unsigned cluster = 1;
    for (unsigned i = 0; i < config.numAttrs; ++i) {
        const CUlaunchAttribute& attribute = config.attrs[i];
        if (attribute.id == CU_LAUNCH_ATTRIBUTE_IGNORE) continue;
        if (attribute.id != CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION)
            fail("a launch attribute (%d) that is not emulated", static_cast<int>(attribute.id));
        const auto& wanted = attribute.value.clusterDim;
        if (wanted.y != 1 || wanted.z != 1) fail("a cluster that is not along x is not emulated");
        if (!has_clusters() || wanted.x == 0 || wanted.x > kMostCluster ||
            (wanted.x > kPortableCluster && !function.non_portable_cluster))
            return CUDA_ERROR_INVALID_CLUSTER_SIZE;
        cluster = wanted.x;
    }
    const unsigned long threads =
        static_cast<unsigned long>(config.blockDimX) * config.blockDimY * config.blockDimZ;
    const unsigned most = static_cast<unsigned>(function.kernel->most_threads);
    const size_t most_shared = std::max(kSharedWithoutAttribute, function.most_shared);
    if (threads == 0 || threads > most || config.gridDimX == 0 || config.gridDimY == 0 ||
        config.gridDimZ == 0 || config.gridDimX > 0x7fffffff || config.gridDimY > 65535 ||
        config.gridDimZ > 65535 || config.gridDimX % cluster != 0 ||
        config.sharedMemBytes > most_shared)
        return CUDA_ERROR_INVALID_VALUE;
    // A GPU fills the last warp; the primitives need whole ones, and have one dimension of threads.
    if (threads % 32 != 0) return CUDA_ERROR_INVALID_VALUE;
    if (config.blockDimY != 1 || config.blockDimZ != 1 || config.gridDimZ != 1)
        fail("blocks of more than one dimension, or grids of three, are not emulated");
    *grid = {static_cast<int>(config.gridDimX),
             static_cast<int>(config.gridDimY),
             static_cast<int>(threads),
             static_cast<int>(cluster),
             config.sharedMemBytes,
             has_clusters()};
    return CUDA_SUCCESS;
}

void copy_rows(char* to, size_t to_pitch, const char* from, size_t from_pitch, size_t width,
               size_t height) {
    const Access access(current_device());
    for (size_t row = 0; row < height; ++row)
        std::memmove(to + row * to_pitch, from + row * from_pitch, width);
}

char* pointer(CUdeviceptr data) { return reinterpret_cast<char*>(static_cast<uintptr_t>(data)); }

// One side of a copy of rows: where it starts, once its kind of memory is known to hold it.
CUresult rows(CUmemorytype type, const void* host, CUdeviceptr device, size_t x, size_t y,
              size_t pitch, size_t width, size_t height, char** start) {
    constexpr size_t kMostPitch = 0x7fffffff;
    if (x + width > pitch || pitch > kMostPitch) return CUDA_ERROR_INVALID_VALUE;
    const size_t bytes = (height - 1) * pitch + width;
    if (type == CU_MEMORYTYPE_HOST) {
        *start = static_cast<char*>(const_cast<void*>(host)) + y * pitch + x;
        return touches_a_device(*start, bytes) ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
    }
    if (type != CU_MEMORYTYPE_DEVICE) fail("a copy of arrays or unified memory is not emulated");
    *start = pointer(device) + y * pitch + x;
    return on_device(current_device(), device + y * pitch + x, bytes) ? CUDA_SUCCESS
                                                                      : CUDA_ERROR_INVALID_VALUE;
}

CUresult copy(char* to, const char* from, size_t bytes, CUstream stream, bool to_device,
              bool from_device) {
    const CUresult result = ready(stream);
    if (result != CUDA_SUCCESS || bytes == 0) return result;
    for (const auto& [data, device] : {std::pair<const char*, bool>{to, to_device},
                                       std::pair<const char*, bool>{from, from_device}}) {
        const bool right =
            device ? on_device(current_device(), reinterpret_cast<uintptr_t>(data), bytes)
                   : data && !touches_a_device(data, bytes);
        if (!right) return CUDA_ERROR_INVALID_VALUE;
    }
    copy_rows(to, bytes, from, bytes, bytes, 1);
    return CUDA_SUCCESS;
}

// Rows of `width` words of `Word`, a pitch apart in bytes.
template <class Word>
CUresult set(CUdeviceptr data, size_t pitch, Word word, size_t width, size_t height,
             CUstream stream) {
    const CUresult result = ready(stream);
    if (result != CUDA_SUCCESS || width == 0 || height == 0) return result;
    if (data % sizeof word || (height > 1 && (pitch % sizeof word || pitch < width * sizeof word)))
        return CUDA_ERROR_INVALID_VALUE;
    if (!on_device(current_device(), data, (height - 1) * pitch + width * sizeof word))
        return CUDA_ERROR_INVALID_VALUE;
    const Access access(current_device());
    for (size_t row = 0; row < height; ++row)
        std::fill_n(reinterpret_cast<Word*>(pointer(data + row * pitch)), width, word);
    return CUDA_SUCCESS;
}

struct Error {
    CUresult code;
    const char *name, *text;
};
#define DTWIN_ERROR(name, text) {name, #name, text}
constexpr Error kErrors[] = {
    DTWIN_ERROR(CUDA_SUCCESS, "no error"),
    DTWIN_ERROR(CUDA_ERROR_INVALID_VALUE, "invalid argument"),
    DTWIN_ERROR(CUDA_ERROR_OUT_OF_MEMORY, "out of memory"),
    DTWIN_ERROR(CUDA_ERROR_NOT_INITIALIZED, "initialization error"),
    DTWIN_ERROR(CUDA_ERROR_NO_DEVICE, "no CUDA-capable device is detected"),
    DTWIN_ERROR(CUDA_ERROR_INVALID_DEVICE, "invalid device ordinal"),
    DTWIN_ERROR(CUDA_ERROR_INVALID_CONTEXT, "invalid device context"),
    DTWIN_ERROR(CUDA_ERROR_INVALID_HANDLE, "invalid resource handle"),
    DTWIN_ERROR(CUDA_ERROR_NOT_FOUND, "named symbol not found"),
    DTWIN_ERROR(CUDA_ERROR_CONTEXT_IS_DESTROYED, "context is destroyed"),
    DTWIN_ERROR(CUDA_ERROR_INVALID_CLUSTER_SIZE, "cluster misconfiguration"),
};
#undef DTWIN_ERROR

CUresult describe(CUresult code, const char* Error::* field, const char** text) {
    for (const Error& error : kErrors) {
        if (error.code != code) continue;
        *text = error.*field;
        return CUDA_SUCCESS;
    }
    *text = nullptr;
    return CUDA_ERROR_INVALID_VALUE;
}

}  // namespace

namespace dtwin::emulator {

Call::Call(const char* function) : alone_(state.mutex) { ++state.counts[function]; }

int current_device() { return ::ready() == CUDA_SUCCESS ? current.back()->device : -1; }

}  // namespace dtwin::emulator

// How often a function of the driver or of cuBLAS was called, by the name that the library exports.
DTWIN_EMULATED long dtwin_emulator_count(const char* function_name) {
    const std::lock_guard<std::mutex> alone(state.mutex);
    const auto found = state.counts.find(function_name);
    return found == state.counts.end() ? 0 : found->second;
}

DTWIN_EMULATED CUresult CUDAAPI cuInit(unsigned flags) {
    const Call call(__func__);
    if (flags != 0) return CUDA_ERROR_INVALID_VALUE;
    if (device_count() == 0) return CUDA_ERROR_NO_DEVICE;
    for (int device = 0; device < kMostDevices; ++device) state.contexts[device].device = device;
    state.initialised = true;
    return CUDA_SUCCESS;
}

DTWIN_EMULATED CUresult CUDAAPI cuDriverGetVersion(int* version) {
    const Call call(__func__);
    *version = static_cast<int>(knob("DTWIN_EMULATED_DRIVER", 13000));
    return CUDA_SUCCESS;
}

DTWIN_EMULATED CUresult CUDAAPI cuDeviceGetCount(int* count) {
    const Call call(__func__);
    if (!state.initialised) return CUDA_ERROR_NOT_INITIALIZED;
    *count = device_count();
    return CUDA_SUCCESS;
}

DTWIN_EMULATED CUresult CUDAAPI cuDeviceGet(CUdevice* device, int ordinal) {
    const Call call(__func__);
    if (!state.initialised) return CUDA_ERROR_NOT_INITIALIZED;
    if (!known_device(ordinal)) return CUDA_ERROR_INVALID_DEVICE;
    *device = ordinal;
    return CUDA_SUCCESS;
}

DTWIN_EMULATED CUresult CUDAAPI cuDeviceGetName(char* name, int length, CUdevice device) {
    const Call call(__func__);
    if (!state.initialised) return CUDA_ERROR_NOT_INITIALIZED;
    if (!known_device(device)) return CUDA_ERROR_INVALID_DEVICE;
    if (!name || length <= 0) return CUDA_ERROR_INVALID_VALUE;
    std::snprintf(name, length, "emulated GPU");
    return CUDA_SUCCESS;
}

DTWIN_EMULATED CUresult CUDAAPI cuDeviceGetAttribute(int* value, CUdevice_attribute attribute,
                                                     CUdevice device) {
    const Call call(__func__);
    if (!state.initialised) return CUDA_ERROR_NOT_INITIALIZED;
    if (!known_device(device)) return CUDA_ERROR_INVALID_DEVICE;
    switch (attribute) {
        case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR:
            *value = capability().major;
            return CUDA_SUCCESS;
        case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR:
            *value = capability().minor;
            return CUDA_SUCCESS;
        case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT:
            *value = static_cast<int>(knob("DTWIN_EMULATED_SMS", 132));
            return CUDA_SUCCESS;
        case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN:
            *value = static_cast<int>(shared_limit());
            return CUDA_SUCCESS;
        case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR:
            *value = static_cast<int>(shared_limit() + kept_shared());
            return CUDA_SUCCESS;
        default:
            return CUDA_ERROR_INVALID_VALUE;
    }
}

DTWIN_EMULATED CUresult CUDAAPI cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice device) {
    const Call call(__func__);
    if (!state.initialised) return CUDA_ERROR_NOT_INITIALIZED;
    if (!known_device(device)) return CUDA_ERROR_INVALID_DEVICE;
    *context = &state.contexts[device];
    ++(*context)->n_retained;
    return CUDA_SUCCESS;
}

DTWIN_EMULATED CUresult CUDAAPI cuDevicePrimaryCtxRelease_v2(CUdevice device) {
    const Call call(__func__);
    if (!state.initialised) return CUDA_ERROR_NOT_INITIALIZED;
    if (!known_device(device)) return CUDA_ERROR_INVALID_DEVICE;
    if (state.contexts[device].n_retained == 0) return CUDA_ERROR_INVALID_CONTEXT;
    --state.contexts[device].n_retained;
    return CUDA_SUCCESS;
}

DTWIN_EMULATED CUresult CUDAAPI cuCtxPushCurrent_v2(CUcontext context) {
    const Call call(__func__);
    if (!state.initialised) return CUDA_ERROR_NOT_INITIALIZED;
    if (!context) return CUDA_ERROR_INVALID_CONTEXT;
    current.push_back(context);
    return CUDA_SUCCESS;
}

DTWIN_EMULATED CUresult CUDAAPI cuCtxPopCurrent_v2(CUcontext* context) {
    const Call call(__func__);
    if (!state.initialised) return CUDA_ERROR_NOT_INITIALIZED;
    if (current.empty()) return CUDA_ERROR_INVALID_CONTEXT;
    if (context) *context = current.back();
    current.pop_back();
    return CUDA_SUCCESS;
}

DTWIN_EMULATED CUresult CUDAAPI cuCtxGetCurrent(CUcontext* context) {
    const Call call(__func__);
    if (!state.initialised) return CUDA_ERROR_NOT_INITIALIZED;
    *context = current.empty() ? nullptr : current.back();
    return CUDA_SUCCESS;
}

DTWIN_EMULATED CUresult CUDAAPI cuModuleLoadData(CUmodule* module, const void* image) {
    const Call call(__func__);
    const CUresult result = ready();
    if (result != CUDA_SUCCESS) return result;
    if (!module || !image) return CUDA_ERROR_INVALID_VALUE;
    *module = *state.modules.insert(new CUmod_st).first;
    return CUDA_SUCCESS;
}

DTWIN_EMULATED CUresult CUDAAPI cuModuleGetFunction(CUfunction* function, CUmodule module,
                                                    const char* name) {
    const Call call(__func__);
    const CUresult result = ready();
    if (result != CUDA_SUCCESS) return result;
    if (!state.modules.count(module)) return CUDA_ERROR_INVALID_HANDLE;
    const dtwin::gpu::EmulatedKernel* kernel = find_kernel(name);
    if (!kernel) return CUDA_ERROR_NOT_FOUND;
    *function = &module->functions.try_emplace(name, CUfunc_st{kernel, 0, false}).first->second;
    return CUDA_SUCCESS;
}

DTWIN_EMULATED CUresult CUDAAPI cuFuncSetAttribute(CUfunction function,
                                                   CUfunction_attribute attribute, int value) {
    const Call call(__func__);
    const CUresult result = ready();
    if (result != CUDA_SUCCESS) return result;
    if (!function) return CUDA_ERROR_INVALID_HANDLE;
    switch (attribute) {
        case CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES:
            if (value < 0 || static_cast<size_t>(value) > shared_limit())
                return CUDA_ERROR_INVALID_VALUE;
            function->most_shared = value;
            return CUDA_SUCCESS;
        case CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED:
            function->non_portable_cluster = value != 0;
            return CUDA_SUCCESS;
        case CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT:  // a wish
            return value >= -1 && value <= 100 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
        default:
            return CUDA_ERROR_INVALID_VALUE;
    }
}

DTWIN_EMULATED CUresult CUDAAPI cuLaunchKernelEx(const CUlaunchConfig* config, CUfunction function,
                                                 void** params, void** extra) {
    const Call call(__func__);
    if (!config || !function) return CUDA_ERROR_INVALID_HANDLE;
    CUresult result = ready(config->hStream);
    if (result != CUDA_SUCCESS) return result;
    if (!params || !params[0] || extra) return CUDA_ERROR_INVALID_VALUE;
    Grid grid;
    result = plan(*config, *function, &grid);
    if (result != CUDA_SUCCESS) return result;
    // The kernel's own copy, of the size it believes in.
    const std::vector<char> bytes(
        static_cast<const char*>(params[0]),
        static_cast<const char*>(params[0]) + function->kernel->params_bytes);
    kernel_name = function->kernel->name;
    {
        const Access access(current_device());
        run_grid(*function->kernel, bytes.data(), grid);
    }
    kernel_name = nullptr;
    return CUDA_SUCCESS;
}

// By shared memory and threads alone: a GPU's groups of multiprocessors may hold fewer clusters.
DTWIN_EMULATED CUresult CUDAAPI cuOccupancyMaxActiveClusters(int* clusters, CUfunction function,
                                                             const CUlaunchConfig* config) {
    const Call call(__func__);
    CUresult result = ready();
    if (result != CUDA_SUCCESS) return result;
    if (!clusters || !function || !config) return CUDA_ERROR_INVALID_VALUE;
    Grid grid;
    result = plan(*config, *function, &grid);
    if (result != CUDA_SUCCESS) return result;
    constexpr size_t kMostThreads = 2048, kMostBlocks = 32;
    const size_t kept = std::max<size_t>(grid.shared_bytes + kept_shared(), 1);
    const size_t blocks = std::min(
        {kMostThreads / grid.threads, kMostBlocks, (shared_limit() + kept_shared()) / kept});
    *clusters = static_cast<int>(blocks * knob("DTWIN_EMULATED_SMS", 132) / grid.cluster);
    return CUDA_SUCCESS;
}

DTWIN_EMULATED CUresult CUDAAPI cuMemAlloc_v2(CUdeviceptr* data, size_t bytes) {
    const Call call(__func__);
    const CUresult result = ready();
    if (result != CUDA_SUCCESS) return result;
    if (!data || bytes == 0) return CUDA_ERROR_INVALID_VALUE;
    const size_t used = bytes_allocated(current_device());
    if (used > memory_bytes() || bytes > memory_bytes() - used) return CUDA_ERROR_OUT_OF_MEMORY;
    *data = allocate(current_device(), bytes);
    return *data ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

DTWIN_EMULATED CUresult CUDAAPI cuMemFree_v2(CUdeviceptr data) {
    const Call call(__func__);
    const CUresult result = ready();
    if (result != CUDA_SUCCESS || data == 0) return result;
    return release(data) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

DTWIN_EMULATED CUresult CUDAAPI cuMemGetInfo_v2(size_t* free, size_t* total) {
    const Call call(__func__);
    const CUresult result = ready();
    if (result != CUDA_SUCCESS) return result;
    *total = memory_bytes();
    *free = *total - std::min(*total, bytes_allocated(current_device()));
    return CUDA_SUCCESS;
}

DTWIN_EMULATED CUresult CUDAAPI cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void* from, size_t bytes,
                                                     CUstream stream) {
    const Call call(__func__);
    return copy(pointer(to), static_cast<const char*>(from), bytes, stream, true, false);
}

DTWIN_EMULATED CUresult CUDAAPI cuMemcpyDtoHAsync_v2(void* to, CUdeviceptr from, size_t bytes,
                                                     CUstream stream) {
    const Call call(__func__);
    return copy(static_cast<char*>(to), pointer(from), bytes, stream, false, true);
}

DTWIN_EMULATED CUresult CUDAAPI cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes,
                                                     CUstream stream) {
    const Call call(__func__);
    return copy(pointer(to), pointer(from), bytes, stream, true, true);
}

DTWIN_EMULATED CUresult CUDAAPI cuMemcpy2DAsync_v2(const CUDA_MEMCPY2D* copy, CUstream stream) {
    const Call call(__func__);
    CUresult result = ready(stream);
    if (result != CUDA_SUCCESS || copy->WidthInBytes == 0 || copy->Height == 0) return result;
    char *from, *to;
    result = rows(copy->srcMemoryType, copy->srcHost, copy->srcDevice, copy->srcXInBytes,
                  copy->srcY, copy->srcPitch, copy->WidthInBytes, copy->Height, &from);
    if (result != CUDA_SUCCESS) return result;
    result = rows(copy->dstMemoryType, copy->dstHost, copy->dstDevice, copy->dstXInBytes,
                  copy->dstY, copy->dstPitch, copy->WidthInBytes, copy->Height, &to);
    if (result != CUDA_SUCCESS) return result;
    copy_rows(to, copy->dstPitch, from, copy->srcPitch, copy->WidthInBytes, copy->Height);
    return CUDA_SUCCESS;
}

DTWIN_EMULATED CUresult CUDAAPI cuMemsetD8Async(CUdeviceptr data, unsigned char byte, size_t n,
                                                CUstream stream) {
    const Call call(__func__);
    return set(data, n, byte, n, 1, stream);
}

DTWIN_EMULATED CUresult CUDAAPI cuMemsetD32Async(CUdeviceptr data, unsigned word, size_t n,
                                                 CUstream stream) {
    const Call call(__func__);
    return set(data, 4 * n, word, n, 1, stream);
}

DTWIN_EMULATED CUresult CUDAAPI cuMemsetD2D32Async(CUdeviceptr data, size_t pitch, unsigned word,
                                                   size_t width, size_t height, CUstream stream) {
    const Call call(__func__);
    return set(data, pitch, word, width, height, stream);
}

DTWIN_EMULATED CUresult CUDAAPI cuStreamCreate(CUstream* stream, unsigned flags) {
    const Call call(__func__);
    const CUresult result = ready();
    if (result != CUDA_SUCCESS) return result;
    if (!stream || flags > CU_STREAM_NON_BLOCKING) return CUDA_ERROR_INVALID_VALUE;
    *stream = *state.streams.insert(new CUstream_st).first;
    return CUDA_SUCCESS;
}

DTWIN_EMULATED CUresult CUDAAPI cuStreamSynchronize(CUstream stream) {
    const Call call(__func__);
    return ready(stream);
}

DTWIN_EMULATED CUresult CUDAAPI cuStreamDestroy_v2(CUstream stream) {
    const Call call(__func__);
    const CUresult result = ready();
    if (result != CUDA_SUCCESS) return result;
    if (!state.streams.erase(stream)) return CUDA_ERROR_INVALID_HANDLE;
    delete stream;
    return CUDA_SUCCESS;
}

DTWIN_EMULATED CUresult CUDAAPI cuStreamQuery(CUstream stream) {
    const Call call(__func__);
    return ready(stream);
}

DTWIN_EMULATED CUresult CUDAAPI cuGetErrorString(CUresult error, const char** text) {
    const Call call(__func__);
    return describe(error, &Error::text, text);
}

DTWIN_EMULATED CUresult CUDAAPI cuGetErrorName(CUresult error, const char** text) {
    const Call call(__func__);
    return describe(error, &Error::name, text);
}
