// A thread's workspace, handed out in parts.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>

namespace dtwin::DTWIN_ISA {

// a * b of what is not negative, or the largest number.
inline int64_t times(int64_t a, int64_t b) {
    int64_t product = 0;
    return __builtin_mul_overflow(a, b, &product) ? std::numeric_limits<int64_t>::max() : product;
}

// Without a start it only counts what is taken, and the parts are not there.
class Workspace {
  public:
    explicit Workspace(void* start = nullptr) : start_(reinterpret_cast<uintptr_t>(start)) {}

    // Room for `rows` x `columns` elements, from a cache line's start on.
    template <class T>
    T* take(int64_t rows, int64_t columns) {
        const auto part = reinterpret_cast<T*>(start_ + static_cast<uintptr_t>(bytes_));
        const int64_t bytes = times(times(rows, columns), sizeof(T));
        overflow_ |= __builtin_add_overflow(bytes_, bytes, &bytes_);
        overflow_ |= __builtin_add_overflow(bytes_, kLine, &bytes_);
        bytes_ -= bytes_ % kLine;
        return part;
    }

    bool bytes(size_t* taken) const {
        *taken = static_cast<size_t>(bytes_);
        return !overflow_;
    }

  private:
    static constexpr int64_t kLine = 64;
    uintptr_t start_;
    int64_t bytes_ = 0;
    bool overflow_ = false;
};

}  // namespace dtwin::DTWIN_ISA
