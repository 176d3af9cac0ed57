// What is done to whole arrays before and after the time loops, beside the products that cuBLAS
// makes.
#include <device.h>

#include "params.h"
#include "stationary.h"

namespace dtwin::gpu {

constexpr int kThreads = 256;

DTWIN_DEVICE bool is_finite(float v) { return v - v == 0.0f; }

// One block a subject.
DTWIN_KERNEL(dtwin_bias, BiasParams, kThreads, 1) {
    const float* b_out = p.b_out + block_x() * p.b_out_stride;
    float* outputs = p.outputs + block_x() * p.rows * p.O;
    for (int64_t i = block_y() * thread_count() + thread_index(); i < p.rows * p.O;
         i += int64_t(p.blocks_y) * thread_count()) {
        const float weight = p.row_weights ? p.row_weights[i / p.O] : 1.0f;
        outputs[i] = weight * b_out[i % p.O];
    }
}

// One block a subject. |outputs| <= |w_out| peak + |b_out| spares reading them in all but strange
// cases.
DTWIN_KERNEL(dtwin_diverged, DivergedParams, kThreads, 1) {
    int* found = reinterpret_cast<int*>(shared_memory());
    if (thread_index() == 0) *found = 0;
    block_barrier();
    const int64_t subject = block_x();
    float peak = 0.0f;
    for (int i = 0; i < p.peaks_per_subject; ++i) {
        const float other = p.peaks[subject * p.peaks_per_subject + i];
        peak = other > peak ? other : peak;
    }
    bool bounded = !p.projected;
    for (int o = thread_index(); bounded && o < p.O; o += thread_count()) {
        const float* w = p.w_out + subject * p.w_out_stride + int64_t(o) * p.H;
        float bound = p.b_out[subject * p.b_out_stride + o];
        bound = bound < 0.0f ? -bound : bound;
        for (int j = 0; j < p.H; ++j) bound += (w[j] < 0.0f ? -w[j] : w[j]) * peak;
        bounded =
            bound < 1e38f;  // false for NaN; rounding cannot make a third of the largest float
    }
    if (!bounded) *found = 1;
    block_barrier();
    const bool look = *found;
    block_barrier();
    if (thread_index() == 0) *found = !is_finite(peak);
    block_barrier();
    if (look) {
        const float* outputs = p.outputs + subject * p.rows * p.O;
        bool finite = true;
        for (int64_t i = thread_index(); finite && i < p.rows * p.O; i += thread_count()) {
            finite = is_finite(outputs[i]);
        }
        if (!finite) *found = 1;
    }
    block_barrier();
    if (thread_index() == 0) p.diverged[subject] = *found;
}

// 32 columns of a subject's matrix a block; its warps take turns at the rows.
DTWIN_KERNEL(dtwin_column_sums, ColumnSumsParams, kThreads, 1) {
    float* parts = reinterpret_cast<float*>(shared_memory());
    const int lane = thread_index() % 32, warp = thread_index() / 32, warps = kThreads / 32;
    const int column = block_y() * 32 + lane;
    float sum = 0.0f;
    if (column < p.columns) {
        const float* matrix = p.matrix + block_x() * p.matrix_stride + column;
        for (int64_t row = warp; row < p.rows; row += warps) {
            const float v = matrix[row * p.row_stride];
            sum += p.row_weights ? v * p.row_weights[row] : v;
        }
    }
    parts[thread_index()] = sum;
    block_barrier();
    if (warp || column >= p.columns) return;
    for (int other = 1; other < warps; ++other) sum += parts[other * 32 + lane];
    p.sums[block_x() * p.sums_stride + column] = sum;
}

// A warp for each row of a projection.
DTWIN_KERNEL(dtwin_row_sums, RowSumsParams, 32, 1) {
    const float* row = p.projection + block_y() * p.projection_stride + int64_t(block_x()) * p.T;
    float sum = 0.0f;
    for (int t = thread_index(); t < p.T; t += 32) sum += row[t];
    DTWIN_UNROLL
    for (int mask = 1; mask < 32; mask *= 2) sum += shuffle_xor(sum, mask);
    if (thread_index() == 0) p.sums[block_y() * p.K + block_x()] = sum;
}

// Weights rounded to bfloat16, dense.
DTWIN_KERNEL(dtwin_round, RoundParams, kThreads, 1) {
    for (int64_t i = block_y() * thread_count() + thread_index(); i < p.size;
         i += int64_t(p.blocks_y) * thread_count()) {
        p.rounded[block_x() * p.size + i] = BFloat16::rounded(p.weights[block_x() * p.stride + i]);
    }
}

}  // namespace dtwin::gpu
