// Whether the arrays of one call fit into the address space and lie apart.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>

namespace dtwin {

// One axis of an array: packed ones lie densely around what is inside them.
struct Axis {
    int64_t size;
    int64_t stride;
};
constexpr int64_t kPacked = -1;

// The arrays of one call: whether each fits into the address space, and whether a result shares
// memory with another array.
class Arrays {
  public:
    explicit Arrays(size_t item_bytes) : item_bytes_(item_bytes) {}

    // Axes come from the outermost to the innermost; their sizes are >= 0. `data` may be null.
    void read(const void* data, std::initializer_list<Axis> axes) {
        add(data, axes, item_bytes_, false);
    }
    void write(const void* data, std::initializer_list<Axis> axes) {
        add(data, axes, item_bytes_, true);
    }
    void write_bytes(const void* data, int64_t size) { add(data, {{size, kPacked}}, 1, true); }

    bool fit() const { return fit_; }

    // Strided arrays count from their first element to their last, gaps included.
    bool overlap() const {
        for (int i = 0; i < count_; ++i) {
            for (int j = 0; j < i; ++j) {
                const bool apart =
                    spans_[i].end <= spans_[j].begin || spans_[j].end <= spans_[i].begin;
                if (!apart && (spans_[i].written || spans_[j].written)) return true;
            }
        }
        return false;
    }

  private:
    struct Span {
        uintptr_t begin, end;
        bool written;
    };

    void add(const void* data, std::initializer_list<Axis> axes, size_t item_bytes, bool written) {
        int64_t elements = 1, bytes = 0;
        for (const Axis* axis = axes.end(); axis != axes.begin();) {
            --axis;
            int64_t gap = 0;
            const bool overflow = axis->stride == kPacked
                                      ? __builtin_mul_overflow(elements, axis->size, &elements)
                                      : __builtin_mul_overflow(std::max<int64_t>(axis->size - 1, 0),
                                                               axis->stride, &gap) ||
                                            __builtin_add_overflow(elements, gap, &elements);
            if (overflow) {
                fit_ = false;
                return;
            }
        }
        const auto begin = reinterpret_cast<uintptr_t>(data);
        uintptr_t end = 0;
        if (__builtin_mul_overflow(elements, static_cast<int64_t>(item_bytes), &bytes) ||
            __builtin_add_overflow(begin, bytes, &end)) {
            fit_ = false;
        } else if (data) {
            spans_[count_++] = {begin, end, written};
        }
    }

    static constexpr int kMost = 24;  // the gradients of an LSTM: 15 read, 9 written
    Span spans_[kMost];
    int count_ = 0;
    const size_t item_bytes_;
    bool fit_ = true;
};

}  // namespace dtwin
