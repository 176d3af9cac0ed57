#include "model/safetensors.h"

#include <algorithm>
#include <optional>

#include "model/json.h"
#include "model/refusal.h"
#include "model/sha256.h"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "safetensors are little-endian, and this reads them as they lie"
#endif

namespace dtwin::model {
namespace {

constexpr int64_t kMostHeaderBytes = 1 << 20;

struct Span {
    int64_t begin, end;
    const Wanted* wanted;
};

// Whether a header's entry is the float32 tensor that is wanted, and where it lies.
bool read_entry(Json::Item entry, const Wanted& wanted, Span* span) {
    const Json::Item dtype = entry.member("dtype"), shape = entry.member("shape"),
                     offsets = entry.member("data_offsets");
    if (!dtype.is(Kind::kText) || dtype.text() != "F32") return false;
    if (!shape.is(Kind::kArray) || shape.count() != wanted.shape.size()) return false;
    Json::Item size = shape.first();
    for (int64_t axis : wanted.shape) {
        if (!size.is(Kind::kInteger) || size.integer() != axis) return false;
        size = size.next();
    }
    if (!offsets.is(Kind::kArray) || offsets.count() != 2) return false;
    const Json::Item begin = offsets.first(), end = begin.next();
    if (!begin.is(Kind::kInteger) || !end.is(Kind::kInteger)) return false;
    *span = {begin.integer(), end.integer(), &wanted};
    // No difference of numbers that may overflow: what lies before 0 fits no tiling.
    return span->begin >= 0 && span->end >= span->begin && span->end - span->begin == wanted.bytes;
}

std::string shape_text(const Wanted& wanted) {
    std::string text;
    for (int64_t axis : wanted.shape) text += (text.empty() ? "" : ", ") + std::to_string(axis);
    return "F32 [" + text + "]";
}

std::vector<Span> read_header(const Json::Item& header, const std::string& file,
                              const std::vector<Wanted>& wanted) {
    if (!header.is(Kind::kObject)) {
        refuse_model("model_file", file, "its header is not a JSON object");
    }
    const size_t extra = header.member("__metadata__") ? 1 : 0;
    std::vector<Span> spans;
    for (const Wanted& one : wanted) {
        const Json::Item entry = header.member(one.name);
        if (!entry) {
            refuse_model("model_tensors", file,
                         "the tensors are not those that config.json describes",
                         std::to_string(wanted.size()) + " tensors", "no tensor " + one.name);
        }
        spans.emplace_back();
        if (!read_entry(entry, one, &spans.back())) {
            refuse_model("model_tensors", file, "tensor " + one.name + " does not fit config.json",
                         shape_text(one));
        }
    }
    if (header.count() != wanted.size() + extra) {
        refuse_model("model_tensors", file, "the tensors are not those that config.json describes",
                     std::to_string(wanted.size()) + " tensors",
                     std::to_string(header.count() - extra));
    }
    return spans;
}

// In the order in which they lie. They must cover the data exactly, as the format demands.
void check_tiling(std::vector<Span>& spans, const std::string& file, int64_t n_bytes) {
    std::sort(spans.begin(), spans.end(), [](const Span& a, const Span& b) {
        return a.begin != b.begin ? a.begin < b.begin : a.end < b.end;
    });
    int64_t position = 0;
    for (const Span& span : spans) {
        if (span.begin != position) {
            refuse_model("model_file", file, "tensors overlap or leave a hole");
        }
        position = span.end;
    }
    if (position != n_bytes) {
        refuse_model("model_file", file, "the file is truncated or longer than its header says",
                     std::to_string(position) + " bytes of tensors",
                     std::to_string(n_bytes) + " bytes");
    }
}

}  // namespace

std::string read_safetensors(Source& source, const std::vector<Wanted>& wanted) {
    const std::string& file = source.name();
    const auto cut_off = [&] { refuse_model("model_file", file, "the file ends early"); };
    unsigned char prefix[8];
    if (source.size() < 8 || !source.read(prefix, 8)) cut_off();
    uint64_t length = 0;
    for (int i = 7; i >= 0; --i) length = length << 8 | prefix[i];
    if (length < 2 ||
        length > static_cast<uint64_t>(std::min(kMostHeaderBytes, source.size() - 8))) {
        refuse_model("model_file", file, "this is not a safetensors file");
    }
    std::string text(length, '\0');
    if (!source.read(text.data(), length)) cut_off();
    std::optional<Json> header;
    try {
        header.emplace(text);
    } catch (const std::string& error) {
        refuse_model("model_file", file, "its header is not JSON", "", error);
    }
    std::vector<Span> spans = read_header(header->root(), file, wanted);
    check_tiling(spans, file, source.size() - 8 - static_cast<int64_t>(length));

    Sha256 digest;
    digest.update(prefix, 8);
    digest.update(text.data(), length);
    for (const Span& span : spans) {
        const auto bytes = static_cast<size_t>(span.end - span.begin);
        Tensor& tensor = *span.wanted->tensor;
        tensor.size = span.wanted->bytes / int64_t{sizeof(float)};
        tensor.data.reset(new float[static_cast<size_t>(tensor.size)]);
        if (!source.read(tensor.data.get(), bytes)) cut_off();
        digest.update(tensor.data.get(), bytes);
    }
    return digest.hex();
}

}  // namespace dtwin::model
