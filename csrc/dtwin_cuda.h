/* dtwin_fast on NVIDIA GPUs: the rollout and its gradients of dtwin.h, with the same structs.
 *
 * float32 arrays, full or bfloat16 weights. libcuda is loaded when it is first needed, and so is
 * cuBLAS, so that a library with these functions also loads where there is no GPU. The environment
 * variables DTWIN_LIBCUDA and DTWIN_LIBCUBLAS name other files for them.
 *
 * Repeated calls have the same bits. States have the same bits for any grouping of subjects and
 * sequences into calls and any cut of T; outputs and gradients go through cuBLAS, which chooses
 * another order of sums for other sizes.
 *
 * Thread-safe. Calls on one device take turns while they put their work onto streams.
 */
#ifndef DTWIN_CUDA_H
#define DTWIN_CUDA_H

#include "dtwin.h"

#ifdef __cplusplus
extern "C" {
#endif

/* NULL where device 0, 1, ... can run, or one sentence that says why not and what to do. */
DTWIN_API const char* dtwin_cuda_why_not(int device);

/* "9.0" for compute capability 9.0; NULL where the device cannot run. */
DTWIN_API const char* dtwin_cuda_capability(int device);

/* DTWIN_OK where the device has kernels for a rollout, and with `vjp` for its gradients; of the
 * struct only cell, dtype, weights and the sizes are looked at. */
DTWIN_API int dtwin_cuda_fits(const dtwin_rollout_params* params, int device, int vjp);

/* Bytes of workspace that the call takes. */
DTWIN_API int dtwin_cuda_workspace(const dtwin_rollout_params* params, int device, size_t* bytes);
DTWIN_API int dtwin_cuda_workspace_vjp(const dtwin_rollout_vjp_params* params, int device,
                                       size_t* bytes);

/* Put the work onto a stream (CUstream, cudaStream_t; NULL is the default stream) and return: no
 * memory is allocated and nothing waits, but for the first call on a device, which loads the
 * kernels. All pointers in the struct and `workspace`, aligned to 256 bytes, are the device's, and
 * stay valid until the stream has done the work. n_threads is not used. */
DTWIN_API int dtwin_cuda_rollout(const dtwin_rollout_params* params, int device, void* stream,
                                 void* workspace, size_t bytes);
DTWIN_API int dtwin_cuda_rollout_vjp(const dtwin_rollout_vjp_params* params, int device,
                                     void* stream, void* workspace, size_t bytes);

/* The same for arrays in host memory: they are copied to the device, for as many subjects at a time
 * as its free memory holds, and the results are there on return. */
DTWIN_API int dtwin_cuda_rollout_host(const dtwin_rollout_params* params, int device);
DTWIN_API int dtwin_cuda_rollout_vjp_host(const dtwin_rollout_vjp_params* params, int device);

/* What this thread's last DTWIN_ERROR_CUDA, DTWIN_ERROR_UNSUPPORTED or DTWIN_ERROR_MEMORY of these
 * functions was about, and what to do; valid until its next call. */
DTWIN_API const char* dtwin_cuda_message(void);

#ifdef __cplusplus
}
#endif

#endif /* DTWIN_CUDA_H */
