// libcuda and cuBLAS, loaded when they are first needed, and the GPUs they find.
#pragma once

#include <cuda.h>

#include <map>
#include <mutex>
#include <stdexcept>
#include <string>

namespace dtwin::gpu {

// A sentence for the caller: what is wrong and what to do.
struct Failure : std::runtime_error {
    using std::runtime_error::runtime_error;
};

struct OutOfMemory : Failure {
    using Failure::Failure;
};

// Sizes or a dtype that there is no kernel for.
struct Unsupported : Failure {
    using Failure::Failure;
};

#define DTWIN_DRIVER_FUNCTIONS(F)                                   \
    F(cuInit, "cuInit")                                             \
    F(cuDriverGetVersion, "cuDriverGetVersion")                     \
    F(cuDeviceGetCount, "cuDeviceGetCount")                         \
    F(cuDeviceGet, "cuDeviceGet")                                   \
    F(cuDeviceGetAttribute, "cuDeviceGetAttribute")                 \
    F(cuDevicePrimaryCtxRetain, "cuDevicePrimaryCtxRetain")         \
    F(cuCtxPushCurrent, "cuCtxPushCurrent_v2")                      \
    F(cuCtxPopCurrent, "cuCtxPopCurrent_v2")                        \
    F(cuModuleLoadData, "cuModuleLoadData")                         \
    F(cuModuleGetFunction, "cuModuleGetFunction")                   \
    F(cuFuncSetAttribute, "cuFuncSetAttribute")                     \
    F(cuOccupancyMaxActiveClusters, "cuOccupancyMaxActiveClusters") \
    F(cuLaunchKernelEx, "cuLaunchKernelEx")                         \
    F(cuMemAlloc, "cuMemAlloc_v2")                                  \
    F(cuMemFree, "cuMemFree_v2")                                    \
    F(cuMemGetInfo, "cuMemGetInfo_v2")                              \
    F(cuMemcpyHtoDAsync, "cuMemcpyHtoDAsync_v2")                    \
    F(cuMemcpyDtoHAsync, "cuMemcpyDtoHAsync_v2")                    \
    F(cuMemcpyDtoDAsync, "cuMemcpyDtoDAsync_v2")                    \
    F(cuMemcpy2DAsync, "cuMemcpy2DAsync_v2")                        \
    F(cuMemsetD8Async, "cuMemsetD8Async")                           \
    F(cuStreamCreate, "cuStreamCreate")                             \
    F(cuStreamSynchronize, "cuStreamSynchronize")                   \
    F(cuStreamDestroy, "cuStreamDestroy_v2")                        \
    F(cuGetErrorString, "cuGetErrorString")

struct Driver {
#define DTWIN_DECLARE(name, symbol) decltype(&::name) name;
    DTWIN_DRIVER_FUNCTIONS(DTWIN_DECLARE)
#undef DTWIN_DECLARE
};

// cuBLAS's types and functions as its documentation gives them: building takes no cuBLAS.
using BlasHandle = void*;
enum BlasOperation : int { kAsItIs = 0, kTransposed = 1 };
struct Blas {
    int (*create)(BlasHandle* handle);
    int (*set_stream)(BlasHandle handle, CUstream stream);
    int (*set_workspace)(BlasHandle handle, void* workspace, size_t bytes);
    int (*sgemm_strided_batched)(BlasHandle handle, BlasOperation a_operation,
                                 BlasOperation b_operation, int m, int n, int k, const float* alpha,
                                 const float* a, int lda, long long a_stride, const float* b,
                                 int ldb, long long b_stride, const float* beta, float* c, int ldc,
                                 long long c_stride, int count);
};

// The loaded library; throws Failure where it is not to be had.
const Driver& driver();
const Blas& blas();

// Throws Failure with what the driver says and `doing`.
void check(CUresult result, const char* doing);
void check_blas(int status, const char* doing);

// One GPU, ready to run.
class Device {
  public:
    // Throws Failure where there is no such device or it cannot run.
    static Device& get(int index);

    // A kernel of kernels.def or readout.cu. This and the next within a Use and a Turn.
    CUfunction function(const std::string& name);

    // cuBLAS on `stream` with this workspace.
    BlasHandle blas_handle(CUstream stream, void* workspace, size_t bytes);

    std::string capability;
    int major;
    int n_multiprocessors;
    int shared_of_block, shared_of_multiprocessor;  // bytes

    // The device's context is current in this thread.
    class Use {
      public:
        explicit Use(Device& device);
        ~Use();
        Use(const Use&) = delete;
        Use& operator=(const Use&) = delete;
    };

    // No other thread puts work onto the device.
    class Turn {
      public:
        explicit Turn(Device& device) : lock_(device.mutex_) {}

      private:
        std::lock_guard<std::mutex> lock_;
    };

  private:
    explicit Device(int index);
    int attribute(CUdevice_attribute which, int index) const;

    std::mutex mutex_;
    CUdevice device_;
    CUcontext context_;
    std::map<std::string, CUmodule> modules_;
    std::map<std::string, CUfunction> functions_;
    BlasHandle blas_handle_ = nullptr;
};

}  // namespace dtwin::gpu
