// Vectors of the instruction set this file is compiled for, through the vector extensions that
// GCC and Clang share, with tanh and sigmoid.
//
// Every operation is IEEE and elementwise, so a result never depends on the lane it was in.
//
// Largest errors, in units of the last place (make exhaustive): over all float32, tanh 2.50 and
// sigmoid 2.41 on each x86-64 instruction set; over random float64, 2.56 and 2.47. tanh is odd to
// the bit. Below -kExpMax, sigmoid stays at e^-kExpMax, about the smallest normal number.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define DTWIN_CELL  // before the functions of a cell: what a compiler for GPUs wants to read there

namespace dtwin::DTWIN_ISA {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
constexpr int kTileRows = 6;  // 6 x 4 accumulators of the 32 registers
#elif defined(__AVX__)
constexpr int kVectorBytes = 32;
constexpr int kTileRows = 3;  // 3 x 4 accumulators of the 16 registers
#else
constexpr int kVectorBytes = 16;
constexpr int kTileRows = 3;
#endif

// e^x is 2^n e^r with n = round(x / ln 2). Adding kRound leaves n in the low bits of the sum;
// n * kLn2High is exact (Cody and Waite 1980). kDegree: the Taylor series of e^r - 1 on
// |r| <= ln(2)/2 is then below half a unit in the last place.
template <class F>
struct Lanes;

template <>
struct Lanes<float> {
    typedef float Vec __attribute__((vector_size(kVectorBytes)));
    typedef uint32_t Bits __attribute__((vector_size(kVectorBytes)));
    static constexpr uint32_t kSign = 0x80000000u, kOne = 0x3f800000u;
    static constexpr uint32_t kInfinity = 0x7f800000u;
    static constexpr int kMantissaBits = 23, kDegree = 7;
    static constexpr float kRound = 12582912.0f;  // 1.5 * 2^23
    static constexpr float kLog2E = 1.44269504088896341f;
    static constexpr float kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;
    static constexpr float kTanhIsOne = 10.0f;  // tanh is 1 to the last bit from here on
    static constexpr float kExpMax = 87.0f;     // e^-x is still a normal number
};

template <>
struct Lanes<double> {
    typedef double Vec __attribute__((vector_size(kVectorBytes)));
    typedef uint64_t Bits __attribute__((vector_size(kVectorBytes)));
    static constexpr uint64_t kSign = 0x8000000000000000u, kOne = 0x3ff0000000000000u;
    static constexpr uint64_t kInfinity = 0x7ff0000000000000u;
    static constexpr int kMantissaBits = 52, kDegree = 13;
    static constexpr double kRound = 6755399441055744.0;  // 1.5 * 2^52
    static constexpr double kLog2E = 1.44269504088896341;
    static constexpr double kLn2High = 6.93147180369123816490e-01;
    static constexpr double kLn2Low = 1.90821492927058770002e-10;
    static constexpr double kTanhIsOne = 20.0;
    static constexpr double kExpMax = 708.0;
};

template <class F>
using Vec = typename Lanes<F>::Vec;

template <class F>
constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(F));

template <class F>
inline Vec<F> load(const F* from) {
    Vec<F> v;
    std::memcpy(&v, from, sizeof v);
    return v;
}

// The first n elements, where there are fewer than a vector of them, and zeros.
template <class F>
inline Vec<F> load_some(const F* from, int64_t n) {
    if (n >= kLanes<F>) return load(from);
    Vec<F> v{};
    if (n > 0) std::memcpy(&v, from, n * sizeof(F));
    return v;
}

template <class F>
inline void store(F* to, Vec<F> v) {
    std::memcpy(to, &v, sizeof v);
}

// a b + c, rounded once where the instruction set can. Said explicitly: contraction is off, since
// a compiler is free to fuse the same expression in one place and not in another.
#if defined(__AVX512F__)
inline Vec<float> fma(Vec<float> a, Vec<float> b, Vec<float> c) {
    return (Vec<float>)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
}
inline Vec<double> fma(Vec<double> a, Vec<double> b, Vec<double> c) {
    return (Vec<double>)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
}
#elif defined(__FMA__)
inline Vec<float> fma(Vec<float> a, Vec<float> b, Vec<float> c) {
    return (Vec<float>)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
}
inline Vec<double> fma(Vec<double> a, Vec<double> b, Vec<double> c) {
    return (Vec<double>)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
}
#elif defined(__aarch64__)
inline Vec<float> fma(Vec<float> a, Vec<float> b, Vec<float> c) {
    return (Vec<float>)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
}
inline Vec<double> fma(Vec<double> a, Vec<double> b, Vec<double> c) {
    return (Vec<double>)vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b);
}
#else
template <class V>
inline V fma(V a, V b, V c) {
    return a * b + c;
}
#endif

// |x|, at most `limit`; NaN stays NaN.
template <class F>
inline Vec<F> clamped_magnitude(Vec<F> x, F limit) {
    const Vec<F> magnitude = (Vec<F>)((typename Lanes<F>::Bits)x & ~Lanes<F>::kSign);
    const Vec<F> most = Vec<F>{} + limit;
    return magnitude > most ? most : magnitude;
}

// 1/k! at [k].
template <class F>
struct InverseFactorials {
    F at[Lanes<F>::kDegree + 1];
    constexpr InverseFactorials() : at{} {
        double value = 1;
        for (int k = 0; k <= Lanes<F>::kDegree; ++k) {
            if (k) value /= k;
            at[k] = static_cast<F>(value);
        }
    }
};

// e^x = scale * (1 + expm1_r) for -kExpMax <= x <= 0, with expm1_r = e^r - 1.
template <class F>
struct SplitExp {
    Vec<F> scale, expm1_r;
};

template <class F>
inline SplitExp<F> split_exp(Vec<F> x) {
    using L = Lanes<F>;
    using Bits = typename L::Bits;
    constexpr InverseFactorials<F> inverse;
    const Vec<F> zero{};
    const Vec<F> rounded = fma(x, zero + L::kLog2E, zero + L::kRound);
    const Vec<F> n = rounded - L::kRound;
    const Vec<F> r = fma(n, zero - L::kLn2Low, fma(n, zero - L::kLn2High, x));
    Vec<F> series = zero + inverse.at[L::kDegree];
    for (int k = L::kDegree - 1; k >= 2; --k) series = fma(series, r, zero + inverse.at[k]);
    return {(Vec<F>)(((Bits)rounded << L::kMantissaBits) + L::kOne), fma(r * r, series, r)};
}

// (1 - e) / (1 + e) with e = exp(-2|x|); 1 - e without cancellation near 0.
template <class F>
inline Vec<F> tanh(Vec<F> x) {
    using Bits = typename Lanes<F>::Bits;
    const auto [scale, expm1_r] =
        split_exp<F>(F(-2) * clamped_magnitude<F>(x, Lanes<F>::kTanhIsOne));
    const Vec<F> minus = fma(scale, expm1_r, scale - F(1));
    const Bits magnitude = (Bits)(minus / (minus + F(2))) & ~Lanes<F>::kSign;
    return (Vec<F>)(magnitude | ((Bits)x & Lanes<F>::kSign));
}

// 1 / (1 + exp(-x)), through exp(-|x|), which cannot overflow.
template <class F>
inline Vec<F> sigmoid(Vec<F> x) {
    const Vec<F> one = Vec<F>{} + F(1);
    const auto [scale, expm1_r] = split_exp<F>(-clamped_magnitude<F>(x, Lanes<F>::kExpMax));
    const Vec<F> e = fma(scale, expm1_r, scale);
    return (x < Vec<F>{} ? e : one) / (one + e);
}

}  // namespace dtwin::DTWIN_ISA
