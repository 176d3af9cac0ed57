// The calls of launch.h for arrays in host memory.
#pragma once

#include "driver.h"
#include "dtwin.h"

namespace dtwin::gpu {

// Copies there and back, for as many subjects at a time as the device's free memory holds. The
// parameters are checked; throws Failure. Within a Device::Use.
void roll_out_host(Device& device, const dtwin_rollout_params& params);
void roll_out_host(Device& device, const dtwin_rollout_vjp_params& params);

}  // namespace dtwin::gpu
