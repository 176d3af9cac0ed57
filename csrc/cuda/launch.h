// A rollout and its gradients on one GPU's arrays: what is put onto the stream, in which order.
#pragma once

#include <cstddef>

#include "driver.h"
#include "dtwin.h"

namespace dtwin::gpu {

// Throws Unsupported where there is no kernel for these sizes, or for those of the gradients.
void look_for_kernels(Device& device, const dtwin_rollout_params& params, bool vjp);

// Workspace of the calls below. The parameters are checked; throws Failure. All of these within a
// Device::Use and a Device::Turn.
size_t workspace_bytes(Device& device, const dtwin_rollout_params& params);
size_t workspace_bytes(Device& device, const dtwin_rollout_vjp_params& params);

// Nothing is allocated and nothing waits.
void roll_out(Device& device, const dtwin_rollout_params& params, CUstream stream, void* workspace,
              size_t bytes);
void roll_out(Device& device, const dtwin_rollout_vjp_params& params, CUstream stream,
              void* workspace, size_t bytes);

}  // namespace dtwin::gpu
