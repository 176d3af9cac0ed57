#include "model/json.h"

#include <algorithm>
#include <charconv>
#include <system_error>

namespace dtwin::model {
namespace {

constexpr int kMostDepth = 64;
constexpr size_t kMostValues = size_t{1} << 23;

void append_character(uint32_t c, std::string* out) {
    if (c < 0x80) {
        out->push_back(static_cast<char>(c));
        return;
    }
    const int more = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
    const uint32_t lead[] = {0, 0xC0, 0xE0, 0xF0};
    out->push_back(static_cast<char>(lead[more] | c >> (6 * more)));
    for (int i = more - 1; i >= 0; --i) {
        out->push_back(static_cast<char>(0x80 | (c >> (6 * i) & 0x3F)));
    }
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }

}  // namespace

bool next_character(const char*& at, const char* end, uint32_t* character) {
    const auto byte = [](char c) { return static_cast<unsigned char>(c); };
    const uint32_t lead = byte(*at);
    if (lead < 0x80) {
        *character = lead;
        ++at;
        return true;
    }
    const int more = lead >= 0xF0 ? 3 : lead >= 0xE0 ? 2 : 1;
    if (lead < 0xC2 || lead > 0xF4 || end - at <= more) return false;
    uint32_t c = lead & (0x3F >> more);
    for (int i = 1; i <= more; ++i) {
        if ((byte(at[i]) & 0xC0) != 0x80) return false;
        c = c << 6 | (byte(at[i]) & 0x3F);
    }
    const uint32_t least[] = {0, 0x80, 0x800, 0x10000};
    if (c < least[more] || c > 0x10FFFF || (c >= 0xD800 && c < 0xE000)) return false;
    *character = c;
    at += more + 1;
    return true;
}

class Parser {
  public:
    Parser(std::string_view text, Json* document)
        : begin_(text.data()),
          at_(text.data()),
          end_(text.data() + text.size()),
          nodes_(document->nodes_),
          characters_(document->characters_) {}

    void document() {
        value(0);
        skip_space();
        if (at_ != end_) fail("text after the value");
    }

  private:
    [[noreturn]] void fail(const char* what) const {
        throw std::string(what) + " at byte " + std::to_string(at_ - begin_);
    }

    void skip_space() {
        while (at_ != end_ && (*at_ == ' ' || *at_ == '\t' || *at_ == '\n' || *at_ == '\r')) ++at_;
    }

    bool take(char c) {
        if (at_ == end_ || *at_ != c) return false;
        ++at_;
        return true;
    }

    uint32_t add(Kind kind) {
        if (nodes_.size() >= kMostValues) fail("too many values");
        Node node;
        node.kind = kind;
        node.end = static_cast<uint32_t>(nodes_.size()) + 1;
        node.integer = 0;
        nodes_.push_back(node);
        return node.end - 1;
    }

    void value(int depth) {
        if (depth > kMostDepth) fail("values nested too deeply");
        skip_space();
        if (at_ == end_) fail("the text ends early");
        switch (*at_) {
            case '{':
                return object(depth);
            case '[':
                return array(depth);
            case '"':
                return text();
            case 't':
                return word("true", Kind::kTrue);
            case 'f':
                return word("false", Kind::kFalse);
            case 'n':
                return word("null", Kind::kNull);
            default:
                return number();
        }
    }

    void word(std::string_view name, Kind kind) {
        if (std::string_view(at_, static_cast<size_t>(end_ - at_)).substr(0, name.size()) != name) {
            fail("not a value");
        }
        at_ += name.size();
        add(kind);
    }

    void array(int depth) {
        ++at_;
        const uint32_t self = add(Kind::kArray);
        uint32_t count = 0;
        skip_space();
        if (!take(']')) {
            do {
                value(depth + 1);
                ++count;
                skip_space();
            } while (take(','));
            if (!take(']')) fail("an array without its end");
        }
        close(self, count);
    }

    void object(int depth) {
        ++at_;
        const uint32_t self = add(Kind::kObject);
        std::vector<std::string_view> names;
        skip_space();
        if (!take('}')) {
            do {
                skip_space();
                if (at_ == end_ || *at_ != '"') fail("a member without a name");
                text();
                const auto span = nodes_.back().text;
                names.push_back(std::string_view(characters_).substr(span.begin, span.size));
                skip_space();
                if (!take(':')) fail("a member without a value");
                value(depth + 1);
                skip_space();
            } while (take(','));
            if (!take('}')) fail("an object without its end");
        }
        close(self, static_cast<uint32_t>(names.size()));
        std::sort(names.begin(), names.end());
        if (std::adjacent_find(names.begin(), names.end()) != names.end()) {
            fail("a name twice in the object that ends");
        }
    }

    void close(uint32_t self, uint32_t count) {
        nodes_[self].count = count;
        nodes_[self].end = static_cast<uint32_t>(nodes_.size());
    }

    void text() {
        ++at_;
        const uint32_t self = add(Kind::kText);
        const size_t first = characters_.size();
        while (!take('"')) {
            if (at_ == end_) fail("a text without its end");
            if (take('\\')) {
                append_character(escape(), &characters_);
                continue;
            }
            const char* from = at_;
            uint32_t character = 0;
            if (!next_character(at_, end_, &character)) fail("not UTF-8");
            if (character < 0x20) fail("a control character in a text");
            characters_.append(from, at_);
        }
        nodes_[self].text = {static_cast<uint32_t>(first),
                             static_cast<uint32_t>(characters_.size() - first)};
    }

    uint32_t escape() {
        if (at_ == end_) fail("a text without its end");
        constexpr std::string_view kNames = "\"\\/bfnrt", kCharacters = "\"\\/\b\f\n\r\t";
        const char name = *at_++;
        const size_t known = kNames.find(name);
        if (known != kNames.npos) return static_cast<unsigned char>(kCharacters[known]);
        if (name != 'u') fail("an unknown escape");
        const uint32_t unit = four_digits();
        if (unit < 0xD800 || unit >= 0xE000) return unit;
        if (unit >= 0xDC00 || !take('\\') || !take('u')) fail("half of a surrogate pair");
        const uint32_t low = four_digits();
        if (low < 0xDC00 || low >= 0xE000) fail("half of a surrogate pair");
        return 0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00);
    }

    uint32_t four_digits() {
        uint32_t unit = 0;
        const char* last = end_ - at_ < 4 ? end_ : at_ + 4;
        const auto read = std::from_chars(at_, last, unit, 16);
        if (read.ec != std::errc() || read.ptr != at_ + 4) fail("not four hexadecimal digits");
        at_ += 4;
        return unit;
    }

    void digits() {
        if (at_ == end_ || !is_digit(*at_)) fail("not a value");
        while (at_ != end_ && is_digit(*at_)) ++at_;
    }

    void number() {
        const char* const first = at_;
        take('-');
        const char* const leading = at_;
        digits();
        if (*leading == '0' && at_ - leading > 1) fail("a number that starts with 0");
        bool whole = true;
        if (take('.')) {
            whole = false;
            digits();
        }
        if (take('e') || take('E')) {
            whole = false;
            if (!take('-')) take('+');
            digits();
        }
        int64_t integer = 0;
        if (whole && std::from_chars(first, at_, integer).ec == std::errc()) {
            nodes_[add(Kind::kInteger)].integer = integer;
            return;
        }
        double real = 0;
        if (std::from_chars(first, at_, real).ec != std::errc()) {
            fail("a number that float64 cannot hold");
        }
        nodes_[add(Kind::kReal)].real = real;
    }

    const char* const begin_;
    const char* at_;
    const char* const end_;
    std::vector<Node>& nodes_;
    std::string& characters_;
};

Json::Json(std::string_view text) {
    characters_.reserve(text.size());  // views of names stay valid
    Parser(text, this).document();
}

Json::Item Json::Item::member(std::string_view name) const {
    if (!is(Kind::kObject)) return {};
    Item key = first();
    for (uint32_t i = 0; i < count(); ++i) {
        const Item value = key.next();
        if (key.text() == name) return value;
        key = value.next();
    }
    return {};
}

}  // namespace dtwin::model
