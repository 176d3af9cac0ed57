// The engine behind dtwin.h: what the argument checks and the time loop say to each other.
#pragma once

#include <cstddef>
#include <cstdint>

#include "dtwin.h"

namespace dtwin {

// One build of the time loop for one instruction set.
struct Isa {
    const char* name;

    // Bytes of workspace one thread needs; false when that overflows. `params` is checked.
    bool (*workspace_bytes)(const dtwin_rollout_params& params, size_t* bytes);

    // Roll out subject `subject`, writing all its results. `workspace` is 64-byte aligned.
    void (*rollout_subject)(const dtwin_rollout_params& params, int64_t subject, void* workspace);

    // The same two for the gradients.
    bool (*vjp_workspace_bytes)(const dtwin_rollout_vjp_params& params, size_t* bytes);
    void (*vjp_subject)(const dtwin_rollout_vjp_params& params, int64_t subject, void* workspace);
};

// DTWIN_OK, or why these arguments cannot be run.
int check_rollout(const dtwin_rollout_params* params);
int check_rollout_vjp(const dtwin_rollout_vjp_params* params);

// dtwin_rollout() and dtwin_rollout_vjp() without the argument checks.
int run_rollout(const dtwin_rollout_params& params);
int run_rollout_vjp(const dtwin_rollout_vjp_params& params);

}  // namespace dtwin
