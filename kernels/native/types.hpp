// Numbers of 16 bits in memory, float or double in registers.
#pragma once
#include "vectors.hpp"

struct float16 {
    u16 bits;
};
struct bfloat16 {
    u16 bits;
};

template <class T> struct WideOf {
    using type = float;
};
template <> struct WideOf<double> {
    using type = double;
};
template <class T> using Wide = typename WideOf<T>::type;

struct HalfVector {
    typedef u16 U16 __attribute__((vector_size(BYTES / 2)));
};
using U16 = HalfVector::U16;  // as many elements as F32

INLINE F32 widen(const U16& x, bfloat16) { return as<F32>(__builtin_convertvector(x, U32) << 16); }
INLINE F32 widen(const U16& x, float16) {
#if defined(BOLTZBENCH_AVX512)
    return (F32)_mm512_cvtph_ps((__m256i)x);
#elif defined(BOLTZBENCH_AVX2) && defined(__F16C__)
    return (F32)_mm256_cvtph_ps((__m128i)x);
#else
    F32 wide;
    for (int i = 0; i < LANES<float>; ++i) wide[i] = static_cast<float>(as<_Float16>(static_cast<u16>(x[i])));
    return wide;
#endif
}

// Rounded to nearest, ties to even; a NaN stays one.
INLINE U16 narrow(const F32& x, bfloat16) {
    const U32 bits = as<U32>(x), rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
    return __builtin_convertvector(x != x ? (bits >> 16 | 0x40u) : rounded, U16);
}
INLINE U16 narrow(const F32& x, float16) {
#if defined(BOLTZBENCH_AVX512)
    return (U16)_mm512_cvtps_ph((__m512)x, _MM_FROUND_TO_NEAREST_INT);
#elif defined(BOLTZBENCH_AVX2) && defined(__F16C__)
    return (U16)_mm256_cvtps_ph((__m256)x, _MM_FROUND_TO_NEAREST_INT);
#else
    U16 bits;
    for (int i = 0; i < LANES<float>; ++i) bits[i] = as<u16>(static_cast<_Float16>(x[i]));
    return bits;
#endif
}

// A vector of the wide type from memory of type T, and back.
template <class T> INLINE V<Wide<T>> load_wide(const T* from) {
    if constexpr (sizeof(T) == 2) return widen(load<U16>(from), T());
    else return load<V<T>>(from);
}
template <class T> INLINE void store_narrow(T* to, const V<Wide<T>>& x) {
    if constexpr (sizeof(T) == 2) store(to, narrow(x, T()));
    else store(to, x);
}

// The same with the first `count` elements only; those that are not in memory are 0.
template <class T> INLINE V<Wide<T>> load_some(const T* from, i64 count) {
#if defined(BOLTZBENCH_AVX512)
    const u32 present = (1u << count) - 1;
    if constexpr (sizeof(T) == 2) return widen((U16)_mm256_maskz_loadu_epi16(present, from), T());
    else if constexpr (sizeof(T) == 4) return (F32)_mm512_maskz_loadu_ps(present, from);
    else return (F64)_mm512_maskz_loadu_pd(present, from);
#else
    T part[LANES<Wide<T>>] = {};
    std::memcpy(part, from, count * sizeof(T));
    return load_wide(part);
#endif
}
template <class T> INLINE void store_some(T* to, const V<Wide<T>>& x, i64 count) {
#if defined(BOLTZBENCH_AVX512)
    const u32 present = (1u << count) - 1;
    if constexpr (sizeof(T) == 2) _mm256_mask_storeu_epi16(to, present, (__m256i)narrow(x, T()));
    else if constexpr (sizeof(T) == 4) _mm512_mask_storeu_ps(to, present, (__m512)x);
    else _mm512_mask_storeu_pd(to, present, (__m512d)x);
#else
    T part[LANES<Wide<T>>];
    store_narrow(part, x);
    std::memcpy(to, part, count * sizeof(T));
#endif
}
