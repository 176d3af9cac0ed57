#include "driver.h"

#include <dlfcn.h>

#include <array>
#include <cstdlib>
#include <memory>

#include "fatbins.h"

namespace dtwin::gpu {
namespace {

constexpr int kLeastMajor = 8;
constexpr int kLeastDriver =
    DTWIN_CUDA_VERSION_MAJOR * 1000;  // kernels of a toolkit run from its driver on

// The library that the variable names, or the first of these that is there.
void* open_library(const char* variable, std::initializer_list<const char*> names,
                   std::string* why) {
    const char* named = std::getenv(variable);
    if (named) {
        void* library = dlopen(named, RTLD_NOW | RTLD_LOCAL);
        if (!library) *why = std::string(variable) + ": " + dlerror();
        return library;
    }
    for (const char* name : names) {
        if (void* library = dlopen(name, RTLD_NOW | RTLD_LOCAL)) return library;
    }
    *why = dlerror();
    return nullptr;
}

template <class Function>
void find(void* library, const char* symbol, Function* function, const char* way_out) {
    *function = reinterpret_cast<Function>(dlsym(library, symbol));
    if (!*function) throw Failure(std::string("the library lacks ") + symbol + ". " + way_out);
}

std::string version(int number) {
    return std::to_string(number / 1000) + "." + std::to_string(number % 1000 / 10);
}

Driver load_driver() {
    const char* kUpdate = "Update the NVIDIA driver";
    std::string why;
    void* library = open_library("DTWIN_LIBCUDA", {"libcuda.so.1"}, &why);
    if (!library) {
        throw Failure("there is no NVIDIA driver (" + why +
                      "). Use a machine with an NVIDIA GPU and its driver, or backend=\"cpu\"");
    }
    Driver found{};
#define DTWIN_FIND(name, symbol) find(library, symbol, &found.name, kUpdate);
    DTWIN_DRIVER_FUNCTIONS(DTWIN_FIND)
#undef DTWIN_FIND
    return found;
}

Blas load_blas() {
    const char* kInstall = "Install cuBLAS 12 or newer (pip install nvidia-cublas)";
    std::string why;
    void* library = open_library("DTWIN_LIBCUBLAS",
                                 {"libcublas.so.13", "libcublas.so.12", "libcublas.so"}, &why);
    if (!library) throw Failure("cuBLAS is not to be had (" + why + "). " + kInstall);
    Blas found{};
    find(library, "cublasCreate_v2", &found.create, kInstall);
    find(library, "cublasSetStream_v2", &found.set_stream, kInstall);
    find(library, "cublasSetWorkspace_v2", &found.set_workspace, kInstall);
    find(library, "cublasSgemmStridedBatched", &found.sgemm_strided_batched, kInstall);
    return found;
}

// dtwin_<direction>_<cell>_... is in the file of its cell, everything else in readout.cu.
std::string file_of(const std::string& kernel) {
    for (const char* direction : {"dtwin_forward_", "dtwin_backward_"}) {
        const std::string start = direction;
        if (kernel.compare(0, start.size(), start) == 0) {
            return kernel.substr(start.size(), kernel.find('_', start.size()) - start.size());
        }
    }
    return "readout";
}

}  // namespace

const Driver& driver() {
    static const Driver loaded = load_driver();
    return loaded;
}

const Blas& blas() {
    static const Blas loaded = load_blas();
    return loaded;
}

void check(CUresult result, const char* doing) {
    if (result == CUDA_SUCCESS) return;
    const char* text = nullptr;
    driver().cuGetErrorString(result, &text);
    std::string message = std::string(doing) + ": " + (text ? text : "unknown error");
    switch (result) {
        case CUDA_ERROR_OUT_OF_MEMORY:
            throw OutOfMemory(message + ". Give fewer subjects, sequences or steps at a time");
        case CUDA_ERROR_NO_BINARY_FOR_GPU:
        case CUDA_ERROR_UNSUPPORTED_PTX_VERSION:
            message +=
                ". Update the NVIDIA driver, or build dtwin_fast with the CUDA toolkit "
                "that goes with it";
            break;
        default:
            break;
    }
    throw Failure(message);
}

void check_blas(int status, const char* doing) {
    if (status) throw Failure(std::string(doing) + ": cuBLAS status " + std::to_string(status));
}

Device& Device::get(int index) {
    static std::mutex mutex;
    static std::map<int, std::unique_ptr<Device>> devices;
    const std::lock_guard<std::mutex> lock(mutex);
    auto& device = devices[index];
    if (!device) device.reset(new Device(index));
    return *device;
}

Device::Device(int index) {
    const Driver& cu = driver();
    const CUresult started = cu.cuInit(0);
    if (started == CUDA_ERROR_NO_DEVICE) {
        throw Failure("the NVIDIA driver finds no GPU. Use a machine with one, or backend=\"cpu\"");
    }
    check(started, "starting the NVIDIA driver");
    int driver_version = 0, count = 0;
    check(cu.cuDriverGetVersion(&driver_version), "asking for the driver's version");
    if (driver_version < kLeastDriver) {
        throw Failure("the NVIDIA driver is too old: it is for CUDA " + version(driver_version) +
                      ", and the kernels were built with CUDA " + version(kLeastDriver) +
                      ". Update the driver");
    }
    check(cu.cuDeviceGetCount(&count), "counting the GPUs");
    if (index < 0 || index >= count) {
        throw Failure("there is no GPU " + std::to_string(index) + ", only " +
                      std::to_string(count) +
                      ". Name another one (CUDA_VISIBLE_DEVICES hides some)");
    }
    check(cu.cuDeviceGet(&device_, index), "opening the GPU");
    major = attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, index);
    capability = std::to_string(major) + "." +
                 std::to_string(attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, index));
    if (major < kLeastMajor) {
        throw Failure("the GPU has compute capability " + capability + ", and the kernels need " +
                      std::to_string(kLeastMajor) + ".0 (Ampere). Use backend=\"cpu\"");
    }
    n_multiprocessors = attribute(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, index);
    shared_of_block = attribute(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, index);
    shared_of_multiprocessor =
        attribute(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR, index);
    // Kept to the end of the process, as the modules are. The frameworks use the same context.
    check(cu.cuDevicePrimaryCtxRetain(&context_, device_), "opening the GPU's context");
}

int Device::attribute(CUdevice_attribute which, int index) const {
    int value = 0;
    check(driver().cuDeviceGetAttribute(&value, which, device_),
          ("asking what GPU " + std::to_string(index) + " can do").c_str());
    return value;
}

CUfunction Device::function(const std::string& name) {
    const auto known = functions_.find(name);
    if (known != functions_.end()) return known->second;
    const Driver& cu = driver();
    const std::string file = file_of(name);
    if (!modules_.count(file)) {
        CUmodule module;
        check(cu.cuModuleLoadData(&module, fatbin(file.c_str())), "loading the kernels");
        modules_[file] = module;
    }
    CUfunction function;
    check(cu.cuModuleGetFunction(&function, modules_[file], name.c_str()), name.c_str());
    check(cu.cuFuncSetAttribute(function, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                                shared_of_block),
          name.c_str());
    if (major >= 9) {
        check(
            cu.cuFuncSetAttribute(function, CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED, 1),
            name.c_str());
    }
    return functions_[name] = function;
}

BlasHandle Device::blas_handle(CUstream stream, void* workspace, size_t bytes) {
    if (!blas_handle_) check_blas(blas().create(&blas_handle_), "starting cuBLAS");
    check_blas(blas().set_stream(blas_handle_, stream), "giving cuBLAS the stream");
    // After the stream, which takes the workspace back.
    check_blas(blas().set_workspace(blas_handle_, workspace, bytes), "giving cuBLAS its workspace");
    return blas_handle_;
}

Device::Use::Use(Device& device) {
    check(driver().cuCtxPushCurrent(device.context_), "using the GPU's context");
}

Device::Use::~Use() {
    CUcontext context;
    driver().cuCtxPopCurrent(&context);
}

}  // namespace dtwin::gpu
