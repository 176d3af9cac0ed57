// The largest errors of tanh and sigmoid of simd/vec.h on the instruction set this is compiled for.
//
// activations STRIDE: every STRIDE-th float32 (1 = all of them) against double precision, and
// 2^27 / STRIDE random float64 against long double. Prints a line "function type ulp x" for each
// and returns 1, saying where, when NaN, a sign, a range or a limit is not as it should be.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <thread>

#include "simd/vec.h"

namespace {

using namespace dtwin::DTWIN_ISA;

constexpr int kThreads = 2;

struct Worst {
    double ulp = 0, x = 0;
    bool right = true;

    void add(double new_ulp, double new_x) {
        if (new_ulp > ulp) ulp = new_ulp, x = new_x;
    }
    void require(bool holds, const char* what, double at) {
        if (!holds && right) std::printf("not so at %.17g: %s\n", at, what);
        right &= holds;
    }
    void add(const Worst& other) {
        add(other.ulp, other.x);
        right &= other.right;
    }
};

// |got - wanted| in units of the last place that F has at `wanted`.
template <class F, class Exact>
double ulps(F got, Exact wanted) {
    constexpr int digits = std::numeric_limits<F>::digits;
    constexpr int least = std::numeric_limits<F>::min_exponent - digits;
    const int exponent = wanted == 0 ? least : std::max(std::ilogb(wanted) + 1 - digits, least);
    return static_cast<double>(std::ldexp(std::fabs(static_cast<Exact>(got) - wanted), -exponent));
}

template <class Exact>
Exact exact_sigmoid(Exact x) {
    const Exact e = std::exp(-std::fabs(x));
    return (x < 0 ? e : Exact(1)) / (1 + e);
}

template <class F>
bool same_bits(F a, F b) {
    return std::memcmp(&a, &b, sizeof a) == 0;
}

// One vector of x >= 0, and of -x; Exact is the type of the comparison.
template <class F, class Exact>
void check(const F* x, Worst* of_tanh, Worst* of_sigmoid) {
    F plus_tanh[kLanes<F>], minus_tanh[kLanes<F>], plus[kLanes<F>], minus[kLanes<F>];
    const Vec<F> values = load(x);
    store<F>(plus_tanh, dtwin::DTWIN_ISA::tanh<F>(values));
    store<F>(minus_tanh, dtwin::DTWIN_ISA::tanh<F>(-values));
    store<F>(plus, sigmoid<F>(values));
    store<F>(minus, sigmoid<F>(-values));
    for (int i = 0; i < kLanes<F>; ++i) {
        if (std::isnan(x[i])) {
            of_tanh->require(std::isnan(plus_tanh[i]) && std::isnan(minus_tanh[i]),
                             "tanh of NaN is NaN", x[i]);
            of_sigmoid->require(std::isnan(plus[i]) && std::isnan(minus[i]),
                                "sigmoid of NaN is NaN", x[i]);
            continue;
        }
        const Exact exact = x[i];
        of_tanh->require(same_bits(minus_tanh[i], -plus_tanh[i]), "tanh(-x) is -tanh(x)", x[i]);
        of_tanh->require(plus_tanh[i] >= 0 && plus_tanh[i] <= 1, "0 <= tanh(x) <= 1, x >= 0", x[i]);
        of_tanh->add(ulps(plus_tanh[i], std::tanh(exact)), x[i]);

        of_sigmoid->require(plus[i] >= F(0.5) && plus[i] <= 1, "1/2 <= sigmoid(x) <= 1", x[i]);
        of_sigmoid->require(minus[i] > 0 && minus[i] <= F(0.5), "0 < sigmoid(-x) <= 1/2", x[i]);
        of_sigmoid->add(ulps(plus[i], exact_sigmoid(exact)), x[i]);
        if (x[i] <= Lanes<F>::kExpMax) {
            of_sigmoid->add(ulps(minus[i], exact_sigmoid(-exact)), -x[i]);
        } else {
            // From here down sigmoid stays where it is, next to the smallest normal number.
            const F least = static_cast<F>(std::exp(-static_cast<Exact>(Lanes<F>::kExpMax)));
            of_sigmoid->require(ulps(minus[i], static_cast<Exact>(least)) <= 4,
                                "sigmoid(-x) is exp(-kExpMax)", x[i]);
        }
    }
}

// Every stride-th float32 >= 0, infinity and NaN among them; with its negative, all there are.
void check_floats(uint32_t stride, int thread, Worst* of_tanh, Worst* of_sigmoid) {
    const uint64_t end = uint64_t{1} << 31, vectors = end / stride / kLanes<float> + 1;
    for (uint64_t v = thread; v < vectors; v += kThreads) {
        float x[kLanes<float>];
        for (int i = 0; i < kLanes<float>; ++i) {
            const uint64_t wanted = (v * kLanes<float> + i) * stride;
            const auto bits = static_cast<uint32_t>(std::min(wanted, end - 1));
            std::memcpy(&x[i], &bits, sizeof bits);
        }
        check<float, double>(x, of_tanh, of_sigmoid);
    }
}

// Half of the samples uniform where the functions bend, half over the exponents.
void check_doubles(uint64_t samples, int thread, Worst* of_tanh, Worst* of_sigmoid) {
    std::mt19937_64 random(thread);
    std::uniform_real_distribution<double> bend(0, 25), exponent(-1074, 1024);
    for (uint64_t v = 0; v < samples / kLanes<double> / kThreads + 1; ++v) {
        double x[kLanes<double>];
        for (double& value : x) value = v % 2 ? bend(random) : std::exp2(exponent(random));
        check<double, long double>(x, of_tanh, of_sigmoid);
    }
    double special[kLanes<double>] = {std::numeric_limits<double>::infinity(),
                                      std::numeric_limits<double>::quiet_NaN()};
    check<double, long double>(special, of_tanh, of_sigmoid);
}

template <class Check>
bool report(const char* type, Check check_some) {
    Worst of_tanh[kThreads], of_sigmoid[kThreads];
    std::thread threads[kThreads];
    for (int i = 0; i < kThreads; ++i) {
        threads[i] = std::thread([&, i] { check_some(i, &of_tanh[i], &of_sigmoid[i]); });
    }
    for (int i = 0; i < kThreads; ++i) {
        threads[i].join();
        of_tanh[0].add(of_tanh[i]);
        of_sigmoid[0].add(of_sigmoid[i]);
    }
    std::printf("tanh %s %.4f %.9g\n", type, of_tanh[0].ulp, of_tanh[0].x);
    std::printf("sigmoid %s %.4f %.9g\n", type, of_sigmoid[0].ulp, of_sigmoid[0].x);
    return of_tanh[0].right && of_sigmoid[0].right;
}

}  // namespace

int main(int argc, char** argv) {
    const long stride = argc == 2 ? std::atol(argv[1]) : 0;
    if (stride < 1) return std::fprintf(stderr, "usage: activations STRIDE\n"), 2;
    const bool floats = report("float32", [=](int thread, Worst* of_tanh, Worst* of_sigmoid) {
        check_floats(static_cast<uint32_t>(stride), thread, of_tanh, of_sigmoid);
    });
    const bool doubles = report("float64", [=](int thread, Worst* of_tanh, Worst* of_sigmoid) {
        check_doubles((uint64_t{1} << 27) / stride, thread, of_tanh, of_sigmoid);
    });
    return !(floats && doubles);
}
