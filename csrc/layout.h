// Where the parts of a thread's workspace lie, in elements from its start.
#pragma once

#include <cstddef>
#include <cstdint>

#include "simd/vec.h"

namespace dtwin::DTWIN_ISA {

constexpr int64_t kMaxSequences = 48;  // of a block; whole tiles for 3 and 6 rows

template <class F>
class Layout {
  public:
    bool bytes(size_t* total) const {
        return !overflow_ && !__builtin_mul_overflow(end_, static_cast<int64_t>(sizeof(F)), total);
    }

  protected:
    int64_t multiply(int64_t a, int64_t b) {
        int64_t product = 0;
        overflow_ |= __builtin_mul_overflow(a, b, &product);
        return overflow_ ? 0 : product;
    }

    // Room for `rows` x `columns` elements, from a cache line's start on.
    int64_t take(int64_t rows, int64_t columns) {
        const int64_t start = end_;
        const int64_t line = kAlignment / sizeof(F);
        overflow_ |= __builtin_add_overflow(end_, multiply(rows, columns), &end_);
        overflow_ |= __builtin_add_overflow(end_, line, &end_);
        end_ -= end_ % line;
        return start;
    }

  private:
    static constexpr size_t kAlignment = 64;
    int64_t end_ = 0;
    bool overflow_ = false;
};

}  // namespace dtwin::DTWIN_ISA
