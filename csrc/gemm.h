// Matrix product with one order of summation: c[m][n] += sum over k of a[m][k] b[k][n], k rising.
//
// Each element of c is summed on its own and in that order, whatever the sizes and the blocking,
// so a row of c has the same bits alone, in a batch, or in a batch of another size.
#pragma once

#include <algorithm>
#include <cstdint>

#include "simd/vec.h"

namespace dtwin::DTWIN_ISA {

constexpr int kPanelVectors = 4;

template <class F>
constexpr int64_t kPanel = kPanelVectors * kLanes<F>;

inline int64_t round_up(int64_t n, int64_t multiple) {
    return (n + multiple - 1) / multiple * multiple;
}

// The right factor: panels of kPanel columns, `panel_stride` apart, rows `row_stride` apart.
// Columns are padded to whole vectors.
template <class F>
struct Panels {
    const F* data;
    int64_t row_stride;
    int64_t panel_stride;
};

// A tile of c: kRows rows, kGroups panels of kVectors vectors each, held in registers.
template <int kRows, int kGroups, int kVectors, class F>
inline void tile(int64_t depth, const F* a, int64_t lda, const F* b, int64_t row_stride,
                 int64_t panel_stride, F* c, int64_t ldc) {
    Vec<F> sum[kRows][kGroups][kVectors];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
        for (int g = 0; g < kGroups; ++g) {
#pragma GCC unroll 4
            for (int v = 0; v < kVectors; ++v) {
                sum[r][g][v] = load(c + r * ldc + g * kPanel<F> + v * kLanes<F>);
            }
        }
    }
    for (int64_t k = 0; k < depth; ++k, b += row_stride) {
#pragma GCC unroll 2
        for (int g = 0; g < kGroups; ++g) {
#pragma GCC unroll 4
            for (int v = 0; v < kVectors; ++v) {
                const Vec<F> column = load(b + g * panel_stride + v * kLanes<F>);
#pragma GCC unroll 8
                for (int r = 0; r < kRows; ++r) {
                    sum[r][g][v] = fma(Vec<F>{} + a[r * lda + k], column, sum[r][g][v]);
                }
            }
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
        for (int g = 0; g < kGroups; ++g) {
#pragma GCC unroll 4
            for (int v = 0; v < kVectors; ++v) {
                store(c + r * ldc + g * kPanel<F> + v * kLanes<F>, sum[r][g][v]);
            }
        }
    }
}

// One panel of kVectors vectors against all m rows.
template <int kRows, int kVectors, class F>
inline void panel_rows(int64_t m, int64_t depth, const F* a, int64_t lda, const F* b,
                       int64_t row_stride, F* c, int64_t ldc) {
    for (; m >= kRows; m -= kRows, a += kRows * lda, c += kRows * ldc) {
        tile<kRows, 1, kVectors>(depth, a, lda, b, row_stride, 0, c, ldc);
    }
    if constexpr (kRows > 1) {
        if (m) panel_rows<kRows - 1, kVectors>(m, depth, a, lda, b, row_stride, c, ldc);
    }
}

template <class F>
inline void panel(int vectors, int64_t m, int64_t depth, const F* a, int64_t lda, const F* b,
                  int64_t row_stride, F* c, int64_t ldc) {
    switch (vectors) {
        case 1:
            return panel_rows<kTileRows, 1>(m, depth, a, lda, b, row_stride, c, ldc);
        case 2:
            return panel_rows<kTileRows, 2>(m, depth, a, lda, b, row_stride, c, ldc);
        case 3:
            return panel_rows<kTileRows, 3>(m, depth, a, lda, b, row_stride, c, ldc);
        default:
            return panel_rows<kTileRows, 4>(m, depth, a, lda, b, row_stride, c, ldc);
    }
}

// c (m x n, rows ldc apart) += a (m x depth, rows lda apart) @ b. Nothing of c beyond n is touched.
template <class F>
void gemm(int64_t m, int64_t n, int64_t depth, const F* a, int64_t lda, Panels<F> b, F* c,
          int64_t ldc) {
    const F* right = b.data;
    int64_t j = 0;
    if (m == 1) {
        // One row has too few sums in one panel to hide the latency of an addition.
        for (; n - j >= 2 * kPanel<F>; j += 2 * kPanel<F>, right += 2 * b.panel_stride) {
            tile<1, 2, kPanelVectors>(depth, a, lda, right, b.row_stride, b.panel_stride, c + j,
                                      ldc);
        }
    }
    for (; j < n; j += kPanel<F>, right += b.panel_stride) {
        const int64_t columns = std::min(n - j, kPanel<F>);
        const int vectors = static_cast<int>((columns + kLanes<F> - 1) / kLanes<F>);
        if (columns % kLanes<F> == 0) {
            panel(vectors, m, depth, a, lda, right, b.row_stride, c + j, ldc);
            continue;
        }
        F edge[kTileRows * kPanel<F>] = {};
        for (int64_t i = 0; i < m; i += kTileRows) {
            const int64_t rows = std::min<int64_t>(m - i, kTileRows);
            for (int64_t r = 0; r < rows; ++r) {
                std::copy_n(c + (i + r) * ldc + j, columns, edge + r * kPanel<F>);
            }
            panel(vectors, rows, depth, a + i * lda, lda, right, b.row_stride, edge, kPanel<F>);
            for (int64_t r = 0; r < rows; ++r) {
                std::copy_n(edge + r * kPanel<F>, columns, c + (i + r) * ldc + j);
            }
        }
    }
}

// Elements that pack() writes.
template <class F>
constexpr int64_t packed_columns(int64_t columns) {
    return (columns + kPanel<F> - 1) / kPanel<F> * kPanel<F>;
}

// Turn w ([groups * rows, depth], as torch keeps it) into the right factor w^T, each group's
// columns padded with zeros to `padded_rows`.
template <class F>
Panels<F> pack(const F* w, int64_t groups, int64_t rows, int64_t padded_rows, int64_t depth,
               F* packed) {
    const int64_t panel_stride = depth * kPanel<F>;
    std::fill_n(packed, packed_columns<F>(groups * padded_rows) * depth, F(0));
    for (int64_t g = 0; g < groups; ++g) {
        for (int64_t row = 0; row < rows; ++row, w += depth) {
            const int64_t column = g * padded_rows + row;
            F* to = packed + column / kPanel<F> * panel_stride + column % kPanel<F>;
            for (int64_t k = 0; k < depth; ++k) to[k * kPanel<F>] = w[k];
        }
    }
    return {packed, kPanel<F>, panel_stride};
}

// Turn w ([depth, columns]) into the right factor w, its columns padded with zeros.
template <class F>
Panels<F> pack_untransposed(const F* w, int64_t depth, int64_t columns, F* packed) {
    const int64_t panel_stride = depth * kPanel<F>;
    for (int64_t j = 0; j < columns; j += kPanel<F>) {
        const int64_t width = std::min(columns - j, kPanel<F>);
        F* to = packed + j / kPanel<F> * panel_stride;
        for (int64_t k = 0; k < depth; ++k, to += kPanel<F>) {
            std::fill(std::copy_n(w + k * columns + j, width, to), to + kPanel<F>, F(0));
        }
    }
    return {packed, kPanel<F>, panel_stride};
}

constexpr int64_t kLeftRows = 96;          // of a block of a^T; whole tiles for 3 and 6 rows
constexpr int64_t kLeftDepth = 128;        // a panel of b of this depth stays in L1
constexpr int64_t kLeftStride = 128 + 16;  // not a power of two, which would share cache sets

// c (m x n, rows ldc apart) += a^T @ b with a (depth x m, rows lda apart). Stretches of kLeftDepth
// are summed on their own first, which rounds less than one long sum. `block` holds
// kLeftRows x kLeftStride elements, `partial` kLeftRows x n with n rounded up to whole vectors.
template <class F>
void gemm_transposed(int64_t m, int64_t n, int64_t depth, const F* a, int64_t lda, Panels<F> b,
                     F* c, int64_t ldc, F* block, F* partial) {
    const int64_t columns = round_up(n, kLanes<F>);
    for (int64_t k = 0; k < depth; k += kLeftDepth, b.data += kLeftDepth * b.row_stride) {
        const int64_t some = std::min(depth - k, kLeftDepth);
        for (int64_t i = 0; i < m; i += kLeftRows) {
            const int64_t rows = std::min(m - i, kLeftRows);
            for (int64_t q = 0; q < some; ++q) {
                const F* from = a + (k + q) * lda + i;
                for (int64_t r = 0; r < rows; ++r) block[r * kLeftStride + q] = from[r];
            }
            std::fill_n(partial, rows * columns, F(0));
            gemm(rows, columns, some, block, kLeftStride, b, partial, columns);
            for (int64_t r = 0; r < rows; ++r) {
                F* to = c + (i + r) * ldc;
                for (int64_t j = 0; j < n; ++j) to[j] += partial[r * columns + j];
            }
        }
    }
}

// c (n) += the sum of the rows of a (depth x n, lda apart), in the same stretches; n elements of
// `partial` are used.
template <class F>
void add_rows(int64_t n, int64_t depth, const F* a, int64_t lda, F* c, F* partial) {
    for (int64_t k = 0; k < depth; k += kLeftDepth) {
        const int64_t end = std::min(depth, k + kLeftDepth);
        std::fill_n(partial, n, F(0));
        for (int64_t q = k; q < end; ++q) {
            for (int64_t j = 0; j < n; ++j) partial[j] += a[q * lda + j];
        }
        for (int64_t j = 0; j < n; ++j) c[j] += partial[j];
    }
}

// A bias of `groups` gates of `rows` units, each gate padded with zeros to `padded_rows`.
template <class F>
void pad_bias(const F* bias, int64_t groups, int64_t rows, int64_t padded_rows, F* padded) {
    for (int64_t g = 0; g < groups; ++g, bias += rows, padded += padded_rows) {
        std::fill(std::copy_n(bias, rows, padded), padded + padded_rows, F(0));
    }
}

}  // namespace dtwin::DTWIN_ISA
