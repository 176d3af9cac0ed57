#include "simd/isa.h"

#include <cstdlib>
#include <cstring>

namespace dtwin {

extern const Isa kBaseline;
#if defined(DTWIN_X86_64_LEVELS)
extern const Isa kAvx2;
extern const Isa kAvx512;
#endif

namespace {

struct Usable {
    const Isa* isas[3];
    int count = 0;

    Usable() {
        add(kBaseline, true);
#if defined(DTWIN_X86_64_LEVELS)
        __builtin_cpu_init();
        add(kAvx2, __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"));
        add(kAvx512, __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw"));
#endif
    }

    void add(const Isa& isa, bool can_run) {
        if (can_run) isas[count++] = &isa;
    }
};

const Usable& usable() {
    static const Usable found;
    return found;
}

const Isa* choose() {
    const Usable& found = usable();
    const char* forced = std::getenv("DTWIN_ISA");
    if (!forced || !*forced) return found.isas[found.count - 1];
    for (int i = 0; i < found.count; ++i) {
        if (std::strcmp(found.isas[i]->name, forced) == 0) return found.isas[i];
    }
    return nullptr;
}

}  // namespace

const Isa* active_isa() {
    static const Isa* const chosen = choose();
    return chosen;
}

const Isa* const* usable_isas(int* count) {
    *count = usable().count;
    return usable().isas;
}

}  // namespace dtwin
