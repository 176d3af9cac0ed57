#include <algorithm>
#include <cstdint>

#include "arrays.h"
#include "dtwin.h"
#include "parallel.h"
#include "rollout.h"
#include "simd/isa.h"

namespace dtwin {
namespace {

constexpr int64_t kMostRows = 384;   // of an item: with them a stretch of x stays in L2
constexpr int64_t kFewestRows = 48;  // fewer do not pay for the packing of the weights

// x [S, columns_in], y [S, columns_out].
int check_affine(const dtwin_affine_params* params, bool back) {
    if (!params) return DTWIN_ERROR_NULL;
    const dtwin_affine_params& p = *params;
    if (p.struct_size != sizeof(dtwin_affine_params)) return DTWIN_ERROR_VERSION;
    if (p.n_threads < 0 || p.n_threads > DTWIN_MAX_THREADS) return DTWIN_ERROR_THREADS;
    if (p.n_rows < 0 || p.n_in < 1 || p.n_out < 1) return DTWIN_ERROR_SIZE;
    const Axis rows{p.n_rows, kPacked}, in{p.n_in, kPacked}, out{p.n_out, kPacked};
    Arrays arrays(sizeof(float));
    arrays.read(p.weight, {out, in});
    if (!back) arrays.read(p.bias, {out});
    arrays.read(p.x, {rows, back ? out : in});
    arrays.write(p.y, {rows, back ? in : out});
    if (!arrays.fit()) return DTWIN_ERROR_OVERFLOW;
    if (p.n_rows == 0) return DTWIN_OK;
    const void* const pointers[] = {p.weight, p.x, p.y, back ? p.x : p.bias};
    for (const void* pointer : pointers) {
        if (!pointer) return DTWIN_ERROR_NULL;
    }
    for (const void* pointer : pointers) {
        if (reinterpret_cast<uintptr_t>(pointer) % sizeof(float)) return DTWIN_ERROR_ALIGNMENT;
    }
    return arrays.overlap() ? DTWIN_ERROR_OVERLAP : DTWIN_OK;
}

int run_affine(const dtwin_affine_params& p, bool back) {
    if (p.n_rows == 0) return DTWIN_OK;
    const Isa* isa = active_isa();
    if (!isa) return DTWIN_ERROR_ISA;

    // An item is some columns of some rows: of all, but where that leaves threads without work.
    const int64_t n_threads = wanted_threads(p.n_threads), S = p.n_rows;
    const int64_t columns = divide_up(back ? p.n_in : p.n_out, kAffineColumns);
    const int64_t parts = std::max(divide_up(S, kMostRows),
                                   std::min(S / kFewestRows, divide_up(2 * n_threads, columns)));
    const auto run = [&](int64_t item, void* workspace) {
        const int64_t part = item % parts, column = item / parts * kAffineColumns;
        (back ? isa->affine_back : isa->affine)(p, part * S / parts, (part + 1) * S / parts, column,
                                                workspace);
    };
    return run_items(columns * parts, n_threads, isa->affine_bytes(p), run);
}

}  // namespace
}  // namespace dtwin

extern "C" {

int dtwin_affine(const dtwin_affine_params* params) {
    const int status = dtwin::check_affine(params, false);
    return status ? status : dtwin::run_affine(*params, false);
}

int dtwin_affine_vjp(const dtwin_affine_params* params) {
    const int status = dtwin::check_affine(params, true);
    return status ? status : dtwin::run_affine(*params, true);
}

}  // extern "C"
