// The memory layout of DLPack's unversioned exchange, as its specification gives it: what a capsule
// named "dltensor" points at.
#pragma once

#include <cstdint>

namespace dtwin::dlpack {

constexpr int32_t kCuda = 2;  // a device's type
constexpr uint8_t kUnsigned = 1, kFloat = 2, kBool = 6;

struct Device {
    int32_t type;
    int32_t id;
};

struct Type {
    uint8_t code;
    uint8_t bits;
    uint16_t lanes;
};

struct Tensor {
    void* data;
    Device device;
    int32_t rank;
    Type type;
    int64_t* shape;
    int64_t* strides;  // in elements; null where the tensor is dense
    uint64_t byte_offset;
};

struct ManagedTensor {
    Tensor tensor;
    void* manager;
    void (*deleter)(ManagedTensor*);  // called by the capsule, which is only borrowed here
};

}  // namespace dtwin::dlpack
