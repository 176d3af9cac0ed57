// Work that is put onto a stream: kernels, products, copies.
#pragma once

#include <cstdint>
#include <string>

#include "driver.h"

namespace dtwin::gpu {

// A row-major matrix for each of some subjects: elements from one row and one subject to the next.
struct Matrix {
    const float* data;
    int64_t row;
    int64_t subject;
    bool transposed = false;
};
inline Matrix transposed(Matrix m) {
    m.transposed = !m.transposed;
    return m;
}

class Queue {
  public:
    Queue(Device& device, CUstream stream) : device_(device), stream_(stream) {}

    void use_blas(void* workspace, size_t bytes) {
        blas_ = device_.blas_handle(stream_, workspace, bytes);
    }

    struct Grid {
        int64_t x, y;
        int threads, shared, cluster;
    };
    template <class Params>
    void launch(const std::string& kernel, const Grid& grid, const Params& params) {
        void* arguments[] = {const_cast<Params*>(&params)};
        launch(kernel, grid, arguments);
    }

    // C [M, N] = A [M, K] B [K, N] + keep * C for each of `count` subjects.
    void multiply(int64_t M, int64_t N, int64_t K, const Matrix& a, const Matrix& b, float keep,
                  float* c, int64_t c_row, int64_t c_subject, int64_t count);

    void copy(float* to, const float* from, int64_t count);
    void clear(float* to, int64_t count);

  private:
    void launch(const std::string& kernel, const Grid& grid, void** arguments);

    Device& device_;
    const CUstream stream_;
    BlasHandle blas_ = nullptr;
};

inline CUdeviceptr address(const void* pointer) { return reinterpret_cast<CUdeviceptr>(pointer); }

}  // namespace dtwin::gpu
