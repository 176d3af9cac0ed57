// How a time loop is laid over a GPU: which kernel, how many blocks, what is where in shared
// memory.
#pragma once

#include <cstdint>
#include <string>

#include "driver.h"
#include "dtwin.h"
#include "params.h"

namespace dtwin::gpu {

enum class Direction { kForward, kBackward };

struct Sizes {
    Direction direction;
    int cell;       // dtwin_cell
    bool bfloat16;  // weights
    int64_t S, B, T, I, H;
    int64_t K;  // rows of a projection; 0 = none
};

struct Plan {
    std::string kernel;
    int threads;
    int sequence_blocks;      // of a subject
    int shared;               // bytes
    ForwardParams forward;    // its K is 0 where the projected states would take too much memory
    BackwardParams backward;  // of the two that of the direction is filled in, but for pointers
};

// The plan that should take the fewest cycles. It depends on the cell, the weights, H, I and the
// device, and not on how many subjects, sequences and steps there are, so that neither do the bits
// of the states; but for the number of sequences in a block, which changes no bit.
//
// Throws Unsupported where no plan fits on the device.
Plan make_plan(Device& device, const Sizes& sizes);

int n_gates(int cell);
int n_kept(int cell);  // kKept of forward.h

// Slots in which backward leaves the gradients of the gates' h: `count` gates from `gate` on are at
// the slots from `slot` on.
struct GateRun {
    int gate, slot, count;
};
struct GateRuns {
    GateRun at[2];
    int count;
};
GateRuns gate_runs(int cell);

}  // namespace dtwin::gpu
