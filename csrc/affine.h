// An affine layer and its way back: products with a weight matrix that is read once from memory.
//
// The weights are packed stretch by stretch into cache, where all rows of a block meet them. Each
// element is the bias, then the sum of each stretch of the depth in its order: a row has the same
// bits alone, in a batch, and wherever in it. (A BLAS promises neither.)
#pragma once

#include <algorithm>
#include <cstdint>

#include "dtwin.h"
#include "gemm.h"
#include "panels.h"
#include "rollout.h"
#include "simd/vec.h"
#include "workspace.h"

namespace dtwin::DTWIN_ISA {

class Affine {
  public:
    Affine(const dtwin_affine_params& params, Workspace& workspace)
        : p_(params), packed_(workspace.take<float>(kStretch, kAffineColumns)) {}

    // y[rows, columns from `column` on] = bias + x w^T.
    void forward(int64_t first, int64_t last, int64_t column) {
        const int64_t K = p_.n_in, N = p_.n_out;
        const int64_t n = std::min(kAffineColumns, N - column);
        const float* w = p_.weight + column * K;
        for (int64_t row = first; row < last; ++row) {
            std::copy_n(p_.bias + column, n, p_.y + row * N + column);
        }
        for (int64_t k = 0; k < K; k += kStretch) {
            const int64_t depth = std::min(kStretch, K - k);
            const auto panels = pack<false>(w + k, 1, n, depth, packed_, K);
            prefetch(w + k + depth, n, std::min(kStretch, K - k - depth), K);
            gemm(last - first, n, depth, p_.x + first * K + k, K, panels,
                 add_to(p_.y + first * N + column, N));
        }
    }

    // y[rows, columns from `column` on] = x w.
    void back(int64_t first, int64_t last, int64_t column) {
        const int64_t K = p_.n_in, N = p_.n_out;
        const int64_t n = std::min(kAffineColumns, K - column);
        const float* w = p_.weight + column;
        for (int64_t row = first; row < last; ++row) {
            std::fill_n(p_.y + row * K + column, n, 0.0f);
        }
        for (int64_t k = 0; k < N; k += kStretch) {
            const int64_t depth = std::min(kStretch, N - k);
            const auto panels = pack_untransposed(w + k * K, depth, n, packed_, K);
            prefetch(w + (k + depth) * K, std::min(kStretch, N - k - depth), n, K);
            gemm(last - first, n, depth, p_.x + first * N + k, N, panels,
                 add_to(p_.y + first * K + column, K));
        }
    }

  private:
    static constexpr int64_t kStretch = kLeftDepth;

    // Rows of the stretch that comes next, on their way while this one is multiplied: each lies in
    // a page of its own, where the processor sees no stream to follow.
    static void prefetch(const float* from, int64_t rows, int64_t columns, int64_t stride) {
        for (int64_t i = 0; i < rows; ++i, from += stride) {
            for (int64_t j = 0; j < columns; j += 16) __builtin_prefetch(from + j, 0, 2);
        }
    }

    const dtwin_affine_params& p_;
    float* const packed_;
};

}  // namespace dtwin::DTWIN_ISA
