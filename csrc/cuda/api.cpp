// dtwin_cuda.h: arguments are checked, exceptions end here.
#include <new>
#include <string>

#include "dtwin_cuda.h"
#include "host_arrays.h"
#include "launch.h"
#include "rollout.h"

namespace dtwin::gpu {
namespace {

thread_local std::string message;

template <class Work>
int guarded(Work work) {
    try {
        work();
        return DTWIN_OK;
    } catch (const Unsupported& error) {
        message = error.what();
        return DTWIN_ERROR_UNSUPPORTED;
    } catch (const OutOfMemory& error) {
        message = error.what();
        return DTWIN_ERROR_MEMORY;
    } catch (const Failure& error) {
        message = error.what();
        return DTWIN_ERROR_CUDA;
    } catch (const std::bad_alloc&) {
        message = "this machine is out of memory";
        return DTWIN_ERROR_MEMORY;
    }
}

int checked(const dtwin_rollout_params* params) { return check_rollout(params); }
int checked(const dtwin_rollout_vjp_params* params) { return check_rollout_vjp(params); }

const dtwin_rollout_params& rollout_of(const dtwin_rollout_params& params) { return params; }
const dtwin_rollout_params& rollout_of(const dtwin_rollout_vjp_params& params) {
    return params.rollout;
}

// work(device) in the device's context, unless there is nothing to do.
template <class Params, class Work>
int run(const Params* params, int index, Work work) {
    if (const int status = checked(params)) return status;
    return guarded([&] {
        Device& device = Device::get(index);
        if (rollout_of(*params).n_subjects == 0) return;
        const Device::Use use(device);
        work(device);
    });
}

}  // namespace
}  // namespace dtwin::gpu

using namespace dtwin::gpu;

extern "C" {

const char* dtwin_cuda_why_not(int device) {
    return guarded([&] {
        Device::get(device);
        blas();
    })
               ? message.c_str()
               : nullptr;
}

const char* dtwin_cuda_capability(int device) {
    if (dtwin_cuda_why_not(device)) return nullptr;
    return Device::get(device).capability.c_str();
}

int dtwin_cuda_fits(const dtwin_rollout_params* params, int device, int vjp) {
    return guarded([&] {
        Device& d = Device::get(device);
        const Device::Use use(d);
        const Device::Turn turn(d);
        look_for_kernels(d, *params, vjp != 0);
    });
}

int dtwin_cuda_workspace(const dtwin_rollout_params* params, int device, size_t* bytes) {
    *bytes = 0;
    return run(params, device, [&](Device& d) {
        const Device::Turn turn(d);
        *bytes = workspace_bytes(d, *params);
    });
}

int dtwin_cuda_workspace_vjp(const dtwin_rollout_vjp_params* params, int device, size_t* bytes) {
    *bytes = 0;
    return run(params, device, [&](Device& d) {
        const Device::Turn turn(d);
        *bytes = workspace_bytes(d, *params);
    });
}

int dtwin_cuda_rollout(const dtwin_rollout_params* params, int device, void* stream,
                       void* workspace, size_t bytes) {
    return run(params, device, [&](Device& d) {
        const Device::Turn turn(d);
        roll_out(d, *params, static_cast<CUstream>(stream), workspace, bytes);
    });
}

int dtwin_cuda_rollout_vjp(const dtwin_rollout_vjp_params* params, int device, void* stream,
                           void* workspace, size_t bytes) {
    return run(params, device, [&](Device& d) {
        const Device::Turn turn(d);
        roll_out(d, *params, static_cast<CUstream>(stream), workspace, bytes);
    });
}

int dtwin_cuda_rollout_host(const dtwin_rollout_params* params, int device) {
    return run(params, device, [&](Device& d) { roll_out_host(d, *params); });
}

int dtwin_cuda_rollout_vjp_host(const dtwin_rollout_vjp_params* params, int device) {
    return run(params, device, [&](Device& d) { roll_out_host(d, *params); });
}

const char* dtwin_cuda_message(void) { return message.c_str(); }

}  // extern "C"
