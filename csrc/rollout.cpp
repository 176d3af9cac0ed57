#include "rollout.h"

#include <algorithm>
#include <initializer_list>
#include <memory>
#include <new>

#include "arrays.h"
#include "parallel.h"
#include "simd/isa.h"

namespace dtwin {
namespace {

int n_gates(int32_t cell) { return cell == DTWIN_LSTM ? 4 : cell == DTWIN_GRU ? 3 : 1; }

bool has_second_state(int32_t cell) { return cell == DTWIN_LSTM; }

size_t item_bytes(int32_t dtype) { return dtype == DTWIN_FLOAT64 ? sizeof(double) : sizeof(float); }

int check_sizes(const dtwin_rollout_params& p) {
    const int64_t positive[] = {p.n_sequences, p.n_steps, p.n_inputs, p.n_hidden, p.n_outputs};
    for (int64_t size : positive) {
        if (size < 1) return DTWIN_ERROR_SIZE;
    }
    const int64_t least_projected = p.projection ? 1 : 0;
    if (p.n_subjects < 0 || p.n_projected < least_projected) return DTWIN_ERROR_SIZE;
    if (!p.projection && p.n_projected != 0) return DTWIN_ERROR_NULL;
    const int64_t strides[] = {p.w_ih_stride,
                               p.w_hh_stride,
                               p.b_ih_stride,
                               p.b_hh_stride,
                               p.w_out_stride,
                               p.b_out_stride,
                               p.inputs_subject_stride,
                               p.inputs_sequence_stride,
                               p.projection_sequence_stride};
    for (int64_t stride : strides) {
        if (stride < 0) return DTWIN_ERROR_STRIDE;
    }
    return DTWIN_OK;
}

// The arrays that a rollout and its gradients read.
void add_problem(const dtwin_rollout_params& p, int64_t gates, Arrays* arrays) {
    const int64_t S = p.n_subjects, B = p.n_sequences, H = p.n_hidden;
    arrays->read(p.w_ih, {{S, p.w_ih_stride}, {gates, kPacked}, {p.n_inputs, kPacked}});
    arrays->read(p.w_hh, {{S, p.w_hh_stride}, {gates, kPacked}, {H, kPacked}});
    arrays->read(p.b_ih, {{S, p.b_ih_stride}, {gates, kPacked}});
    arrays->read(p.b_hh, {{S, p.b_hh_stride}, {gates, kPacked}});
    arrays->read(p.w_out, {{S, p.w_out_stride}, {p.n_outputs, kPacked}, {H, kPacked}});
    arrays->read(p.b_out, {{S, p.b_out_stride}, {p.n_outputs, kPacked}});
    arrays->read(p.inputs, {{S, p.inputs_subject_stride},
                            {B, p.inputs_sequence_stride},
                            {p.n_steps, kPacked},
                            {p.n_inputs, kPacked}});
    arrays->read(
        p.projection,
        {{B, p.projection_sequence_stride}, {p.n_projected, kPacked}, {p.n_steps, kPacked}});
    arrays->read(p.h0, {{S, kPacked}, {B, kPacked}, {H, kPacked}});
    if (has_second_state(p.cell)) {
        arrays->read(p.c0, {{S, kPacked}, {B, kPacked}, {H, kPacked}});
    }
}

int64_t output_rows(const dtwin_rollout_params& p) {
    return p.projection ? p.n_projected : p.n_steps;
}

void add_results(const dtwin_rollout_params& p, Arrays* arrays) {
    const Axis S{p.n_subjects, kPacked}, B{p.n_sequences, kPacked}, H{p.n_hidden, kPacked};
    arrays->write(p.outputs, {S, B, {output_rows(p), kPacked}, {p.n_outputs, kPacked}});
    if (p.states) arrays->write(p.states, {S, B, {p.n_steps, kPacked}, H});
    arrays->write(p.h_final, {S, B, H});
    if (has_second_state(p.cell)) arrays->write(p.c_final, {S, B, H});
    arrays->write_bytes(p.diverged, p.n_subjects);
}

void add_gradients(const dtwin_rollout_vjp_params& g, int64_t n_gates, Arrays* arrays) {
    const dtwin_rollout_params& p = g.rollout;
    const Axis S{p.n_subjects, kPacked}, B{p.n_sequences, kPacked}, H{p.n_hidden, kPacked};
    const Axis I{p.n_inputs, kPacked}, O{p.n_outputs, kPacked}, gates{n_gates, kPacked};
    if (g.states) arrays->read(g.states, {S, B, {p.n_steps, kPacked}, H});
    arrays->read(g.d_outputs, {S, B, {output_rows(p), kPacked}, O});
    if (g.d_states) arrays->read(g.d_states, {S, B, {p.n_steps, kPacked}, H});
    arrays->read(g.d_h_final, {S, B, H});
    if (has_second_state(p.cell)) arrays->read(g.d_c_final, {S, B, H});
    arrays->write(g.d_w_ih, {S, gates, I});
    arrays->write(g.d_w_hh, {S, gates, H});
    arrays->write(g.d_b_ih, {S, gates});
    arrays->write(g.d_b_hh, {S, gates});
    arrays->write(g.d_w_out, {S, O, H});
    arrays->write(g.d_b_out, {S, O});
    arrays->write(g.d_inputs, {S, B, {p.n_steps, kPacked}, I});
    arrays->write(g.d_h0, {S, B, H});
    if (has_second_state(p.cell)) arrays->write(g.d_c0, {S, B, H});
}

int check_pointers(const dtwin_rollout_params& p, std::initializer_list<const void*> required,
                   std::initializer_list<const void*> optional) {
    const auto misaligned = [&](const void* pointer) {
        return reinterpret_cast<uintptr_t>(pointer) % item_bytes(p.dtype) != 0;
    };
    for (const void* pointer : required) {
        if (!pointer) return DTWIN_ERROR_NULL;
    }
    for (const void* pointer : required) {
        if (misaligned(pointer)) return DTWIN_ERROR_ALIGNMENT;
    }
    for (const void* pointer : optional) {
        if (misaligned(pointer)) return DTWIN_ERROR_ALIGNMENT;
    }
    return DTWIN_OK;
}

// The arrays that a rollout and its gradients read.
int check_problem_pointers(const dtwin_rollout_params& p) {
    return check_pointers(p, {p.w_ih, p.w_hh, p.b_ih, p.b_hh, p.w_out, p.b_out, p.inputs},
                          {p.h0, p.c0, p.projection});
}

int check_result_pointers(const dtwin_rollout_params& p) {
    if (!p.diverged || (has_second_state(p.cell) && !p.c_final)) return DTWIN_ERROR_NULL;
    return check_pointers(p, {p.outputs, p.h_final}, {p.states, p.c_final});
}

int check_gradient_pointers(const dtwin_rollout_vjp_params& g) {
    if (has_second_state(g.rollout.cell) && !g.d_c0) return DTWIN_ERROR_NULL;
    return check_pointers(g.rollout,
                          {g.d_outputs, g.d_w_ih, g.d_w_hh, g.d_b_ih, g.d_b_hh, g.d_w_out,
                           g.d_b_out, g.d_inputs, g.d_h0},
                          {g.states, g.d_states, g.d_h_final, g.d_c_final, g.d_c0});
}

// Everything but the arrays; the rows of the gates are written to `gates`.
int check_problem(const dtwin_rollout_params& p, int64_t* gates) {
    if (p.struct_size != sizeof(dtwin_rollout_params)) return DTWIN_ERROR_VERSION;
    if (p.cell < DTWIN_RNN || p.cell > DTWIN_LSTM) return DTWIN_ERROR_CELL;
    if (p.dtype < DTWIN_FLOAT32 || p.dtype > DTWIN_FLOAT64) return DTWIN_ERROR_DTYPE;
    if (p.n_threads < 0 || p.n_threads > DTWIN_MAX_THREADS) return DTWIN_ERROR_THREADS;
    if (p.weights < DTWIN_WEIGHTS_FULL || p.weights > DTWIN_WEIGHTS_BFLOAT16) {
        return DTWIN_ERROR_WEIGHTS;
    }
    if (p.weights == DTWIN_WEIGHTS_BFLOAT16 && p.dtype != DTWIN_FLOAT32) return DTWIN_ERROR_WEIGHTS;
    if (int status = check_sizes(p)) return status;
    const bool overflow = __builtin_mul_overflow(p.n_hidden, n_gates(p.cell), gates);
    return overflow ? DTWIN_ERROR_OVERFLOW : DTWIN_OK;
}

}  // namespace

int check_rollout(const dtwin_rollout_params* params) {
    if (!params) return DTWIN_ERROR_NULL;
    const dtwin_rollout_params& p = *params;
    int64_t gates = 0;
    if (int status = check_problem(p, &gates)) return status;
    Arrays arrays(item_bytes(p.dtype));
    add_problem(p, gates, &arrays);
    add_results(p, &arrays);
    if (!arrays.fit()) return DTWIN_ERROR_OVERFLOW;
    if (p.n_subjects == 0) return DTWIN_OK;
    if (int status = check_problem_pointers(p)) return status;
    if (int status = check_result_pointers(p)) return status;
    return arrays.overlap() ? DTWIN_ERROR_OVERLAP : DTWIN_OK;
}

int check_rollout_vjp(const dtwin_rollout_vjp_params* params) {
    if (!params) return DTWIN_ERROR_NULL;
    if (params->struct_size != sizeof(dtwin_rollout_vjp_params)) return DTWIN_ERROR_VERSION;
    const dtwin_rollout_params& p = params->rollout;
    int64_t gates = 0;
    if (int status = check_problem(p, &gates)) return status;
    Arrays arrays(item_bytes(p.dtype));
    add_problem(p, gates, &arrays);
    add_gradients(*params, gates, &arrays);
    if (!arrays.fit()) return DTWIN_ERROR_OVERFLOW;
    if (p.n_subjects == 0) return DTWIN_OK;
    if (int status = check_problem_pointers(p)) return status;
    if (int status = check_gradient_pointers(*params)) return status;
    return arrays.overlap() ? DTWIN_ERROR_OVERLAP : DTWIN_OK;
}

int run_rollout(const dtwin_rollout_params& params) {
    if (params.n_subjects == 0) return DTWIN_OK;
    const Isa* isa = active_isa();
    if (!isa) return DTWIN_ERROR_ISA;
    size_t bytes = 0;
    if (!isa->rollout_bytes(params, &bytes)) return DTWIN_ERROR_OVERFLOW;

    // An item is a subject, or a part of its sequences where that keeps more threads at work.
    const int64_t S = params.n_subjects, B = params.n_sequences;
    const int64_t n_threads = wanted_threads(params.n_threads);
    const int64_t parts = std::max(std::min(B, divide_up(n_threads, S)),
                                   std::min(B / kFewSequences, divide_up(kEvenly * n_threads, S)));
    std::unique_ptr<bool[]> finite(new (std::nothrow) bool[S * parts]);
    if (!finite) return DTWIN_ERROR_MEMORY;
    const auto run = [&](int64_t item, void* workspace) {
        const int64_t part = item % parts;
        finite[item] =
            isa->rollout(params, item / parts, part * B / parts, (part + 1) * B / parts, workspace);
    };
    if (int status = run_items(S * parts, n_threads, bytes, run)) return status;
    for (int64_t s = 0; s < S; ++s) {
        const bool* of_subject = finite.get() + s * parts;
        params.diverged[s] = !std::all_of(of_subject, of_subject + parts, [](bool f) { return f; });
    }
    return DTWIN_OK;
}

int run_rollout_vjp(const dtwin_rollout_vjp_params& params) {
    const int64_t S = params.rollout.n_subjects;
    if (S == 0) return DTWIN_OK;
    const Isa* isa = active_isa();
    if (!isa) return DTWIN_ERROR_ISA;
    size_t bytes = 0;
    int64_t blocks = 0;
    if (!isa->vjp_bytes(params, &bytes, &blocks)) return DTWIN_ERROR_OVERFLOW;

    // An item is a subject, or a block of its sequences.
    const int64_t n_threads = wanted_threads(params.rollout.n_threads);
    const int64_t parts = S < kEvenly * n_threads ? blocks : 1;
    std::unique_ptr<int64_t[]> next(new (std::nothrow) int64_t[S]());
    if (!next) return DTWIN_ERROR_MEMORY;
    Turns turns(next.get());
    const auto run = [&](int64_t item, void* workspace) {
        const int64_t part = item % parts;
        isa->vjp(params, item / parts, part * blocks / parts, (part + 1) * blocks / parts, turns,
                 workspace);
    };
    return run_items(S * parts, n_threads, bytes, run);
}

}  // namespace dtwin

extern "C" {

int dtwin_rollout(const dtwin_rollout_params* params) {
    const int status = dtwin::check_rollout(params);
    return status ? status : dtwin::run_rollout(*params);
}

int dtwin_rollout_vjp(const dtwin_rollout_vjp_params* params) {
    const int status = dtwin::check_rollout_vjp(params);
    return status ? status : dtwin::run_rollout_vjp(*params);
}

const char* dtwin_strerror(int status) {
    switch (status) {
        case DTWIN_OK:
            return "no error";
        case DTWIN_ERROR_VERSION:
            return "struct_size is not that of this library's struct";
        case DTWIN_ERROR_CELL:
            return "cell is not a dtwin_cell";
        case DTWIN_ERROR_DTYPE:
            return "dtype is not a dtwin_dtype";
        case DTWIN_ERROR_SIZE:
            return "a size is negative, or zero where at least one is needed";
        case DTWIN_ERROR_STRIDE:
            return "a stride is negative";
        case DTWIN_ERROR_OVERFLOW:
            return "an array would be larger than the address space";
        case DTWIN_ERROR_NULL:
            return "a required pointer is NULL";
        case DTWIN_ERROR_ALIGNMENT:
            return "a pointer is not aligned to its element type";
        case DTWIN_ERROR_THREADS:
            return "n_threads is negative or above DTWIN_MAX_THREADS";
        case DTWIN_ERROR_MEMORY:
            return "the workspace could not be allocated";
        case DTWIN_ERROR_ISA:
            return "DTWIN_ISA names no instruction set that this library and processor have";
        case DTWIN_ERROR_WEIGHTS:
            return "weights is not a dtwin_weights, or is bfloat16 with arrays that are not "
                   "float32";
        case DTWIN_ERROR_CUDA:
            return "there is no GPU that can run, or it failed";
        case DTWIN_ERROR_UNSUPPORTED:
            return "the GPU cannot run these sizes or this dtype";
        case DTWIN_ERROR_OVERLAP:
            return "a result overlaps another array";
        case DTWIN_ERROR_MODEL:
            return "this model folder cannot be used";
        case DTWIN_ERROR_EDGES:
            return "a subject's edges are no connectome of this model";
        case DTWIN_ERROR_TASK:
            return "this is not a task of the model, or one named twice";
        case DTWIN_ERROR_CHOICE:
            return "unit or missing is not a value of its enumeration";
        case DTWIN_ERROR_HEAD:
            return "this model's head has no gradients of behaviour";
        default:
            return "unknown status";
    }
}

const char* dtwin_isa(void) {
    const dtwin::Isa* isa = dtwin::active_isa();
    return isa ? isa->name : nullptr;
}

}  // extern "C"
