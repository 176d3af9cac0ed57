// The order in which threads get their turn. A kernel that lacks a barrier gives other numbers in
// another order.
#pragma once

#include <cstdint>

namespace dtwin::emulator {

class Order {
  public:
    // As DTWIN_EMULATED_ORDER says: "forward" (where it is not set), "reverse", "random:SEED".
    static Order from_environment();

    // Whether what may happen now or later happens now: forward yes, reverse no, random either.
    bool now();
    // n things in this order: the i-th is order[i].
    void arrange(int* order, int n);
    // The first of n in this order for which ready[i] is not 0, or -1. In a random order it stays
    // at `last` three times in four, so that one warp may come far ahead of another.
    int first(const uint32_t* ready, int n, int last);

  private:
    uint32_t draw(uint32_t n);  // below n

    enum class Kind { kForward, kReverse, kRandom };
    Kind kind_ = Kind::kForward;
    uint64_t state_ = 0;
};

}  // namespace dtwin::emulator
