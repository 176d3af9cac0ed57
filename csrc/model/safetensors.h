// float32 tensors of a safetensors file (8 bytes of header length, JSON header, raw tensors).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "model/files.h"

namespace dtwin::model {

constexpr int64_t kMostWeightsBytes = int64_t{16} << 30;

struct Tensor {
    std::unique_ptr<float[]> data;
    int64_t size = 0;
};

struct Wanted {
    std::string name;
    std::vector<int64_t> shape;
    int64_t bytes;
    Tensor* tensor;
};

// Read exactly the wanted tensors; returns the file's SHA-256. Each byte is read once, so that it
// is that of these tensors even if the file is written to meanwhile. Throws Refusal, before memory
// is taken that the file is not large enough to fill.
std::string read_safetensors(Source& source, const std::vector<Wanted>& wanted);

}  // namespace dtwin::model
