// Makes the kernels of kernels.def that a file has chosen, for the cells it has included.
#pragma once

#include "backward.h"

namespace dtwin::gpu {

using rnn = struct Rnn;
using gru = struct Gru;
using lstm = struct Lstm;
using float32 = Float32;
using bfloat16 = BFloat16;

template <class Cell, class Format, int kUnits, int kLanes, int kFours>
DTWIN_DEVICE void run(const ForwardParams& p) {
    Forward<Cell, Format, kUnits, kLanes, kFours>(p).run();
}

template <class Cell, class Format, int kUnits, int kLanes, int kFours>
DTWIN_DEVICE void run(const BackwardParams& p) {
    Backward<Cell, Format, kUnits, kLanes, kFours>(p).run();
}

using forward = ForwardParams;
using backward = BackwardParams;

#define KERNEL(direction, cell, weights, columns, units, lanes, fours, threads, blocks)            \
    DTWIN_KERNEL(dtwin_##direction##_##cell##_##weights##_##columns, direction, threads, blocks) { \
        run<cell, weights, units, lanes, fours>(p);                                                \
    }
#include "kernels.def"
#undef KERNEL

}  // namespace dtwin::gpu
