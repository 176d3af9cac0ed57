// What every function of the driver and of cuBLAS does first: it counts itself, and waits until no
// other runs.
#pragma once

#include <mutex>

// Shown to programs, in a library that hides the rest.
#define DTWIN_EMULATED extern "C" __attribute__((visibility("default")))

namespace dtwin::emulator {

class Call {
  public:
    explicit Call(const char* function);

  private:
    std::lock_guard<std::mutex> alone_;
};

// The device of the calling thread's current context, or -1.
int current_device();

}  // namespace dtwin::emulator
