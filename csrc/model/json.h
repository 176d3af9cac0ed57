// Strict JSON of a limited size: UTF-8, no duplicate keys, no trailing text, numbers that float64
// holds. Nothing is allocated that is larger than a small multiple of the text.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace dtwin::model {

enum class Kind : uint8_t { kNull, kFalse, kTrue, kInteger, kReal, kText, kArray, kObject };

struct Node {
    Kind kind;
    uint32_t end;  // one past the last node of this value
    union {
        int64_t integer;
        double real;
        struct {
            uint32_t begin, size;
        } text;          // in the document's characters
        uint32_t count;  // of an array's items or an object's members
    };
};

// A parsed text: its values in the order they were written, a member's name before its value.
class Json {
  public:
    // Throws std::string, which says what is wrong where.
    explicit Json(std::string_view text);

    // A value of the document, or none.
    class Item {
      public:
        Item() = default;
        Item(const Json* document, uint32_t at) : document_(document), at_(at) {}

        explicit operator bool() const { return document_ != nullptr; }
        bool is(Kind kind) const { return document_ && node().kind == kind; }
        bool is_number() const { return is(Kind::kInteger) || is(Kind::kReal); }
        uint32_t count() const { return node().count; }
        int64_t integer() const { return node().integer; }
        double number() const {
            return is(Kind::kInteger) ? static_cast<double>(node().integer) : node().real;
        }
        std::string_view text() const {
            const auto& span = node().text;
            return std::string_view(document_->characters_).substr(span.begin, span.size);
        }

        // An array's first item or an object's first name, and what comes after this one. There
        // are as many as count() says.
        Item first() const { return {document_, at_ + 1}; }
        Item next() const { return {document_, node().end}; }

        Item member(std::string_view name) const;  // none where it is no object with that name

      private:
        const Node& node() const { return document_->nodes_[at_]; }
        const Json* document_ = nullptr;
        uint32_t at_ = 0;
    };

    Item root() const { return {this, 0}; }

  private:
    friend class Parser;
    std::vector<Node> nodes_;
    std::string characters_;
};

// Moves `at` past one character; false where this is not UTF-8.
bool next_character(const char*& at, const char* end, uint32_t* character);

}  // namespace dtwin::model
