#include "order.h"

#include <cstdlib>
#include <cstring>
#include <utility>

#include "fail.h"

namespace dtwin::emulator {

Order Order::from_environment() {
    Order order;
    const char* text = std::getenv("DTWIN_EMULATED_ORDER");
    constexpr char kRandom[] = "random:";
    if (!text || std::strcmp(text, "forward") == 0) return order;
    if (std::strcmp(text, "reverse") == 0) {
        order.kind_ = Kind::kReverse;
        return order;
    }
    char* end = nullptr;
    if (std::strncmp(text, kRandom, sizeof kRandom - 1) == 0)
        order.state_ = std::strtoull(text + sizeof kRandom - 1, &end, 10);
    if (!end || *end || end[-1] == ':')
        fail("DTWIN_EMULATED_ORDER is \"%s\"; forward, reverse or random:SEED are known", text);
    order.kind_ = Kind::kRandom;
    return order;
}

// splitmix64: any seed serves, 0 too.
uint32_t Order::draw(uint32_t n) {
    uint64_t z = state_ += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    z ^= z >> 31;
    return static_cast<uint32_t>((z >> 32) * n >> 32);
}

bool Order::now() { return kind_ == Kind::kRandom ? draw(2) == 0 : kind_ == Kind::kForward; }

void Order::arrange(int* order, int n) {
    for (int i = 0; i < n; ++i) order[i] = kind_ == Kind::kReverse ? n - 1 - i : i;
    if (kind_ != Kind::kRandom) return;
    for (int i = n - 1; i > 0; --i) std::swap(order[i], order[draw(i + 1)]);
}

int Order::first(const uint32_t* ready, int n, int last) {
    if (kind_ == Kind::kRandom && last >= 0 && ready[last] && draw(4) != 0) return last;
    const int start = kind_ == Kind::kRandom ? static_cast<int>(draw(n)) : 0;
    for (int i = 0; i < n; ++i) {
        const int at = kind_ == Kind::kReverse ? n - 1 - i : (start + i) % n;
        if (ready[at]) return at;
    }
    return -1;
}

}  // namespace dtwin::emulator
