#include "queue.h"

#include <limits>

namespace dtwin::gpu {
namespace {

int as_int(int64_t n) {
    if (n > std::numeric_limits<int>::max()) {
        throw Unsupported(
            "a product of " + std::to_string(n) +
            " rows is more than cuBLAS takes. Give fewer sequences or steps at a time");
    }
    return static_cast<int>(n);
}

}  // namespace

void Queue::launch(const std::string& kernel, const Grid& grid, void** arguments) {
    CUlaunchAttribute attribute{};
    attribute.id = CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
    attribute.value.clusterDim = {static_cast<unsigned>(grid.cluster), 1, 1};
    CUlaunchConfig config{};
    config.gridDimX = static_cast<unsigned>(grid.x);
    config.gridDimY = static_cast<unsigned>(grid.y);
    config.gridDimZ = 1;
    config.blockDimX = grid.threads;
    config.blockDimY = config.blockDimZ = 1;
    config.sharedMemBytes = grid.shared;
    config.hStream = stream_;
    config.attrs = &attribute;
    config.numAttrs = grid.cluster > 1 ? 1 : 0;
    check(driver().cuLaunchKernelEx(&config, device_.function(kernel), arguments, nullptr),
          kernel.c_str());
}

// cuBLAS's matrices are column-major: it is asked for C^T = B^T A^T.
void Queue::multiply(int64_t M, int64_t N, int64_t K, const Matrix& a, const Matrix& b, float keep,
                     float* c, int64_t c_row, int64_t c_subject, int64_t count) {
    const float one = 1.0f;
    check_blas(blas().sgemm_strided_batched(blas_, b.transposed ? kTransposed : kAsItIs,
                                            a.transposed ? kTransposed : kAsItIs, as_int(N),
                                            as_int(M), as_int(K), &one, b.data, as_int(b.row),
                                            b.subject, a.data, as_int(a.row), a.subject, &keep, c,
                                            as_int(c_row), c_subject, as_int(count)),
               "a product");
}

void Queue::copy(float* to, const float* from, int64_t count) {
    check(driver().cuMemcpyDtoDAsync(address(to), address(from), count * sizeof(float), stream_),
          "a copy");
}

void Queue::clear(float* to, int64_t count) {
    check(driver().cuMemsetD8Async(address(to), 0, count * sizeof(float), stream_),
          "clearing memory");
}

}  // namespace dtwin::gpu
