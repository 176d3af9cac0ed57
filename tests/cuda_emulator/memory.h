// The emulated devices' memory: host memory that only kernels, copies and products can touch, so
// that host code which takes a device pointer for its own ends in a segmentation fault.
#pragma once

#include <cstddef>
#include <cstdint>

namespace dtwin::emulator {

// Fresh memory of a device: NaN bytes, with canaries on both sides. 0 where none is left.
uintptr_t allocate(int device, size_t bytes);
// False where no allocation begins there.
bool release(uintptr_t data);
size_t bytes_allocated(int device);

// Whether one allocation of the device holds all these bytes; whether any device's holds one.
bool on_device(int device, uintptr_t data, size_t bytes);
bool touches_a_device(const void* data, size_t bytes);

// While one lives, a device's memory can be read and written. Its end looks at the canaries.
class Access {
  public:
    explicit Access(int device);
    ~Access();
    Access(const Access&) = delete;
    Access& operator=(const Access&) = delete;

  private:
    int device_;
};

}  // namespace dtwin::emulator
