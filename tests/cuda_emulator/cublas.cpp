// The functions of cuBLAS that the engine calls, over the emulated devices' memory. Products are
// summed in double and rounded once.
#include <cstddef>
#include <vector>

#include "call.h"
#include "fail.h"
#include "memory.h"

using namespace dtwin::emulator;

namespace {

constexpr int kSuccess = 0, kNotInitialised = 1, kInvalidValue = 7;
constexpr int kNormal = 0, kTransposed = 1, kConjugated = 2;

struct Handle {
    void* stream;
};

// A column-major matrix (rows, columns) of the batch, or its transpose.
struct Operand {
    const float* data;
    size_t stride;
    int leading;
    bool transposed;

    float at(int batch, int row, int column) const {
        const size_t r = transposed ? column : row, c = transposed ? row : column;
        return data[batch * stride + c * leading + r];
    }
};

// Ends the process unless the batch of stored (rows, columns) lies in one allocation.
void check(const char* name, const float* data, int rows, int columns, int leading, size_t stride,
           int batches) {
    const size_t floats = (batches - 1) * stride + (columns - 1) * size_t{1} * leading + rows;
    if (!on_device(current_device(), reinterpret_cast<uintptr_t>(data), floats * sizeof(float)))
        fail(
            "cublasSgemmStridedBatched: %s (%d x %d, leading %d, %d times a stride of %zu) is not "
            "in device memory",
            name, rows, columns, leading, batches, stride);
}

}  // namespace

DTWIN_EMULATED int cublasCreate_v2(void** handle) {
    const Call call(__func__);
    if (!handle) return kInvalidValue;
    if (current_device() < 0) return kNotInitialised;
    *handle = new Handle{};
    return kSuccess;
}

DTWIN_EMULATED int cublasDestroy_v2(void* handle) {
    const Call call(__func__);
    if (!handle) return kNotInitialised;
    delete static_cast<Handle*>(handle);
    return kSuccess;
}

DTWIN_EMULATED int cublasSetStream_v2(void* handle, void* stream) {
    const Call call(__func__);
    if (!handle) return kNotInitialised;
    static_cast<Handle*>(handle)->stream = stream;
    return kSuccess;
}

DTWIN_EMULATED int cublasSetWorkspace_v2(void* handle, void* workspace, size_t bytes) {
    const Call call(__func__);
    if (!handle) return kNotInitialised;
    const auto start = reinterpret_cast<uintptr_t>(workspace);
    return start % 256 || (bytes && !on_device(current_device(), start, bytes)) ? kInvalidValue
                                                                                : kSuccess;
}

DTWIN_EMULATED int cublasSetMathMode(void* handle, int mode) {
    const Call call(__func__);
    constexpr int kDefault = 0, kPedantic = 2;
    if (!handle) return kNotInitialised;
    if (mode != kDefault && mode != kPedantic) fail("cuBLAS math mode %d is not emulated", mode);
    return kSuccess;
}

DTWIN_EMULATED int cublasGetVersion_v2(void* handle, int* version) {
    const Call call(__func__);
    if (!handle) return kNotInitialised;
    *version = 130000;
    return kSuccess;
}

DTWIN_EMULATED const char* cublasGetStatusString(int status) {
    const Call call(__func__);
    switch (status) {
        case kSuccess:
            return "the operation completed successfully";
        case kNotInitialised:
            return "the library was not initialized";
        case kInvalidValue:
            return "an unsupported value or parameter was passed to the function";
        default:
            return "an unknown status";
    }
}

// C = alpha * op(A) op(B) + beta * C, where op(A) is m x k, op(B) k x n.
DTWIN_EMULATED int cublasSgemmStridedBatched(void* handle, int transa, int transb, int m, int n,
                                             int k, const float* alpha, const float* a, int lda,
                                             long long stride_a, const float* b, int ldb,
                                             long long stride_b, const float* beta, float* c,
                                             int ldc, long long stride_c, int batches) {
    const Call call(__func__);
    if (!handle || current_device() < 0) return kNotInitialised;
    for (const int operation : {transa, transb})
        if (operation != kNormal && operation != kTransposed && operation != kConjugated)
            return kInvalidValue;
    const bool ta = transa != kNormal, tb = transb != kNormal;
    const int a_rows = ta ? k : m, b_rows = tb ? n : k;
    const auto at_least = [](int leading, int rows) { return leading >= (rows > 1 ? rows : 1); };
    if (m < 0 || n < 0 || k < 0 || batches < 0 || !alpha || !beta || !at_least(lda, a_rows) ||
        !at_least(ldb, b_rows) || !at_least(ldc, m))
        return kInvalidValue;
    if (m == 0 || n == 0 || batches == 0) return kSuccess;
    if (stride_a < 0 || stride_b < 0 || stride_c < 0) fail("negative strides are not emulated");
    const bool multiplies = k > 0 && *alpha != 0;  // else A and B are not read
    if (multiplies) {
        check("A", a, a_rows, ta ? m : k, lda, stride_a, batches);
        check("B", b, b_rows, tb ? k : n, ldb, stride_b, batches);
    }
    check("C", c, m, n, ldc, stride_c, batches);
    // cuBLAS writes the products of a batch at once.
    if (batches > 1 && static_cast<size_t>(stride_c) < size_t{1} * ldc * (n - 1) + m)
        fail("cublasSgemmStridedBatched: the results of a batch overlap");

    const Access access(current_device());
    const Operand left = {a, static_cast<size_t>(stride_a), lda, ta};
    const Operand right = {b, static_cast<size_t>(stride_b), ldb, tb};
    std::vector<double> columns(size_t{1} * m * k), sums(m);
    for (int batch = 0; batch < batches; ++batch) {
        for (int l = 0; multiplies && l < k; ++l)
            for (int i = 0; i < m; ++i) columns[size_t{1} * l * m + i] = left.at(batch, i, l);
        for (int j = 0; j < n; ++j) {
            sums.assign(m, 0.0);
            for (int l = 0; multiplies && l < k; ++l) {
                const double factor = right.at(batch, l, j);
                const double* column = columns.data() + size_t{1} * l * m;
                for (int i = 0; i < m; ++i) sums[i] += column[i] * factor;
            }
            float* to = c + batch * static_cast<size_t>(stride_c) + size_t{1} * j * ldc;
            for (int i = 0; i < m; ++i) {
                const double kept = *beta == 0 ? 0.0 : double{*beta} * to[i];
                to[i] = static_cast<float>(*alpha * sums[i] + kept);
            }
        }
    }
    return kSuccess;
}
