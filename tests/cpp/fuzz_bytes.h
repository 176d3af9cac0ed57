// A file of a model folder that is a fuzzer's bytes.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

#include "model/files.h"

class Bytes : public dtwin::model::Source {
  public:
    explicit Bytes(std::string_view bytes) : bytes_(bytes) {}

    const std::string& name() const override { return name_; }
    int64_t size() const override { return static_cast<int64_t>(bytes_.size()); }
    bool read(void* to, size_t size) override {
        if (size > bytes_.size() - at_) return false;
        if (size) std::memcpy(to, bytes_.data() + at_, size);
        at_ += size;
        return true;
    }

  private:
    const std::string name_ = "bytes";
    const std::string_view bytes_;
    size_t at_ = 0;
};
