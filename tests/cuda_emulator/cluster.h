// Runs kernels: the blocks of a cluster together, one cluster after the other.
#pragma once

#include "device.h"

namespace dtwin::emulator {

struct Grid {
    int blocks_x, blocks_y, threads, cluster;  // cluster: blocks along x that run at once
    size_t shared_bytes;
    bool clusters_exist;  // else its barrier and mailboxes do nothing, as before 9.0
};

const gpu::EmulatedKernel* find_kernel(const char* name);  // null where there is none

// Runs the whole grid. One call at a time in the process.
void run_grid(const gpu::EmulatedKernel& kernel, const void* params, const Grid& grid);

}  // namespace dtwin::emulator
