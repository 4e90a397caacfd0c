// Loading and storing tensors' elements: vectors in the arithmetic's type, each rounded once.
//
// The generated code defines, in namespace `formula`, the vector type V that arithmetic runs in.

INLINE Float load(const float* p) { Float v; std::memcpy(&v, p, sizeof v); return v; }
INLINE Double load(const double* p) { Double v; std::memcpy(&v, p, sizeof v); return v; }
INLINE void store(float* p, Float v) { std::memcpy(p, &v, sizeof v); }
INLINE void store(double* p, Double v) { std::memcpy(p, &v, sizeof v); }

typedef uint16_t Shorts __attribute__((vector_size(ZETA_BYTES / 2)));

typedef int16_t Halves __attribute__((vector_size(ZETA_BYTES / 2)));

INLINE Float load(const BFloat* p) {
    Halves v;
    std::memcpy(&v, p, sizeof v);
#if defined(ZETA_AVX512)
    return (Float)(__builtin_ia32_pmovzxwd512_mask(v, Int{}, -1) << 16);
#elif defined(ZETA_AVX) && defined(__AVX2__)
    return (Float)(__builtin_ia32_pmovzxwd256(v) << 16);
#else
    return (Float)(__builtin_convertvector((Shorts)v, Int) << 16);
#endif
}
// Rounds to nearest even: by the processor's instruction, which takes subnormals for zero, or in
// integers. There the carry would spoil a NaN whose bits are all ones, which
// arithmetic does not make: see `canonical`.
INLINE void store(BFloat* p, Float v) {
#if defined(ZETA_AVX512) && defined(__AVX512BF16__) && defined(__AVX512DQ__)
    constexpr int subnormal = 0x20;
    if (__builtin_expect(!__builtin_ia32_fpclassps512_mask(v, subnormal, -1), 1)) {
        const auto result = __builtin_ia32_cvtneps2bf16_v16sf(v);
        std::memcpy(p, &result, sizeof result);
        return;
    }
#endif
    const Int bits = (Int)v, rounded = bits + (((bits >> 16) & 1) + 0x7fff);
    const Shorts result = __builtin_convertvector(rounded >> 16, Shorts);
    std::memcpy(p, &result, sizeof result);
}

// A value from memory with every NaN as the one that arithmetic makes.
template <class V> INLINE V canonical(V x) {
    return x != x ? splat<V>(std::numeric_limits<Scalar<V>>::quiet_NaN()) : x;
}

// Half by the processor's instructions on Arm and, with GCC, on x86; elsewhere by its bits, which
// on x86 clang's vectors of __fp16 do not beat.
#if defined(ZETA_AVX512) || defined(ZETA_AVX)
INLINE Float load(const Half* p) {
    Halves v;
    std::memcpy(&v, p, sizeof v);
#if defined(ZETA_AVX512)
    return __builtin_ia32_vcvtph2ps512_mask(v, Float{}, -1, 4);
#else
    return __builtin_ia32_vcvtph2ps256(v);
#endif
}
INLINE void store(Half* p, Float v) {
#if defined(ZETA_AVX512)
    const Halves result = __builtin_ia32_vcvtps2ph512_mask(v, 0, Halves{}, -1);
#else
    const Halves result = __builtin_ia32_vcvtps2ph256(v, 0);
#endif
    std::memcpy(p, &result, sizeof result);
}
#elif defined(__ARM_FP16_FORMAT_IEEE) && !defined(ZETA_PORTABLE)
typedef __fp16 Fp16s __attribute__((vector_size(ZETA_BYTES / 2)));
INLINE Float load(const Half* p) {
    Fp16s v;
    std::memcpy(&v, p, sizeof v);
    return __builtin_convertvector(v, Float);
}
INLINE void store(Half* p, Float v) {
    const Fp16s result = __builtin_convertvector(v, Fp16s);
    std::memcpy(p, &result, sizeof result);
}
#else
// A half's exponent and significand, moved to a float's place, are those of the value by 2^-112.
INLINE Float load(const Half* p) {
    Shorts v;
    std::memcpy(&v, p, sizeof v);
    const Int bits = __builtin_convertvector(v, Int), magnitude = (bits & 0x7fff) << 13;
    constexpr int exponent = 0x7c00 << 13, rebias = (127 - 15) << 23;
    const Int normal = magnitude + rebias;
    // Of a subnormal the float with the exponent of the smallest normal has 1 in front: taken off.
    const Int subnormal = (Int)((Float)(normal + (1 << 23)) - 0x1p-14f);
    const Int unsigned_bits = magnitude >= exponent       ? normal + rebias
                              : magnitude < (0x400 << 13) ? subnormal
                                                          : normal;
    return (Float)(unsigned_bits | (bits & 0x8000) << 16);
}
// Rounds to nearest even: a normal half in integers, a subnormal one by adding a float whose last
// place is the halves' last.
INLINE void store(Half* p, Float v) {
    const Int bits = (Int)v, magnitude = bits & 0x7fffffff;
    constexpr int rebias = (127 - 15) << 23, smallest_normal = (127 - 14) << 23;
    constexpr int overflow = (127 + 16) << 23, infinity = 0xff << 23;
    const Int normal = (magnitude - rebias + 0xfff + ((magnitude >> 13) & 1)) >> 13;
    const Int subnormal = (Int)((Float)magnitude + 0.5f) - (126 << 23);
    const Int unsigned_bits = magnitude > infinity          ? Int{} + 0x7e00
                              : magnitude >= overflow       ? Int{} + 0x7c00
                              : magnitude < smallest_normal ? subnormal
                                                            : normal;
    const Shorts result = __builtin_convertvector(unsigned_bits | (bits >> 16 & 0x8000), Shorts);
    std::memcpy(p, &result, sizeof result);
}
#endif

// The first `size` bytes of a vector, the rest as it was. By way of memory, whose parts do not
// reach a load that spans them at once, it would cost more than all else on a row of ten.
template <int bytes> struct Bytes { typedef char type __attribute__((vector_size(bytes))); };
#if defined(ZETA_AVX512) && defined(__AVX512BW__) && defined(__AVX512VL__)
INLINE void load_bytes(Bytes<64>::type& v, const void* p, int size) {
    v = __builtin_ia32_loaddquqi512_mask((const char*)p, v, ~0ull >> (64 - size));
}
INLINE void load_bytes(Bytes<32>::type& v, const void* p, int size) {
    v = __builtin_ia32_loaddquqi256_mask((const char*)p, v, ~0u >> (32 - size));
}
INLINE void store_bytes(void* p, Bytes<64>::type v, int size) {
    __builtin_ia32_storedquqi512_mask((char*)p, v, ~0ull >> (64 - size));
}
INLINE void store_bytes(void* p, Bytes<32>::type v, int size) {
    __builtin_ia32_storedquqi256_mask((char*)p, v, ~0u >> (32 - size));
}
#else
template <class B> INLINE void load_bytes(B& v, const void* p, int size) { std::memcpy(&v, p, size); }
template <class B> INLINE void store_bytes(void* p, B v, int size) { std::memcpy(p, &v, size); }
#endif

// Which lanes are among the first `count`.
template <class V> INLINE Bits<V> first(int count) {
    Bits<V> lane;
    for (int i = 0; i < lanes<V>; i++) lane[i] = i;
    return lane < count;
}
// The first `count` lanes; the others repeat the first.
template <class T> INLINE formula::V load_some(const T* p, int count) {
    typename Bytes<lanes<formula::V> * sizeof(T)>::type bytes = {};
    load_bytes(bytes, p, count * sizeof(T));
    const formula::V v = load((const T*)&bytes);
    return first<formula::V>(count) ? v : splat<formula::V>(v[0]);
}
template <class T> INLINE void store_some(T* p, formula::V v, int count) {
    typename Bytes<lanes<formula::V> * sizeof(T)>::type bytes;
    store((T*)&bytes, v);
    store_bytes(p, bytes, count * sizeof(T));
}

// 0, 1, … n - 1: <utility>, where the standard library has them, would take an eighth of the compile
// time.
template <int... i> struct Numbers {};
template <int n, int... i> struct Below : Below<n - 1, n - 1, i...> {};
template <int... i> struct Below<0, i...> { typedef Numbers<i...> type; };

// What lies in turn in two vectors, a b a b …, as two vectors; and back.
template <class V, int... i> INLINE void split(V low, V high, V& a, V& b, Numbers<i...>) {
    a = __builtin_shufflevector(low, high, 2 * i...);
    b = __builtin_shufflevector(low, high, (2 * i + 1)...);
}
template <class V, int... i> INLINE void join(V a, V b, V& low, V& high, Numbers<i...>) {
    constexpr int n = sizeof...(i);
    low = __builtin_shufflevector(a, b, (i / 2 + i % 2 * n)...);
    high = __builtin_shufflevector(a, b, (n / 2 + i / 2 + i % 2 * n)...);
}
