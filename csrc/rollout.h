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
    bool (*rollout_bytes)(const dtwin_rollout_params& params, size_t* bytes);

    // Roll out the sequences [first, last) of a subject, writing all their results but
    // `diverged`; false where one left the finite numbers. `workspace` is 64-byte aligned.
    bool (*rollout)(const dtwin_rollout_params& params, int64_t subject, int64_t first,
                    int64_t last, void* workspace);

    // The same two for the gradients of one subject.
    bool (*vjp_bytes)(const dtwin_rollout_vjp_params& params, size_t* bytes);
    void (*vjp)(const dtwin_rollout_vjp_params& params, int64_t subject, void* workspace);
};

// DTWIN_OK, or why these arguments cannot be run.
int check_rollout(const dtwin_rollout_params* params);
int check_rollout_vjp(const dtwin_rollout_vjp_params* params);

// dtwin_rollout() and dtwin_rollout_vjp() without the argument checks.
int run_rollout(const dtwin_rollout_params& params);
int run_rollout_vjp(const dtwin_rollout_vjp_params& params);

}  // namespace dtwin
