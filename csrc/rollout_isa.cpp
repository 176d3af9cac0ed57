// The time loops, compiled once per instruction set (DTWIN_ISA is its namespace, DTWIN_ISA_TABLE
// the table it fills in).
//
// Packed weights stay in cache for all T.

#include <cstddef>
#include <cstdint>

#include "affine.h"
#include "backward.h"
#include "cells/gru.h"
#include "cells/lstm.h"
#include "cells/rnn.h"
#include "forward.h"
#include "rollout.h"

namespace dtwin::DTWIN_ISA {
namespace {

// Call `work` with the types that `params` names: the cell, the arrays' elements, the kept weights.
template <class Work>
auto with_types(const dtwin_rollout_params& params, Work work) {
    const auto with_floats = [&](auto cell) {
        if (params.dtype == DTWIN_FLOAT64) return work(cell, double(), double());
        if (params.weights == DTWIN_WEIGHTS_BFLOAT16) return work(cell, float(), BFloat16());
        return work(cell, float(), float());
    };
    switch (params.cell) {
        case DTWIN_GRU:
            return with_floats(Gru{});
        case DTWIN_LSTM:
            return with_floats(Lstm{});
        default:
            return with_floats(Rnn{});
    }
}

// Call `run` with the loop of the types that `problem` names, in the workspace.
template <template <class, class, class> class Loop, class Params, class Run>
auto with_loop(const dtwin_rollout_params& problem, const Params& params, Workspace& workspace,
               Run run) {
    return with_types(problem, [&](auto cell, auto array, auto kept) {
        Loop<decltype(cell), decltype(array), decltype(kept)> loop(params, workspace);
        return run(loop);
    });
}

bool rollout_bytes(const dtwin_rollout_params& params, size_t* bytes) {
    Workspace counted;
    with_loop<Forward>(params, params, counted, [](auto&) {});
    return counted.bytes(bytes);
}

bool rollout(const dtwin_rollout_params& params, int64_t subject, int64_t first, int64_t last,
             void* memory) {
    Workspace workspace(memory);
    return with_loop<Forward>(params, params, workspace,
                              [&](auto& loop) { return loop.run(subject, first, last); });
}

bool vjp_bytes(const dtwin_rollout_vjp_params& params, size_t* bytes, int64_t* blocks) {
    Workspace counted;
    *blocks = with_loop<Backward>(params.rollout, params, counted,
                                  [](auto& loop) { return loop.blocks(); });
    return counted.bytes(bytes);
}

void vjp(const dtwin_rollout_vjp_params& params, int64_t subject, int64_t first_block,
         int64_t last_block, Turns& turns, void* memory) {
    Workspace workspace(memory);
    with_loop<Backward>(params.rollout, params, workspace,
                        [&](auto& loop) { loop.run(subject, first_block, last_block, turns); });
}

size_t affine_bytes(const dtwin_affine_params& params) {
    Workspace counted;
    Affine layer(params, counted);
    size_t bytes = 0;
    counted.bytes(&bytes);  // the same for all sizes
    return bytes;
}

void affine(const dtwin_affine_params& params, int64_t first, int64_t last, int64_t column,
            void* memory) {
    Workspace workspace(memory);
    Affine(params, workspace).forward(first, last, column);
}

void affine_back(const dtwin_affine_params& params, int64_t first, int64_t last, int64_t column,
                 void* memory) {
    Workspace workspace(memory);
    Affine(params, workspace).back(first, last, column);
}

}  // namespace
}  // namespace dtwin::DTWIN_ISA

#define DTWIN_TEXT_OF(name) #name
#define DTWIN_TEXT(name) DTWIN_TEXT_OF(name)

namespace dtwin {
extern const Isa DTWIN_ISA_TABLE;  // const alone would keep it inside this file
const Isa DTWIN_ISA_TABLE{DTWIN_TEXT(DTWIN_ISA), DTWIN_ISA::rollout_bytes, DTWIN_ISA::rollout,
                          DTWIN_ISA::vjp_bytes,  DTWIN_ISA::vjp,           DTWIN_ISA::affine_bytes,
                          DTWIN_ISA::affine,     DTWIN_ISA::affine_back};
}  // namespace dtwin
