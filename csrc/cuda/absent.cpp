// dtwin_cuda.h in a build without a CUDA compiler.
#include "dtwin_cuda.h"

namespace {

constexpr const char* kWhy =
    "this build has no CUDA kernels: CMake found no CUDA compiler (nvcc), or DTWIN_CUDA was OFF. "
    "Install the CUDA toolkit 12.1 or newer and build again";

}  // namespace

extern "C" {

const char* dtwin_cuda_why_not(int) { return kWhy; }
const char* dtwin_cuda_capability(int) { return nullptr; }
const char* dtwin_cuda_message(void) { return kWhy; }

int dtwin_cuda_fits(const dtwin_rollout_params*, int, int) { return DTWIN_ERROR_CUDA; }
int dtwin_cuda_workspace(const dtwin_rollout_params*, int, size_t* bytes) {
    *bytes = 0;
    return DTWIN_ERROR_CUDA;
}
int dtwin_cuda_workspace_vjp(const dtwin_rollout_vjp_params*, int, size_t* bytes) {
    *bytes = 0;
    return DTWIN_ERROR_CUDA;
}
int dtwin_cuda_rollout(const dtwin_rollout_params*, int, void*, void*, size_t) {
    return DTWIN_ERROR_CUDA;
}
int dtwin_cuda_rollout_vjp(const dtwin_rollout_vjp_params*, int, void*, void*, size_t) {
    return DTWIN_ERROR_CUDA;
}
int dtwin_cuda_rollout_host(const dtwin_rollout_params*, int) { return DTWIN_ERROR_CUDA; }
int dtwin_cuda_rollout_vjp_host(const dtwin_rollout_vjp_params*, int) { return DTWIN_ERROR_CUDA; }

}  // extern "C"
