// The right factor of a matrix product, packed into panels of columns.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <utility>

#include "simd/bfloat16.h"
#include "simd/vec.h"

namespace dtwin::DTWIN_ISA {

constexpr int kPanelVectors = 4;

template <class F>
constexpr int64_t kPanel = kPanelVectors * kLanes<F>;  // columns

constexpr int64_t round_up(int64_t n, int64_t multiple) {
    return (n + multiple - 1) / multiple * multiple;
}

// Panels `panel_stride` apart, their rows `row_stride` apart, all kept as W. Columns are padded
// to whole vectors.
template <class W>
struct Panels {
    const W* data;
    int64_t row_stride;
    int64_t panel_stride;

    Panels from_panel(int64_t panel) const {
        return {data + panel * panel_stride, row_stride, panel_stride};
    }
    Panels from_row(int64_t row) const {
        return {data + row * row_stride, row_stride, panel_stride};
    }
};

// Vector v of a panel's row.
template <class F>
inline Vec<F> load_columns(const F* row, int v) {
    return load(row + v * kLanes<F>);
}

// bfloat16 lies in pairs of vectors, v even in the lower halves of the lanes and v + 1 in the
// upper, so that one shift or one mask widens a vector.
template <class F>
inline Vec<F> load_columns(const BFloat16* row, int v) {
    typename Lanes<F>::Bits pair;
    std::memcpy(&pair, row + v / 2 * 2 * kLanes<F>, sizeof pair);
    return (Vec<F>)(v % 2 ? pair & 0xffff0000u : pair << 16);
}

template <class F>
using PanelRow = Vec<F>[kPanelVectors];

template <class F>
inline void store_row(F* to, const PanelRow<F>& row) {
    for (int v = 0; v < kPanelVectors; ++v) store(to + v * kLanes<F>, row[v]);
}

inline void store_row(BFloat16* to, const PanelRow<float>& row) {
    using Bits = typename Lanes<float>::Bits;
    for (int v = 0; v < kPanelVectors; v += 2, to += 2 * kLanes<float>) {
        const Bits even = (Bits)as_kept<BFloat16, float>(row[v]);
        const Bits odd = (Bits)as_kept<BFloat16, float>(row[v + 1]);
        const Bits pair = even >> 16 | odd;
        std::memcpy(to, &pair, sizeof pair);
    }
}

// Elements that pack() writes for each row.
template <class F>
constexpr int64_t packed_columns(int64_t columns) {
    return round_up(columns, kPanel<F>);
}

// Turn w ([depth, columns], rows `stride` apart) into the right factor w, its columns padded with
// zeros.
template <class F, class W>
Panels<W> pack_untransposed(const F* w, int64_t depth, int64_t columns, W* packed, int64_t stride) {
    const int64_t panel_stride = depth * kPanel<F>;
    for (int64_t j = 0; j < columns; j += kPanel<F>) {
        W* to = packed + j / kPanel<F> * panel_stride;
        for (int64_t k = 0; k < depth; ++k, to += kPanel<F>) {
            PanelRow<F> row;
            for (int v = 0; v < kPanelVectors; ++v) {
                const int64_t first = j + v * kLanes<F>;
                row[v] = load_some(w + k * stride + first, columns - first);
            }
            store_row(to, row);
        }
    }
    return {packed, kPanel<F>, panel_stride};
}
template <class F, class W>
Panels<W> pack_untransposed(const F* w, int64_t depth, int64_t columns, W* packed) {
    return pack_untransposed(w, depth, columns, packed, columns);
}

// Lanes of two rows: where bit kStep of the lane is 0, from a; where it is 1, from b's lane
// kStep lower. With kUpper, from the lanes that were left over.
template <int kStep, bool kUpper, class F, size_t... kLane>
inline Vec<F> exchange(Vec<F> a, Vec<F> b, std::index_sequence<kLane...>) {
    constexpr int n = kLanes<F>, up = kUpper ? kStep : 0;
    return __builtin_shufflevector(
        a, b, (kLane & kStep ? n + static_cast<int>(kLane) - kStep + up : kLane + up)...);
}

// A square of kLanes rows, by exchanging ever larger blocks off its diagonal (Eklundh 1972).
template <class F, int kStep = 1>
inline void transpose(Vec<F>* rows) {
    constexpr std::make_index_sequence<kLanes<F>> lanes{};
    for (int i = 0; i < kLanes<F>; ++i) {
        if (i & kStep) continue;
        const Vec<F> a = rows[i], b = rows[i + kStep];
        rows[i] = exchange<kStep, false, F>(a, b, lanes);
        rows[i + kStep] = exchange<kStep, true, F>(a, b, lanes);
    }
    if constexpr (2 * kStep < kLanes<F>) transpose<F, 2 * kStep>(rows);
}

// Turn w ([groups * rows, depth], as torch keeps it, rows `stride` apart) into the right factor
// w^T, each group's columns padded with zeros to whole vectors. kAhead: the rows are one piece.
template <bool kAhead, class F, class W>
Panels<W> pack(const F* w, int64_t groups, int64_t rows, int64_t depth, W* packed, int64_t stride) {
    constexpr int n = kLanes<F>;
    const int64_t padded_rows = round_up(rows, n);
    const int64_t panel_stride = depth * kPanel<F>;
    for (int64_t j = 0; j < groups * padded_rows; j += kPanel<F>) {
        W* to = packed + j / kPanel<F> * panel_stride;
        // The next panel is fetched in order while this one is read across. Only an address, it may
        // lie behind the end.
        uintptr_t ahead = reinterpret_cast<uintptr_t>(w) + (j + kPanel<F>)*depth * sizeof(F);
        for (int64_t k = 0; k < depth; k += n) {
            Vec<F> squares[kPanelVectors][n];
            for (int v = 0; v < kPanelVectors; ++v) {
                const int64_t column = j + v * n;
                const int64_t group = column / padded_rows, row = column % padded_rows;
                const int64_t some = group < groups ? std::min<int64_t>(rows - row, n) : 0;
                const F* from = w + (group * rows + row) * stride + k;
                for (int i = 0; i < n; ++i, ahead += sizeof(Vec<F>)) {
                    if (kAhead) __builtin_prefetch(reinterpret_cast<const void*>(ahead));
                    squares[v][i] = i < some ? load_some(from + i * stride, depth - k) : Vec<F>{};
                }
                transpose<F>(squares[v]);
            }
            for (int i = 0; i < std::min<int64_t>(n, depth - k); ++i, to += kPanel<F>) {
                PanelRow<F> row;
                for (int v = 0; v < kPanelVectors; ++v) row[v] = squares[v][i];
                store_row(to, row);
            }
        }
    }
    return {packed, kPanel<F>, panel_stride};
}
template <class F, class W>
Panels<W> pack(const F* w, int64_t groups, int64_t rows, int64_t depth, W* packed) {
    return pack<true>(w, groups, rows, depth, packed, depth);
}

// A bias of `groups` gates of `rows` units as W would keep it, each gate padded with zeros to
// whole vectors.
template <class W, class F>
void pad_bias(const F* bias, int64_t groups, int64_t rows, F* padded) {
    for (int64_t g = 0; g < groups; ++g, bias += rows) {
        for (int64_t j = 0; j < rows; j += kLanes<F>, padded += kLanes<F>) {
            store(padded, as_kept<W, F>(load_some(bias + j, rows - j)));
        }
    }
}

}  // namespace dtwin::DTWIN_ISA
