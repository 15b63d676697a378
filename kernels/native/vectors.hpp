// Vectors of the widest registers of the target: GCC's vector types, with the few instructions that they lack.
//
// V<T> has LANES<T> elements. The operators +, -, *, /, &, |, ^, ~, <<, >>, comparisons (which give masks of -1 and 0) and
// `mask ? a : b` work by element. Code is written once and compiled for AVX-512, AVX2 or whatever else the machine has.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include <omp.h>
#if defined(__SSE2__)
#include <immintrin.h>
#endif

using i8 = std::int8_t;
using u8 = std::uint8_t;
using i16 = std::int16_t;
using u16 = std::uint16_t;
using i32 = std::int32_t;
using u32 = std::uint32_t;
using i64 = std::int64_t;
using u64 = std::uint64_t;

#if defined(__AVX512F__) && defined(__AVX512DQ__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#define BOLTZBENCH_AVX512 1
constexpr int BYTES = 64;
#elif defined(__AVX2__) && defined(__FMA__)
#define BOLTZBENCH_AVX2 1
constexpr int BYTES = 32;
#else
constexpr int BYTES = 16;
#endif

template <class T> struct VectorOf {
    typedef T type __attribute__((vector_size(BYTES)));
};
template <class T> using V = typename VectorOf<T>::type;
template <class T> constexpr int LANES = BYTES / sizeof(T);

using F32 = V<float>;
using F64 = V<double>;
using I32 = V<i32>;
using U32 = V<u32>;
using I64 = V<i64>;
using U64 = V<u64>;

#define KERNEL extern "C" __attribute__((visibility("default")))  // a function that Python calls
#define INLINE inline __attribute__((always_inline))

template <class T, class From> INLINE T as(const From& from) {  // the same bits
    static_assert(sizeof(T) == sizeof(From));
    T to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}

template <class Vector, class T> INLINE Vector load(const T* from) {  // from any address
    Vector x;
    std::memcpy(&x, from, sizeof x);
    return x;
}
template <class Vector, class T> INLINE void store(T* to, const Vector& x) { std::memcpy(to, &x, sizeof x); }

// The first `count` elements, the others `rest`; and to store only these.
template <class Vector, class T> INLINE Vector load_first(const T* from, i64 count, T rest = 0) {
    T part[sizeof(Vector) / sizeof(T)];
    for (T& each : part) each = rest;
    std::memcpy(part, from, count * sizeof(T));
    return load<Vector>(part);
}
template <class Vector, class T> INLINE void store_first(T* to, const Vector& x, i64 count) {
    std::memcpy(to, &x, count * sizeof(T));
}

template <class T> INLINE V<T> all(T x) { return x - V<T>{}; }
template <> INLINE V<float> all(float x) { return x + V<float>{}; }

// 0, 1, 2, ...
template <class T> INLINE V<T> places() {
    V<T> x;
    for (int i = 0; i < LANES<T>; ++i) x[i] = static_cast<T>(i);
    return x;
}

// f of each element.
template <class Vector, class F> INLINE Vector each(const Vector& x, F f) {
    Vector y;
    for (unsigned i = 0; i < sizeof x / sizeof x[0]; ++i) y[i] = f(x[i]);
    return y;
}

// a * b + c, rounded once where the machine can.
INLINE F32 fma(F32 a, F32 b, F32 c) {
#if defined(BOLTZBENCH_AVX512)
    return (F32)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(BOLTZBENCH_AVX2)
    return (F32)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
    return a * b + c;
#endif
}
INLINE F64 fma(F64 a, F64 b, F64 c) {
#if defined(BOLTZBENCH_AVX512)
    return (F64)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
#elif defined(BOLTZBENCH_AVX2)
    return (F64)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
#else
    return a * b + c;
#endif
}

INLINE F32 square_root(F32 x) {
#if defined(BOLTZBENCH_AVX512)
    return (F32)_mm512_sqrt_ps((__m512)x);
#elif defined(BOLTZBENCH_AVX2)
    return (F32)_mm256_sqrt_ps((__m256)x);
#elif defined(__SSE2__)
    return (F32)_mm_sqrt_ps((__m128)x);
#else
    return each(x, [](float a) { return std::sqrt(a); });
#endif
}
INLINE F64 square_root(F64 x) {
#if defined(BOLTZBENCH_AVX512)
    return (F64)_mm512_sqrt_pd((__m512d)x);
#elif defined(BOLTZBENCH_AVX2)
    return (F64)_mm256_sqrt_pd((__m256d)x);
#elif defined(__SSE2__)
    return (F64)_mm_sqrt_pd((__m128d)x);
#else
    return each(x, [](double a) { return std::sqrt(a); });
#endif
}

// The 64-bit products of the low halves of the elements.
INLINE U64 multiply_low_halves(U64 a, U64 b) {
#if defined(BOLTZBENCH_AVX512)
    return (U64)_mm512_mul_epu32((__m512i)a, (__m512i)b);
#elif defined(BOLTZBENCH_AVX2)
    return (U64)_mm256_mul_epu32((__m256i)a, (__m256i)b);
#elif defined(__SSE2__)
    return (U64)_mm_mul_epu32((__m128i)a, (__m128i)b);
#else
    return (a & 0xffffffffu) * (b & 0xffffffffu);
#endif
}

// The larger and the smaller of each pair; the second if one is NaN.
template <class Vector> INLINE Vector larger(const Vector& a, const Vector& b) { return a > b ? a : b; }
template <class Vector> INLINE Vector smaller(const Vector& a, const Vector& b) { return a < b ? a : b; }
#if defined(BOLTZBENCH_AVX512)
template <> INLINE F32 larger(const F32& a, const F32& b) { return (F32)_mm512_max_ps((__m512)a, (__m512)b); }
template <> INLINE F32 smaller(const F32& a, const F32& b) { return (F32)_mm512_min_ps((__m512)a, (__m512)b); }
template <> INLINE F64 larger(const F64& a, const F64& b) { return (F64)_mm512_max_pd((__m512d)a, (__m512d)b); }
template <> INLINE F64 smaller(const F64& a, const F64& b) { return (F64)_mm512_min_pd((__m512d)a, (__m512d)b); }
#elif defined(BOLTZBENCH_AVX2)
template <> INLINE F32 larger(const F32& a, const F32& b) { return (F32)_mm256_max_ps((__m256)a, (__m256)b); }
template <> INLINE F32 smaller(const F32& a, const F32& b) { return (F32)_mm256_min_ps((__m256)a, (__m256)b); }
template <> INLINE F64 larger(const F64& a, const F64& b) { return (F64)_mm256_max_pd((__m256d)a, (__m256d)b); }
template <> INLINE F64 smaller(const F64& a, const F64& b) { return (F64)_mm256_min_pd((__m256d)a, (__m256d)b); }
#endif

// x within [low, high]; NaN stays.
template <class Vector, class T> INLINE Vector limited(const Vector& x, T low, T high) {
    return larger(all(low), smaller(all(high), x));
}

// A mask of the first `count` lanes.
template <class T> INLINE auto first_lanes(i64 count) {
    using Whole = std::conditional_t<sizeof(T) == 4, i32, i64>;
    return places<Whole>() < all<Whole>(Whole(count));
}

// The lanes of `a` where `lane & WIDTH` is 0 and those of `b`, as the first or the second of two vectors with blocks of WIDTH
// lanes exchanged.
template <bool SECOND, int WIDTH, class Vector, int... LANE>
INLINE Vector exchanged(const Vector& a, const Vector& b, std::integer_sequence<int, LANE...>) {
    constexpr int COUNT = sizeof...(LANE), SHIFT = SECOND ? WIDTH : 0;
#if defined(__clang__)
    return __builtin_shufflevector(a, b, (LANE & WIDTH ? LANE - WIDTH + COUNT + SHIFT : LANE + SHIFT)...);
#else
    using Index = V<std::conditional_t<sizeof a[0] == 4, i32, i64>>;
    return __builtin_shuffle(a, b, Index{(LANE & WIDTH ? LANE - WIDTH + COUNT + SHIFT : LANE + SHIFT)...});
#endif
}
// Lane j of vector i becomes lane i of vector j.
template <int WIDTH = 1, class Vector> INLINE void transpose(Vector* rows) {
    constexpr int COUNT = sizeof(Vector) / sizeof(rows[0][0]);
    for (int i = 0; i < COUNT; ++i) {
        if (i & WIDTH) continue;
        const Vector a = rows[i], b = rows[i + WIDTH];
        rows[i] = exchanged<false, WIDTH>(a, b, std::make_integer_sequence<int, COUNT>());
        rows[i + WIDTH] = exchanged<true, WIDTH>(a, b, std::make_integer_sequence<int, COUNT>());
    }
    if constexpr (2 * WIDTH < COUNT) transpose<2 * WIDTH>(rows);
}

// All elements combined, by a tree.
template <class Vector, class F> INLINE auto reduce(Vector x, F combine) {
    constexpr int lanes = sizeof x / sizeof x[0];
    std::remove_reference_t<decltype(x[0])> part[lanes];
    std::memcpy(part, &x, sizeof x);
    for (int width = lanes / 2; width; width /= 2)
        for (int i = 0; i < width; ++i) part[i] = combine(part[i], part[i + width]);
    return part[0];
}
template <class Vector> INLINE auto sum(const Vector& x) {
    return reduce(x, [](auto a, auto b) { return a + b; });
}
// Whether any bit is set.
template <class Vector> INLINE bool any(const Vector& mask) {
#if defined(BOLTZBENCH_AVX512)
    return _mm512_test_epi32_mask((__m512i)mask, (__m512i)mask) != 0;
#elif defined(BOLTZBENCH_AVX2)
    return !_mm256_testz_si256((__m256i)mask, (__m256i)mask);
#else
    const U64 words = as<U64>(mask);
    return (words[0] | words[1]) != 0;
#endif
}

// Bit i is that of lane i of a mask.
template <class Mask> INLINE u32 bits(const Mask& mask) {
#if defined(BOLTZBENCH_AVX512)
    if constexpr (sizeof mask[0] == 4) return _mm512_movepi32_mask((__m512i)mask);
    else return _mm512_movepi64_mask((__m512i)mask);
#elif defined(BOLTZBENCH_AVX2)
    if constexpr (sizeof mask[0] == 4) return _mm256_movemask_ps((__m256)mask);
    else return _mm256_movemask_pd((__m256d)mask);
#else
    u32 found = 0;
    for (unsigned i = 0; i < sizeof mask / sizeof mask[0]; ++i) found |= u32(mask[i] & 1) << i;
    return found;
#endif
}

// a0 b0 a1 b1 ..., as two vectors.
INLINE void interleave(const F32& a, const F32& b, F32& low, F32& high) {
#if defined(BOLTZBENCH_AVX512)
    const __m512 x = _mm512_unpacklo_ps((__m512)a, (__m512)b), y = _mm512_unpackhi_ps((__m512)a, (__m512)b);
    const __m512i first = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
    const __m512i second = _mm512_setr_epi32(8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31);
    low = (F32)_mm512_permutex2var_ps(x, first, y), high = (F32)_mm512_permutex2var_ps(x, second, y);
#else
    float part[2 * LANES<float>];
    for (int i = 0; i < LANES<float>; ++i) part[2 * i] = a[i], part[2 * i + 1] = b[i];
    low = load<F32>(part), high = load<F32>(part + LANES<float>);
#endif
}

// Calls f(i) for i below `count`, `grain` at a time, on at most `threads` threads: f(first, last) for each range.
template <class F> INLINE void parallel(i64 count, i64 grain, int threads, F f) {
    const i64 parts = (count + grain - 1) / grain;
    if (threads <= 1 || parts <= 1) {
        if (count > 0) f(i64(0), count);
        return;
    }
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
    for (i64 part = 0; part < parts; ++part) {
        const i64 first = part * grain, end = first + grain;
        f(first, end < count ? end : count);
    }
}
