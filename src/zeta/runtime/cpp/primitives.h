// The maths of `zeta.math` on SIMD vectors, for float and double.
//
// Everything is branch-free and inline, so that the compiler merges what two primitives of the
// same argument have in common: sigmoid(x), tanh(x) and their derivatives share one exponential.
// A vector is as wide as the machine's widest register, through the vector extension of GCC and
// Clang. Coefficients are minimax fits, by the exchange algorithm of Remez for the relative error;
// atan calls libm lane by lane in double.

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#if defined(__linux__)
#include <sys/mman.h>
#endif

#if defined(__AVX512F__)
#define ZETA_BYTES 64
#elif defined(__AVX__)
#define ZETA_BYTES 32
#else
#define ZETA_BYTES 16
#endif
#define INLINE static inline __attribute__((always_inline))

// A few instructions that GCC does not find by itself, by its builtins: <immintrin.h> would take
// half of the compile time. Clang finds them. ZETA_PORTABLE does without.
#if defined(__GNUC__) && !defined(__clang__) && !defined(ZETA_PORTABLE)
#if defined(__AVX512F__)
#define ZETA_AVX512
#elif defined(__AVX__) && defined(__FMA__) && defined(__F16C__)
#define ZETA_AVX
#endif
#endif

// libm by the compiler's names for it: <cmath> would take a third of the compile time.
namespace libm {
INLINE float fma(float x, float y, float z) { return __builtin_fmaf(x, y, z); }
INLINE double fma(double x, double y, double z) { return __builtin_fma(x, y, z); }
INLINE float sqrt(float x) { return __builtin_sqrtf(x); }
INLINE double sqrt(double x) { return __builtin_sqrt(x); }
INLINE float sin(float x) { return __builtin_sinf(x); }
INLINE double sin(double x) { return __builtin_sin(x); }
INLINE float cos(float x) { return __builtin_cosf(x); }
INLINE double cos(double x) { return __builtin_cos(x); }
INLINE double atan(double x) { return __builtin_atan(x); }
INLINE float exp(float x) { return __builtin_expf(x); }
INLINE double exp(double x) { return __builtin_exp(x); }
INLINE float log(float x) { return __builtin_logf(x); }
INLINE double log(double x) { return __builtin_log(x); }
INLINE float fmod(float x, float y) { return __builtin_fmodf(x, y); }
INLINE double fmod(double x, double y) { return __builtin_fmod(x, y); }
}  // namespace libm
#define NAN __builtin_nanf("")
#define INFINITY __builtin_inff()

typedef float Float __attribute__((vector_size(ZETA_BYTES)));
typedef double Double __attribute__((vector_size(ZETA_BYTES)));
typedef int32_t Int __attribute__((vector_size(ZETA_BYTES)));
typedef int64_t Long __attribute__((vector_size(ZETA_BYTES)));

struct Half { uint16_t bits; };
struct BFloat { uint16_t bits; };

template <class V> struct Traits;
template <> struct Traits<Float> {
    using Scalar = float;
    using Bits = Int;
    static constexpr float rounder = 0x1.8p23f;  // adding it rounds to an integer
    static constexpr int mantissa = 23, bias = 127;
    static constexpr float ln2_high = 0x1.62e4p-1f, ln2_low = 0x1.7f7d1cp-20f;
    static constexpr float exp_lowest = -104, exp_highest = 89;  // 0 and inf from here on
    static constexpr float gauss_highest = 10.2f;                // e^(-x²) is 0 from here on
};
template <> struct Traits<Double> {
    using Scalar = double;
    using Bits = Long;
    static constexpr double rounder = 0x1.8p52;
    static constexpr int mantissa = 52, bias = 1023;
    static constexpr double ln2_high = 0x1.62e42fefa38p-1, ln2_low = 0x1.ef35793c7673p-45;
    static constexpr double exp_lowest = -746, exp_highest = 710;
    static constexpr double gauss_highest = 27.3;
};
template <class V> using Scalar = typename Traits<V>::Scalar;
template <class V> using Bits = typename Traits<V>::Bits;
template <class V> constexpr int lanes = ZETA_BYTES / sizeof(Scalar<V>);

// ---- Bits, bounds and lanes -------------------------------------------------------------------

template <class V> INLINE V splat(Scalar<V> value) { return V{} + value; }

template <class V> INLINE Bits<V> sign_bit() {
    return Bits<V>{} + std::numeric_limits<decltype(+Bits<V>{}[0])>::min();
}
template <class V> INLINE V abs(V x) { return (V)((Bits<V>)x & ~sign_bit<V>()); }

// -|x|
template <class V> INLINE V negative(V x) { return (V)((Bits<V>)x | sign_bit<V>()); }

// A magnitude that is not negative, nor -0, with the sign of another number.
template <class V> INLINE V with_sign(V magnitude, V sign) {
    return (V)((Bits<V>)magnitude | ((Bits<V>)sign & sign_bit<V>()));
}
// 0 for NaN, as PyTorch's derivative of |x|.
template <class V> INLINE V sign(V x) {
    return x > 0 ? splat<V>(1) : x < 0 ? splat<V>(-1) : V{};
}

// 1 where a mask is true, else 0; from (mask ? 1 : 0)·x GCC would make mask ? x : 0, which loses NaN.
template <class V> INLINE V indicator(Bits<V> mask) { return (V)((Bits<V>)splat<V>(1) & mask); }

// Bounds keep NaN: x86's max and min answer their second operand if either is NaN.
template <class V> INLINE V at_least(V x, V low) { return x < low ? low : x; }
template <class V> INLINE V at_most(V x, V high) { return x > high ? high : x; }
#if defined(ZETA_AVX512)
INLINE Float at_least(Float x, Float low) {
    return __builtin_ia32_maxps512_mask(low, x, x, -1, 4);
}
INLINE Float at_most(Float x, Float high) {
    return __builtin_ia32_minps512_mask(high, x, x, -1, 4);
}
#elif defined(ZETA_AVX)
INLINE Float at_least(Float x, Float low) { return __builtin_ia32_maxps256(low, x); }
INLINE Float at_most(Float x, Float high) { return __builtin_ia32_minps256(high, x); }
#endif
template <class V> INLINE V at_least(V x, Scalar<V> low) { return at_least(x, splat<V>(low)); }
template <class V> INLINE V at_most(V x, Scalar<V> high) { return at_most(x, splat<V>(high)); }
template <class V> INLINE V clip(V x, V low, V high) { return at_most(at_least(x, low), high); }
template <class V> INLINE V finite(V x) {
    constexpr Scalar<V> largest = std::numeric_limits<Scalar<V>>::max();
    return at_most(at_least(x, -largest), largest);
}
template <class V> INLINE V unless_nan(V value, V x) { return x != x ? x : value; }
template <class V> INLINE V minimum(V x, V y) { return y != y ? y : at_most(x, y); }
template <class V> INLINE V maximum(V x, V y) { return y != y ? y : at_least(x, y); }

// x·y + z rounded once: what a contraction of the plain expression need not give.
template <class V> INLINE V fused(V x, V y, V z) {
    for (int i = 0; i < lanes<V>; i++) x[i] = libm::fma(x[i], y[i], z[i]);
    return x;
}
#if defined(ZETA_AVX512)
INLINE Float fused(Float x, Float y, Float z) {
    return __builtin_ia32_vfmaddps512_mask(x, y, z, -1, 4);
}
INLINE Double fused(Double x, Double y, Double z) {
    return __builtin_ia32_vfmaddpd512_mask(x, y, z, -1, 4);
}
#elif defined(ZETA_AVX)
INLINE Float fused(Float x, Float y, Float z) { return __builtin_ia32_vfmaddps256(x, y, z); }
INLINE Double fused(Double x, Double y, Double z) { return __builtin_ia32_vfmaddpd256(x, y, z); }
#endif

// A formula's product, kept from being contracted with a sum: of x·y - x·y would be left what was
// lost in rounding, where plain operations give 0.
template <class V> INLINE V rounded(V x) {
#if defined(__AVX512F__)
    asm("" : "+v"(x));
#elif defined(__FMA__)
    asm("" : "+x"(x));
#elif defined(__aarch64__)
    asm("" : "+w"(x));
#endif
    return x;
}

// The nearest integer, of two equally near the even one. From 2^mantissa on there are no others.
template <class V> INLINE V round(V x) {
    constexpr Scalar<V> whole = Scalar<V>(1ll << Traits<V>::mantissa);
    const V a = abs(x);
    return a < whole ? with_sign((a + whole) - whole, x) : x;
}
template <class V> INLINE V floor(V x) {
    const V y = round(x);
    return y > x ? y - 1 : y;
}

template <class V, class F> INLINE V each_lane(V x, F function) {
    for (int i = 0; i < lanes<V>; i++) x[i] = function(x[i]);
    return x;
}
INLINE bool any(Int mask) {
#if defined(ZETA_AVX512)
    return __builtin_ia32_ptestmd512(mask, mask, -1);
#elif defined(ZETA_AVX)
    return __builtin_ia32_movmskps256((Float)mask);
#else
    int32_t found = 0;
    for (int i = 0; i < lanes<Float>; i++) found |= mask[i];
    return found;
#endif
}

// By rising powers: in two chains of half the length, but for the constant, so that it is rounded once.
template <int n> INLINE Double polynomial(Double x, const double (&coefficients)[n]) {
    const Double square = x * x;
    Double chain[2] = {splat<Double>(coefficients[n - 2]), splat<Double>(coefficients[n - 1])};
    for (int k = n - 3; k > 0; k--) {
        Double& other = chain[(n - k) % 2];
        other = other * square + coefficients[k];
    }
    return (chain[n % 2 ? 1 : 0] * x + chain[n % 2 ? 0 : 1]) * x + coefficients[0];
}

// ---- Exponentials -----------------------------------------------------------------------------

// significand·2^n, rounded once, also where the result is subnormal or infinite.
template <class V> INLINE V scale(V significand, V n) {
    const Bits<V> whole = __builtin_convertvector(n, Bits<V>), half = whole >> 1;
    const auto power = [](Bits<V> k) { return (V)((k + Traits<V>::bias) << Traits<V>::mantissa); };
    return significand * power(half) * power(whole - half);
}
#if defined(ZETA_AVX512)
INLINE Float scale(Float x, Float n) { return __builtin_ia32_scalefps512_mask(x, n, x, -1, 4); }
INLINE Double scale(Double x, Double n) { return __builtin_ia32_scalefpd512_mask(x, n, x, -1, 4); }
#endif

// e^x = 2^n·(1 + p)
template <class V> struct Exponential { V n, p; };

// (e^r - 1 - r) / r² for |r| <= ln(2)/2
INLINE Float exp_series(Float r) {
    const Float s = r * r;
    const Float high = s * 0x1.6bec06p-10f + (r * 0x1.122776p-7f + 0x1.555674p-5f);
    return high * s + (r * 0x1.5554b0p-3f + 0x1.fffffep-2f);
}
INLINE Double exp_series(Double r) {
    return polynomial(r, {  // to 2^-57.2
        0x1.0p-1, 0x1.5555555555557p-3, 0x1.555555555554ep-5, 0x1.11111111100e6p-7,
        0x1.6c16c16c1a015p-10, 0x1.a01a01abe2f49p-13, 0x1.a01a019085ed3p-16,
        0x1.71de023f9334fp-19, 0x1.27e510829d47cp-22, 0x1.af4dcf9803046p-26,
        0x1.1f1a8ba1156e9p-29});
}

template <class V> INLINE Exponential<V> exponential(V x) {
    constexpr Scalar<V> log2_e = 1.4426950408889634, rounder = Traits<V>::rounder;
    const V n = (x * log2_e + rounder) - rounder;
    V r = x - n * Traits<V>::ln2_high;
    r = r - n * Traits<V>::ln2_low;
    return {n, exp_series(r) * (r * r) + r};
}

template <class V> INLINE V exp(V x) {
    const auto [n, p] = exponential(at_most(at_least(x, Traits<V>::exp_lowest), Traits<V>::exp_highest));
    return scale(p + 1, n);
}
template <class V> INLINE V expm1(V x) {
    const auto [n, p] = exponential(at_most(at_least(x, Traits<V>::exp_lowest), Traits<V>::exp_highest));
    // Halves: 2^n itself would overflow before the result does.
    const V half = scale(splat<V>(0.5), n);
    const V y = half * p + (half - Scalar<V>(0.5));
    return with_sign(y + y, x);
}

// e^-|x| and e^-|x| - 1
template <class V> INLINE Exponential<V> decay(V x) {
    auto [n, p] = exponential(at_least(negative(x), Traits<V>::exp_lowest));
    return {scale(splat<V>(1), n), p};
}
template <class V> INLINE V exp_decay(V x) {
    const auto [power, p] = decay(x);
    return power * p + power;
}
template <class V> INLINE V expm1_decay(V x) {
    const auto [power, p] = decay(x);
    return power * p + (power - 1);
}

// ---- The logistic function and the hyperbolic tangent -----------------------------------------

// With q = e^-|x|: sigmoid(|x|) = 1/(1 + q), sigmoid(-|x|) = q/(1 + q).
template <class V> INLINE V sigmoid(V x) {
    const V q = exp_decay(x);
    return (x > 0 ? splat<V>(1) : q) / (q + 1);
}
// sigmoid(-x)
template <class V> INLINE V sigmoid_complement(V x) {
    const V q = exp_decay(x);
    return (x > 0 ? q : splat<V>(1)) / (q + 1);
}
template <class V> INLINE V sigmoid_derivative(V x) {
    const V q = exp_decay(x), r = 1 / (q + 1);
    return q * r * r;
}

// With m = e^-|x| - 1: u = e^-2|x| - 1 = m(m + 2), which does not cancel.
template <class V> INLINE V tanh(V x) {
    const V m = expm1_decay(x), u = m * m + (m + m);
    return with_sign(abs(u) / (u + 2), x);
}
template <class V> INLINE V tanh_derivative(V x) {
    const V m = expm1_decay(x), q = exp_decay(x), u = m * m + (m + m);
    const V sech = (q + q) / (u + 2);
    return sech * sech;
}

// tanh(log(1 + e^x)) = (1 + 2q)/(1 + 2q + 2q²), or q(q + 2)/(q(q + 2) + 2) for x <= 0.
template <class V> INLINE V tanh_softplus(V x) {
    const V q = exp_decay(x);
    const V numerator = x > 0 ? (q + q) + 1 : q * q + (q + q);
    return numerator / (numerator + 2 * (x > 0 ? q * q : splat<V>(1)));
}
template <class V> INLINE V tanh_softplus_derivative(V x) {
    const V q = exp_decay(x);
    const V numerator = x > 0 ? (q + q) + 1 : q * q + (q + q);
    const V r = 2 / (numerator + 2 * (x > 0 ? q * q : splat<V>(1)));
    return (q * r) * (q + 1) * (r * (x > 0 ? q : splat<V>(1)));
}

// ---- The error function -----------------------------------------------------------------------

// e^(-x²), with what is lost in rounding x² put back.
template <class V> INLINE V gauss(V x) {
    const V a = at_most(abs(x), Traits<V>::gauss_highest);
    const V square = a * a;
    const V lost = fused(a, a, -square);
    const auto [n, p] = exponential(-square);
    const V y = scale(p + 1, n);
    return y - y * lost;
}

INLINE Float erfc(Float x) {
    const Float a = at_most(abs(x), Traits<Float>::gauss_highest), s = a * a;
    Float p = s * 0.03288597662202359f + (a * 0.2296445077350157f + 0.7324966656327021f);
    p = p * s + (a * 1.2392618993360802f + 1.0f);
    Float q = a * 0.0582881913573758f + 0.4070602858172196f;
    q = q * s + (a * 1.3270347985267574f + 2.404084683404268f);
    q = q * s + (a * 2.3676416557359388f + 1.0f);
    const Float upper = gauss(x) * (p / q);  // p/q = e^(a²)·erfc(a)
    return x < 0 ? 2 - upper : upper;
}
INLINE Float erf(Float x) {
    const Float a = abs(x), s = x * x;
    Float p = splat<Float>(0x1.496a30p-14f);
    p = p * s - 0x1.a3f700p-11f;
    p = p * s + 0x1.5405b2p-8f;
    p = p * s - 0x1.b7f90ep-6f;
    p = p * s + 0x1.ce2cf8p-4f;
    p = p * s - 0x1.81273ep-2f;
    p = p * s + 0x1.20dd74p+0f;
    return a < 1 ? p * x : with_sign(1 - erfc(a), x);
}
// erf(x) for |x| <= 1, where erf(x)/x is fitted to 2^-54.9.
INLINE Double erf_series(Double x) {
    return x * polynomial(x * x, {
        0x1.20dd750429b6dp+0, -0x1.812746b0379bdp-2, 0x1.ce2f21a040d1fp-4,
        -0x1.b82ce311fab24p-6, 0x1.565bccf92e41dp-8, -0x1.c02db03e3149fp-11,
        0x1.f9a2baaf3e63dp-14, -0x1.f4ca4db356654p-17, 0x1.b97fd59446ff1p-20,
        -0x1.5c072cf2a3662p-23, 0x1.d71b1e08f94c8p-27, -0x1.abae326401edbp-31});
}
INLINE Double erfc(Double x) {
    const Double a = at_most(abs(x), Traits<Double>::gauss_highest);
    // p/q = e^(a²)·erfc(a) on [0, 27.3], to 2^-53.9.
    const Double p = polynomial(a, {
        1.0, 0x1.2ba66dbb29958p+1, 0x1.5bc2a8b35ccdcp+1, 0x1.028743d0d45f1p+1,
        0x1.0e216f165900cp+0, 0x1.9ca4fa1086c9dp-2, 0x1.d2035cba01475p-4,
        0x1.80ab913c63de9p-6, 0x1.bdedae9fd9e0bp-9, 0x1.4a19d42f1d350p-12,
        0x1.dfd68452857f9p-17});
    const Double q = polynomial(a, {
        1.0, 0x1.bc15283d3e710p+1, 0x1.686d4f9c71ff6p+2, 0x1.6a10bb4d5e219p+2,
        0x1.f55e235129d81p+1, 0x1.f7d7a4284cf4bp+0, 0x1.7835018cb897ep-1,
        0x1.a3247009f3307p-3, 0x1.5730c9b206e24p-5, 0x1.8c063bfb6c15ep-8,
        0x1.248b5743ddb16p-11, 0x1.a93ecd17ddaf7p-16});
    const Double upper = gauss(x) * (p / q), outer = x < 0 ? 2 - upper : upper;
    return a < 0.5 ? 1 - erf_series(x) : outer;
}
INLINE Double erf(Double x) {
    const Double a = abs(x);
    return a < 1 ? erf_series(x) : with_sign(1 - erfc(a), x);
}

// ---- Roots --------------------------------------------------------------------------------------

template <class V> INLINE V sqrt(V x) {
    return each_lane(x, [](Scalar<V> v) { return libm::sqrt(v); });
}
template <class V> INLINE V rsqrt(V x) { return 1 / sqrt(x); }

// x = u·power and y = v·power, the larger of u and v near 1; length = √(u² + v²)
template <class V> struct Legs { V u, length, power; };
template <class V> INLINE Legs<V> legs(V x, V y) {
    constexpr int mantissa = Traits<V>::mantissa, bias = Traits<V>::bias;
    const V a = abs(x), b = abs(y), larger = a < b ? b : a;
    Bits<V> exponent = (Bits<V>)larger >> mantissa;
    exponent = exponent < 1 ? Bits<V>{} + 1 : exponent;
    exponent = exponent > 2 * bias - 1 ? Bits<V>{} + (2 * bias - 1) : exponent;
    const V power = (V)(exponent << mantissa), inverse = (V)((2 * bias - exponent) << mantissa);
    const V u = x * inverse, v = y * inverse;
    return {u, sqrt(u * u + v * v), power};
}
template <class V> INLINE V hypot(V x, V y) {
    const auto [u, length, power] = legs(x, y);
    return length * power;
}
// x/√(x² + y²), and 0 where both are 0
template <class V> INLINE V hypot_derivative(V x, V y) {
    const auto [u, length, power] = legs(x, y);
    return length == 0 ? length : u / length;
}

// ---- Logarithms -------------------------------------------------------------------------------

INLINE Float log(Float x) {
    const Int tiny = x < 0x1p-126f;
    const Float scaled = tiny ? x * 0x1p23f : x;
    // x = 2^e·(1 + f) with 1 + f in [√½, √2)
    const Int e = ((Int)scaled - 0x3f3504f3) >> 23;
    const Float f = (Float)((Int)scaled - (e << 23)) - 1;
    Float p = splat<Float>(-0x1.389e2cp-4f);
    p = p * f + 0x1.0557a2p-3f;
    p = p * f - 0x1.0d87a2p-3f;
    p = p * f + 0x1.22dac4p-3f;
    p = p * f - 0x1.54721cp-3f;
    p = p * f + 0x1.99a000p-3f;
    p = p * f - 0x1.000228p-2f;
    p = p * f + 0x1.555554p-2f;
    const Float n = __builtin_convertvector(e, Float) - (tiny ? splat<Float>(23) : Float{});
    const Float square = f * f;
    Float y = p * f * square + n * Traits<Float>::ln2_low;
    y = y - square * 0.5f;
    y = (y + f) + n * Traits<Float>::ln2_high;
    constexpr float infinity = std::numeric_limits<float>::infinity();
    y = x == 0 ? splat<Float>(-infinity) : y;
    return x > 0 || x == 0 ? (x < infinity ? y : x) : splat<Float>(NAN);
}

// 2·atanh(s)/s - 2 of w = s²; with s = f/(2 + f), log(1 + f) = 2·atanh(s) = f - s·(f - this).
INLINE Double atanh_series(Double w) {
    return w * polynomial(w, {  // on [0, 1/9], to 2^-52.2
        0x1.5555555555555p-1, 0x1.999999999a406p-2, 0x1.24924923d1dc9p-2,
        0x1.c71c727307951p-3, 0x1.745cf05ec01cep-3, 0x1.3b18baf3d2077p-3,
        0x1.10abf59484e25p-3, 0x1.eb995130e4c43p-4, 0x1.684f5c537af71p-4, 0x1.4b35557f59cabp-3});
}
INLINE Float atanh_series(Float w) {  // on [0, 0.0295], to 2^-21.6
    return w * ((w * 0x1.2ee612p-2f + 0x1.997c30p-2f) * w + 0x1.55555cp-1f);
}
// log(x) of a finite x > 0 as a sum, the second number the smaller.
template <class V> struct Logarithm { V high, low; };
template <class V> INLINE Logarithm<V> logarithm(V x) {
    constexpr int mantissa = Traits<V>::mantissa;
    constexpr Scalar<V> rounder = Traits<V>::rounder;
    const Bits<V> tiny = x < std::numeric_limits<Scalar<V>>::min();
    const Bits<V> bits = (Bits<V>)(tiny ? x * Scalar<V>(1ll << mantissa) : x);
    // x = 2^e·(1 + f) with 1 + f in [√½, √2)
    const Bits<V> e = (bits - (Bits<V>)splat<V>(0x1.6a09e667f3bcdp-1)) >> mantissa;
    const V f = (V)(bits - (e << mantissa)) - 1, s = f / (f + 2);
    const V n = ((V)(e + (Bits<V>)splat<V>(rounder)) - rounder) - (tiny ? splat<V>(mantissa) : V{});
    const V whole = n * Traits<V>::ln2_high, sum = whole + f;  // the product is exact
    const V rest = n * Traits<V>::ln2_low - s * (f - atanh_series(s * s)) + (f - (sum - whole));
    const V high = sum + rest;
    return {high, rest - (high - sum)};
}
INLINE Double log(Double x) {
    constexpr double infinity = std::numeric_limits<double>::infinity();
    const Double y = x == 0 ? splat<Double>(-infinity) : logarithm(x).high;
    return x > 0 || x == 0 ? (x < infinity ? y : x) : splat<Double>(NAN);
}

template <class V> INLINE V log1p(V x) {
    const V u = x + 1, lost = x - (u - 1);
    return x == 0 ? x : log(u) + (x < Scalar<V>(0x1p30) && u > 0 ? lost / u : V{});
}

// log(1 + q) for 0 <= q <= 1, which is 2·atanh(t/2) with t = q/(1 + q/2) <= 2/3.
INLINE Float log1p_of_unit(Float q) {
    const Float t = (q + q) / (q + 2), w = t * t * 0.25f;
    Float p = w * 0.14078889787197113f + 0.13982579112052917f;
    p = p * w + 0.20012298226356506f;
    p = p * w + 0.3333316147327423f;
    return t * (p * w) + t;
}
INLINE Double log1p_of_unit(Double q) {
    const Double s = q / (q + 2);
    return q - s * (q - atanh_series(s * s));
}

// log(|x| + √(x² + 1)) as log1p(a·(1 + a/(1 + √(a² + 1)))), or as log(2a).
template <class V> INLINE V asinh(V x) {
    constexpr Scalar<V> large = Scalar<V>(1ll << (Traits<V>::mantissa + 5));
    const V a = abs(x), s = a < large ? a : splat<V>(1);
    const V z = s * (s / (sqrt(s * s + 1) + 1)) + s;
    const V y = a < large ? log1p(z) : log(a) + Scalar<V>(0.6931471805599453);
    return with_sign(y, x);
}

template <class V> INLINE V logaddexp(V x, V y) {
    // Infinities may be equal.
    return maximum(x, y) + log1p_of_unit(exp_decay(x == y ? V{} : x - y));
}

template <class V> INLINE V softplus(V x) { return at_least(x, 0) + log1p_of_unit(exp_decay(x)); }

// ---- Trigonometry -----------------------------------------------------------------------------

// |x| beyond this is left to libm: the reduction below would lose digits.
constexpr float sin_highest = 1e5f;

// x = n·π/2 + r with |r| <= π/4; sine and cosine of r
template <class V> struct Quarter { Bits<V> n; V sin, cos; };
INLINE Quarter<Float> quarter(Float x) {
    const Float shifted = x * 0x1.45f306p-1f + Traits<Float>::rounder;
    const Float n = shifted - Traits<Float>::rounder;
    // Fused on every machine: a rounded n·π/2 would leave nothing of the difference.
    Float r = fused(n, splat<Float>(-0x1.921fb6p+0f), x);
    r = fused(n, splat<Float>(0x1.777a5cp-25f), r);
    const Float s = r * r;
    Float sin = splat<Float>(-0x1.994cfap-13f);
    sin = sin * s + 0x1.11075cp-7f;
    sin = sin * s - 0x1.555546p-3f;
    const Float high = s * 0x1.99ea04p-16f - 0x1.6c0c2ep-10f;
    const Float cos = high * (s * s) + (s * 0x1.55554ap-5f - 0.5f);
    return {(Int)shifted, sin * (s * r) + r, cos * s + 1};
}
INLINE Quarter<Double> quarter(Double x) {
    const Double shifted = x * 0x1.45f306dc9c883p-1 + Traits<Double>::rounder;
    const Double n = shifted - Traits<Double>::rounder;
    Double r = fused(n, splat<Double>(-0x1.921fb54442d18p+0), x);
    r = fused(n, splat<Double>(-0x1.1a62633145c07p-54), r);
    const Double s = r * r;
    const Double sin = polynomial(s, {  // to 2^-52.2
        -0x1.5555555555555p-3, 0x1.1111111110ba4p-7, -0x1.a01a019e80bb2p-13,
        0x1.71de37932f861p-19, -0x1.ae6007e22639dp-26, 0x1.5e0a14a43f0e7p-33});
    const Double cos = polynomial(s, {  // to 2^-53.9
        0x1.5555555555555p-5, -0x1.6c16c16c16967p-10, 0x1.a01a019f4e9b4p-16,
        -0x1.27e4fa17bf139p-22, 0x1.1eeb68cd22f56p-29, -0x1.907d8f29fe831p-37});
    return {(Long)shifted, sin * (s * r) + r, (cos * s - 0.5) * s + 1};
}
template <class V> static __attribute__((noinline, cold)) V slow_sin(V x) {
    return each_lane(finite(x), [](Scalar<V> v) { return libm::sin(v); });
}
template <class V> static __attribute__((noinline, cold)) V slow_cos(V x) {
    return each_lane(finite(x), [](Scalar<V> v) { return libm::cos(v); });
}
template <class V> INLINE V sin(V x) {
    if (__builtin_expect(any((Int)(abs(x) > sin_highest)), 0)) return slow_sin(x);
    const auto [n, sin, cos] = quarter(x);
    const V y = (n & 1) != 0 ? cos : sin;
    return (V)((Bits<V>)y ^ ((n & 2) << (8 * sizeof(Scalar<V>) - 2)));
}
template <class V> INLINE V cos(V x) {
    if (__builtin_expect(any((Int)(abs(x) > sin_highest)), 0)) return slow_cos(x);
    const auto [n, sin, cos] = quarter(x);
    const V y = (n & 1) != 0 ? sin : cos;
    return (V)((Bits<V>)y ^ (((n + 1) & 2) << (8 * sizeof(Scalar<V>) - 2)));
}

// With r = a - n, |r| <= 1/2: sin(πr)/(πr), cos(πr) and (cos(πr) - sin(πr)/(πr))/r² by r².
INLINE Float half_turn_sinc(Float s) {
    Float p = s * 0x1.951846p-6f - 0x1.860946p-3f;
    p = p * s + 0x1.9f994cp-1f;
    p = p * s - 0x1.a51a5ap+0f;
    return p * s + 1;
}
INLINE Float half_turn_cos(Float s) {
    Float p = s * -0x1.901bd8p-6f + 0x1.e12f86p-3f;
    p = p * s - 0x1.55d0bap+0f;
    p = p * s + 0x1.03c1e6p+2f;
    p = p * s - 0x1.3bd3ccp+2f;
    return p * s + 1;
}
INLINE Float half_turn_slope(Float s) {
    Float p = s * -0x1.6e54e6p-6f + 0x1.abe8a0p-3f;
    p = p * s - 0x1.24fd3ap+0f;
    p = p * s + 0x1.9f9caep+1f;
    return p * s - 0x1.a51a66p+1f;
}
INLINE Double half_turn_sinc(Double s) {
    return s * polynomial(s, {  // to 2^-61.7
        -0x1.a51a6625307d3p+0, 0x1.9f9cb402bc3f2p-1, -0x1.86a8e47208961p-3, 0x1.ac6805cbdb25fp-6,
        -0x1.3381696cdfc8dp-9, 0x1.374695b3a0ff5p-13, -0x1.d3e335ef6fd0bp-18,
        0x1.070f4858adf20p-22}) + 1;
}
INLINE Double half_turn_cos(Double s) {
    return s * polynomial(s, {  // to 2^-57.7
        -0x1.3bd3cc9be45dcp+2, 0x1.03c1f081b59c8p+2, -0x1.55d3c7e3c115ep+0, 0x1.e1f50681cae0dp-3,
        -0x1.a6d1efeb4bc34p-6, 0x1.f9d25db5d621ep-10, -0x1.b696d3d9c31dfp-14,
        0x1.168d559356009p-18}) + 1;
}
INLINE Double half_turn_slope(Double s) {
    return polynomial(s, {  // to 2^-55.4
        -0x1.a51a6625307d3p+1, 0x1.9f9cb402bc421p+1, -0x1.24feab5587409p+0, 0x1.ac6805cc3a414p-3,
        -0x1.8061c3dc0dceap-6, 0x1.d2e9e41477b04p-10, -0x1.9966e5808d5d4p-14,
        0x1.07084162b7119p-18});
}
// |x| = n + r, the sign of (-1)^n, and sin(πx)/(πx) = ±(r/|x|)·sin(πr)/(πr)
template <class V> struct HalfTurn { V r; Bits<V> sign; };
template <class V> INLINE HalfTurn<V> half_turn(V x) {
    constexpr Scalar<V> whole = Scalar<V>(1ll << Traits<V>::mantissa);
    const V a = abs(x), shifted = a + whole;
    const V r = a < whole ? a - (shifted - whole) : V{};
    const V last = a < whole ? shifted : a < 2 * whole ? a : V{};  // whose last bit is n's
    return {r, (Bits<V>)last << (8 * sizeof(Scalar<V>) - 1)};
}
template <class V> INLINE V with_flip(V x, Bits<V> sign) { return (V)((Bits<V>)x ^ sign); }
template <class V> INLINE V sinc(V x) {
    const auto [r, sign] = half_turn(x);
    const V a = abs(x);
    return with_flip((r == a ? splat<V>(1) : r / a) * half_turn_sinc(r * r), sign);
}
template <class V> INLINE V sinc_derivative(V x) {
    const auto [r, sign] = half_turn(x);
    const V y = (with_flip(half_turn_cos(r * r), sign) - sinc(x)) / x;
    return r == abs(x) ? x * half_turn_slope(r * r) : y;
}

INLINE Float atan(Float x) {
    const Float a = abs(x), t = a > 1 ? 1 / a : a, s = t * t;
    Float p = splat<Float>(-0x1.d62fd2p-10f);
    p = p * s + 0x1.65a64cp-7f;
    p = p * s - 0x1.fed150p-6f;
    p = p * s + 0x1.dac9dcp-5f;
    p = p * s - 0x1.58348ep-4f;
    p = p * s + 0x1.c099fep-4f;
    p = p * s - 0x1.2421b6p-3f;
    p = p * s + 0x1.9991fep-3f;
    p = p * s - 0x1.55553ep-2f;
    p = p * s * t + t;
    return with_sign(a > 1 ? 0x1.921fb6p+0f - p : p, x);
}
INLINE Double atan(Double x) { return each_lane(x, [](double v) { return libm::atan(v); }); }

// ---- Powers -----------------------------------------------------------------------------------

// x^y for a finite x > 0: e^(y·log(x)), the exponent as a sum of two numbers.
template <class V> INLINE V power_of_positive(V x, V y) {
    constexpr Scalar<V> lowest = Traits<V>::exp_lowest, highest = Traits<V>::exp_highest;
    const auto [high, low] = logarithm(x);
    const V bounded = clip(y, splat<V>(-0x1p64), splat<V>(0x1p64));  // times 0 it is 0
    const V exponent = bounded * high;
    const V lost = fused(bounded, high, -exponent) + bounded * low;
    const auto [n, p] = exponential(at_most(at_least(exponent, lowest), highest));
    return scale((abs(exponent) < -lowest ? (p + 1) * lost + p : p) + 1, n);
}
// As std::pow, but for the sign of zero.
template <class V> INLINE V power(V x, V y) {
    constexpr Scalar<V> infinity = std::numeric_limits<Scalar<V>>::infinity();
    // All numbers that large are even.
    const V even = splat<V>(Scalar<V>(1ll << (8 * sizeof(Scalar<V>) - 2))), bounded = clip(y, -even, even);
    const Bits<V> whole = __builtin_convertvector(bounded, Bits<V>);
    const Bits<V> is_whole = __builtin_convertvector(whole, V) == bounded, is_odd = is_whole & -(whole & 1);
    const V a = abs(x), overflow = splat<V>(infinity);
    V z = power_of_positive(a, y);
    z = a == 0 ? (y > 0 ? V{} : overflow) : a == infinity ? (y > 0 ? overflow : V{}) : z;
    z = is_odd ? with_sign(z, x) : z;
    z = x < 0 && a < infinity && !is_whole ? splat<V>(NAN) : z;
    return y == 0 || x == 1 ? splat<V>(1) : unless_nan(unless_nan(z, x), y);
}
// x^y·log(x), and 0 where x = 0 and y >= 0, as PyTorch has it.
template <class V> INLINE V power_log(V x, V y) {
    return x == 0 && y >= 0 ? V{} : power(x, y) * log(x);
}

// ---- Remainders ---------------------------------------------------------------------------------

// x mod y by libm, of y's sign as PyTorch's.
template <class V> static __attribute__((noinline, cold)) V slow_remainder(V x, V y) {
    for (int i = 0; i < lanes<V>; i++) {
        const Scalar<V> r = libm::fmod(x[i], y[i]);
        x[i] = r != 0 && (r < 0) != (y[i] < 0) ? r + y[i] : r;
    }
    return x;
}
// x - n·y is exact once n is the rounded quotient, which is one too much where that was rounded up.
template <class V> INLINE V remainder(V x, V y) {
    constexpr Scalar<V> large = Scalar<V>(1ll << Traits<V>::mantissa);
    constexpr Scalar<V> infinity = std::numeric_limits<Scalar<V>>::infinity();
    const V quotient = x / y;
    if (__builtin_expect(any((Int)((abs(quotient) >= large) | (abs(y) == infinity))), 0))
        return slow_remainder(x, y);
    const V r = fused(-floor(quotient), y, x);
    return r == 0 ? with_sign(V{}, x) : (r < 0) != (y < 0) ? r + y : r;
}
