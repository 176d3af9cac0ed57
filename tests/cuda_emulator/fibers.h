// Threads that run one at a time, each until it gives way: stacks and the switch between them.
#pragma once

#include <cstddef>
#include <vector>

namespace dtwin::emulator {

// Saves the running fiber's stack pointer and goes on with another's.
extern "C" __attribute__((visibility("hidden"))) void dtwin_emulator_switch(void** save, void* to);

class Stacks {
  public:
    // At least n stacks, kept for later launches.
    void reserve(size_t n);
    // The stack pointer with which stack i's fiber begins; entry never returns.
    void* begin(size_t i, void (*entry)());

  private:
    std::vector<char*> tops_;
};

}  // namespace dtwin::emulator
