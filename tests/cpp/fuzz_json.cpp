// Any bytes are JSON whose values can all be read, or refused with a place.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "model/json.h"

using dtwin::model::Json;
using dtwin::model::Kind;

namespace {

// Values below an item; names and texts are read.
size_t visit(Json::Item item) {
    size_t n = 1;
    if (item.is(Kind::kText)) return n + (item.text().find('\0') == std::string_view::npos);
    if (!item.is(Kind::kArray) && !item.is(Kind::kObject)) return n + (item.number() == 0);
    const bool named = item.is(Kind::kObject);
    Json::Item below = item.first();
    for (uint32_t i = 0; i < item.count(); ++i) {
        if (named) {
            const std::string_view name = below.text();
            below = below.next();
            if (!item.member(name)) std::abort();
        }
        n += visit(below);
        below = below.next();
    }
    return n;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    try {
        const Json document(std::string_view(reinterpret_cast<const char*>(data), size));
        return visit(document.root()) ? 0 : 1;
    } catch (const std::string& error) {
        if (error.find(" at byte ") == std::string::npos) std::abort();
    }
    return 0;
}
