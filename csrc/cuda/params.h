// What the host hands to a kernel. Pointers are the device's, arrays are dense unless a stride says
// otherwise, strides count elements; letters as in dtwin.h. Subjects count from the first of the
// launch.
#pragma once

#include <cstdint>

namespace dtwin::gpu {

// Whether a thread's weights pass through shared memory on their way into registers: where the
// compiler would else keep too much in registers at once.
template <bool kBFloat16, int kFours>
constexpr bool kPassThroughShared = kBFloat16 || kFours > 4;

// How the time loop of some subjects is laid over threads. A block keeps the weights of `units`
// hidden units; the `cluster` blocks of a subject's sequences exchange the vector that all of the
// weights multiply. Offsets are bytes into shared memory.
struct Loop {
    int32_t cluster;    // blocks
    int32_t units;      // hidden units of a block; in the last one some may be beyond H
    int32_t fours;      // fours of columns that a thread takes
    int32_t vector;     // floats of the vector, zeros at its end
    int32_t sequences;  // of a block, at most

    int32_t B, T, I, H;

    const float* w_hh;
    int64_t w_hh_stride;

    int32_t at_vectors;    // [2, sequences, vector]
    int32_t at_mailboxes;  // [2]
    int32_t at_weights;    // [rows of a thread, fours beyond its registers, threads] words
};

struct ForwardParams {
    Loop loop;
    int32_t K;
    int32_t input_fours;  // I in fours, rounded up
    int32_t input_steps;  // steps whose inputs are in shared memory at once

    const float* w_ih;
    const float* b_ih;
    const float* b_hh;
    int64_t w_ih_stride, b_ih_stride, b_hh_stride;
    const float* inputs;  // [T, I] for each subject and sequence
    int64_t inputs_subject_stride, inputs_sequence_stride;
    const float* h0;          // [S, B, H] or null
    const float* c0;          // likewise
    const float* projection;  // [K, T] for each sequence
    int64_t projection_stride;

    float* states;     // [S, B, T, H] or null
    float* kept;       // [S, B, T, Cell kept, H] or null: what the way back needs
    float* projected;  // [S, B, K, H]: projection @ states; null with K = 0
    float* h_final;    // [S, B, H] or null
    float* c_final;    // likewise
    float* peaks;  // [blocks of the grid]: largest magnitude of a state, infinite for NaN; or null

    int32_t at_c;          // [sequences, units]
    int32_t at_w_ih;       // [G, input_fours, units] fours
    int32_t at_biases;     // [G, 2, units]
    int32_t at_inputs;     // [sequences, input_steps, input_fours] fours
    int32_t at_projected;  // [sequences, K, units]
    int32_t at_peaks;      // [warps]
};

struct BackwardParams {
    Loop loop;

    const float* states;     // [S, B, T, H]
    const float* d_states;   // [S, B, T, H]
    const float* h0;         // [S, B, H] or null
    const float* c0;         // likewise
    const float* d_h_final;  // likewise
    const float* d_c_final;  // likewise

    float* kept;  // [S, B, T, Cell kept, H]: forward's; its slots become the gradients of the gates
    float* d_h0;  // [S, B, H]
    float* d_c0;  // likewise, null for cells without c

    int32_t at_d_states;  // [sequences, Cell::kStates, units]
};

// outputs [S, rows, O] = b_out, times the rows' weights where there are any.
struct BiasParams {
    const float* b_out;
    int64_t b_out_stride;
    const float* row_weights;  // [rows] or null
    float* outputs;
    int64_t rows;
    int32_t O;
    int32_t blocks_y;
};

// rounded [S, size] = weights, each rounded to bfloat16.
struct RoundParams {
    const float* weights;
    int64_t stride;
    float* rounded;
    int64_t size;
    int32_t blocks_y;
};

// diverged [S]: 1 where a state or an output is NaN or infinite.
struct DivergedParams {
    const float* peaks;  // [S, peaks_per_subject]
    int32_t peaks_per_subject;
    const float* w_out;
    const float* b_out;
    int64_t w_out_stride, b_out_stride;
    const float* outputs;  // [S, rows, O]
    int64_t rows;
    int32_t H, O;
    int32_t projected;  // whether outputs are sums over time, which no state bounds
    uint8_t* diverged;
};

// sums [S, columns]: of the rows of a matrix [S, rows, row_stride], times their weights.
struct ColumnSumsParams {
    const float* matrix;
    int64_t matrix_stride, row_stride;
    const float* row_weights;  // [rows] or null
    int64_t rows;
    int32_t columns;
    float* sums;
    int64_t sums_stride;
};

// sums [B, K]: of each row of projections [K, T].
struct RowSumsParams {
    const float* projection;
    int64_t projection_stride;
    int32_t K, T;
    float* sums;
};

}  // namespace dtwin::gpu
