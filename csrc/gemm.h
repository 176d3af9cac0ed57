// Matrix product with one order of summation: c[m][n] = start + sum over k of a[m][k] b[k][n], k
// rising.
//
// Each element of c is summed on its own and in that order, whatever the sizes and the blocking,
// so a row of c has the same bits alone, in a batch, or in a batch of another size.
#pragma once

#include <algorithm>
#include <cstdint>

#include "panels.h"
#include "simd/vec.h"

namespace dtwin::DTWIN_ISA {

// Where a product's sums begin and go.
template <class F>
struct Sums {
    const F* start;        // null: begin at zero, and in the end add to what c holds
    int64_t start_stride;  // from row to row; 0 repeats one row
    F* c;
    int64_t c_stride;

    Sums at(int64_t row, int64_t column) const {
        const F* first = start ? start + row * start_stride + column : nullptr;
        return {first, start_stride, c + row * c_stride + column, c_stride};
    }
};

// Sums that begin with a bias (n), or continue what c holds, or are added to it once complete.
template <class F>
Sums<F> from_bias(const F* bias, F* c, int64_t c_stride) {
    return {bias, 0, c, c_stride};
}
template <class F>
Sums<F> onto(F* c, int64_t c_stride) {
    return {c, c_stride, c, c_stride};
}
template <class F>
Sums<F> add_to(F* c, int64_t c_stride) {
    return {nullptr, 0, c, c_stride};
}

// A tile of kRows rows and kVectors vectors, held in registers.
template <int kRows, int kVectors, class F, class W>
inline void tile(int64_t depth, const F* a, int64_t lda, Panels<W> b, Sums<F> to) {
    Vec<F> sum[kRows][kVectors];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 12
        for (int v = 0; v < kVectors; ++v) {
            const int64_t from = r * to.start_stride + v * kLanes<F>;
            sum[r][v] = to.start ? load(to.start + from) : Vec<F>{};
        }
    }
    const W* row = b.data;
    for (int64_t k = 0; k < depth; ++k, row += b.row_stride) {
#pragma GCC unroll 12
        for (int v = 0; v < kVectors; ++v) {
            const W* panel = row + v / kPanelVectors * b.panel_stride;
            const Vec<F> column = load_columns<F>(panel, v % kPanelVectors);
#pragma GCC unroll 8
            for (int r = 0; r < kRows; ++r) {
                sum[r][v] = fma(Vec<F>{} + a[r * lda + k], column, sum[r][v]);
            }
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 12
        for (int v = 0; v < kVectors; ++v) {
            F* c = to.c + r * to.c_stride + v * kLanes<F>;
            store(c, to.start ? sum[r][v] : load(c) + sum[r][v]);
        }
    }
}

// kVectors vectors of columns of all m rows.
template <int kRows, int kVectors, class F, class W>
inline void rows(int64_t m, int64_t depth, const F* a, int64_t lda, Panels<W> b, Sums<F> to) {
    for (; m >= kRows; m -= kRows, a += kRows * lda, to = to.at(kRows, 0)) {
        tile<kRows, kVectors>(depth, a, lda, b, to);
    }
    if constexpr (kRows > 1) {
        if (m) rows<kRows - 1, kVectors>(m, depth, a, lda, b, to);
    }
}

template <int kRows, int kMostVectors, class F, class W>
inline void columns(int vectors, int64_t m, int64_t depth, const F* a, int64_t lda, Panels<W> b,
                    Sums<F> to) {
    if (vectors == kMostVectors) return rows<kRows, kMostVectors>(m, depth, a, lda, b, to);
    if constexpr (kMostVectors > 1) {
        columns<kRows, kMostVectors - 1>(vectors, m, depth, a, lda, b, to);
    }
}

// One row has too few sums in one panel to hide the latency of an addition: take two panels,
// and with them what is left if that is less than a third.
constexpr int kRowVectors = 3 * kPanelVectors - 1;

// c (m x n) = start + a (m x depth, rows lda apart) @ b. Nothing of c beyond n is touched.
template <class F, class W>
void gemm(int64_t m, int64_t n, int64_t depth, const F* a, int64_t lda, Panels<W> b, Sums<F> to) {
    const int64_t ragged = n % kLanes<F> ? n % kPanel<F> : 0;  // columns of a panel cut in a vector
    const int64_t whole = (n - ragged) / kLanes<F>;
    for (int64_t done = 0; done < whole;) {
        const Panels<W> right = b.from_panel(done / kPanelVectors);
        const Sums<F> part = to.at(0, done * kLanes<F>);
        const int64_t left = whole - done;
        int vectors = 0;
        if (m == 1) {
            vectors = static_cast<int>(left <= kRowVectors ? left : 2 * kPanelVectors);
            columns<1, kRowVectors>(vectors, m, depth, a, lda, right, part);
        } else {
            vectors = static_cast<int>(std::min<int64_t>(left, kPanelVectors));
            columns<kTileRows, kPanelVectors>(vectors, m, depth, a, lda, right, part);
        }
        done += vectors;
    }
    if (!ragged) return;

    // Through a copy whose rows are whole vectors.
    const Panels<W> right = b.from_panel(n / kPanel<F>);
    const int vectors = static_cast<int>((ragged + kLanes<F> - 1) / kLanes<F>);
    F copy[kTileRows * kPanel<F>] = {};
    for (int64_t i = 0; i < m; i += kTileRows) {
        const int64_t count = std::min<int64_t>(m - i, kTileRows);
        const Sums<F> part = to.at(i, n - ragged);
        const F* begin = part.start ? part.start : part.c;
        const int64_t stride = part.start ? part.start_stride : part.c_stride;
        for (int64_t r = 0; r < count; ++r) {
            std::copy_n(begin + r * stride, ragged, copy + r * kPanel<F>);
        }
        const Sums<F> sums = part.start ? onto<F>(copy, kPanel<F>) : add_to<F>(copy, kPanel<F>);
        columns<kTileRows, kPanelVectors>(vectors, count, depth, a + i * lda, lda, right, sums);
        for (int64_t r = 0; r < count; ++r) {
            std::copy_n(copy + r * kPanel<F>, ragged, part.c + r * part.c_stride);
        }
    }
}

constexpr int64_t kLeftRows = 96;          // of a block of a^T; whole tiles for 3 and 6 rows
constexpr int64_t kLeftDepth = 128;        // a panel of b of this depth stays in L1
constexpr int64_t kLeftStride = 128 + 16;  // not a power of two, which would share cache sets

// c (m x n, rows ldc apart) += a^T @ b with a (depth x m, rows lda apart). Stretches of at most
// kLeftDepth are summed on their own first, which rounds less than one long sum. `block` holds
// kLeftRows x kLeftStride elements.
template <class F>
void gemm_transposed(int64_t m, int64_t n, int64_t depth, const F* a, int64_t lda, Panels<F> b,
                     F* c, int64_t ldc, F* block) {
    for (int64_t k = 0; k < depth; k += kLeftDepth, b.data += kLeftDepth * b.row_stride) {
        const int64_t some = std::min(depth - k, kLeftDepth);
        for (int64_t i = 0; i < m; i += kLeftRows) {
            const int64_t rows = std::min(m - i, kLeftRows);
            for (int64_t q = 0; q < some; ++q) {
                const F* from = a + (k + q) * lda + i;
                for (int64_t r = 0; r < rows; ++r) block[r * kLeftStride + q] = from[r];
            }
            gemm(rows, n, some, block, kLeftStride, b, add_to(c + i * ldc, ldc));
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

}  // namespace dtwin::DTWIN_ISA
