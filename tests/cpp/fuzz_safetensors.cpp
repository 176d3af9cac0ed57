// Any bytes are the three tensors that are wanted, or refused.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "fuzz_bytes.h"
#include "model/refusal.h"
#include "model/safetensors.h"

using namespace dtwin::model;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    Tensor a, b, empty;
    const std::vector<Wanted> wanted = {
        {"a", {2, 3}, 24, &a}, {"b", {4}, 16, &b}, {"empty", {0, 5}, 0, &empty}};
    Bytes source(std::string_view(reinterpret_cast<const char*>(data), size));
    try {
        const bool whole = read_safetensors(source, wanted).size() == 64;
        if (!whole || a.size != 6 || b.size != 4 || empty.size != 0) std::abort();
    } catch (const Refusal&) {
    }
    return 0;
}
