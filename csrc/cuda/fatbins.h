// The compiled kernels, as bytes of this library.
#pragma once

namespace dtwin::gpu {

// The kernels of the file `name`.cu, or null.
const void* fatbin(const char* name);

}  // namespace dtwin::gpu
