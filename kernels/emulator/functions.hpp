// CUDA's vector types, atomics, bit functions and math functions, for the host.
//
// They live in namespace `device`, like the kernel file, so that they hide functions of the C library with the same
// names (newer libraries have sinpif and rsqrtf). One OS thread runs all CUDA threads and switches between them only at
// synchronisation points: a plain read and write is therefore atomic.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

// CUDA's keywords, defined after the standard headers, which use some of these names.
#define __global__
#define __device__
#define __host__
#define __constant__ static const
#define __grid_constant__
#define __launch_bounds__(...)
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __align__(bytes) __attribute__((aligned(bytes)))

namespace device {

// ---- vector types

#define BOLTZBENCH_VECTOR_TYPES(T, name)                                               \
    struct name##1 { T x; };                                                           \
    struct alignas(2 * sizeof(T)) name##2 { T x, y; };                                 \
    struct name##3 { T x, y, z; };                                                     \
    struct alignas(4 * sizeof(T) < 16 ? 4 * sizeof(T) : 16) name##4 { T x, y, z, w; }; \
    inline name##1 make_##name##1(T x) { return {x}; }                                 \
    inline name##2 make_##name##2(T x, T y) { return {x, y}; }                         \
    inline name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; }                 \
    inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }

BOLTZBENCH_VECTOR_TYPES(signed char, char)
BOLTZBENCH_VECTOR_TYPES(unsigned char, uchar)
BOLTZBENCH_VECTOR_TYPES(short, short)
BOLTZBENCH_VECTOR_TYPES(unsigned short, ushort)
BOLTZBENCH_VECTOR_TYPES(int, int)
BOLTZBENCH_VECTOR_TYPES(unsigned, uint)
BOLTZBENCH_VECTOR_TYPES(long long, longlong)
BOLTZBENCH_VECTOR_TYPES(unsigned long long, ulonglong)
BOLTZBENCH_VECTOR_TYPES(float, float)
BOLTZBENCH_VECTOR_TYPES(double, double)

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};

// ---- reinterpretation of bits

template <class To, class From> To bit_copy(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}

inline int __float_as_int(float x) { return bit_copy<int>(x); }
inline unsigned __float_as_uint(float x) { return bit_copy<unsigned>(x); }
inline float __int_as_float(int x) { return bit_copy<float>(x); }
inline float __uint_as_float(unsigned x) { return bit_copy<float>(x); }
inline long long __double_as_longlong(double x) { return bit_copy<long long>(x); }
inline double __longlong_as_double(long long x) { return bit_copy<double>(x); }

// ---- atomics: each returns the old value and accepts exactly the types that CUDA accepts

template <class T, class... Allowed> constexpr bool is_one_of = (std::is_same_v<T, Allowed> || ...);
template <class T> struct Same {
    using type = T;
};
template <class T> using Value = typename Same<T>::type;  // not deduced, so that atomicAdd(&counter, 1) finds its T

using ull = unsigned long long;

#define BOLTZBENCH_ATOMIC(name, new_value, ...)                                             \
    template <class T> T name(T* address, Value<T> value) {                                 \
        static_assert(is_one_of<T, __VA_ARGS__>, #name " does not take this type in CUDA"); \
        const T old = *address;                                                             \
        *address = new_value;                                                               \
        return old;                                                                         \
    }

// CUDA's atomics wrap around; unsigned arithmetic makes that defined on the host.
template <class T> T wrapping_add(T a, T b) {
    if constexpr (std::is_integral_v<T>)
        return static_cast<T>(static_cast<std::make_unsigned_t<T>>(a) + static_cast<std::make_unsigned_t<T>>(b));
    else return a + b;
}
template <class T> T wrapping_subtract(T a, T b) {
    return static_cast<T>(static_cast<std::make_unsigned_t<T>>(a) - static_cast<std::make_unsigned_t<T>>(b));
}

BOLTZBENCH_ATOMIC(atomicAdd, wrapping_add(old, value), int, unsigned, ull, float, double)
BOLTZBENCH_ATOMIC(atomicSub, wrapping_subtract(old, value), int, unsigned)
BOLTZBENCH_ATOMIC(atomicExch, value, int, unsigned, ull, float)
BOLTZBENCH_ATOMIC(atomicMin, value < old ? value : old, int, unsigned, long long, ull)
BOLTZBENCH_ATOMIC(atomicMax, value > old ? value : old, int, unsigned, long long, ull)
BOLTZBENCH_ATOMIC(atomicAnd, old & value, int, unsigned, ull)
BOLTZBENCH_ATOMIC(atomicOr, old | value, int, unsigned, ull)
BOLTZBENCH_ATOMIC(atomicXor, old ^ value, int, unsigned, ull)
BOLTZBENCH_ATOMIC(atomicInc, old >= value ? 0u : old + 1u, unsigned)
BOLTZBENCH_ATOMIC(atomicDec, old == 0 || old > value ? value : old - 1u, unsigned)

template <class T> T atomicCAS(T* address, Value<T> expected, Value<T> desired) {
    static_assert(is_one_of<T, int, unsigned, ull, unsigned short>, "atomicCAS does not accept this type in CUDA");
    const T old = *address;
    if (old == expected) *address = desired;
    return old;
}

inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __threadfence_system() {}
inline void __nanosleep(unsigned) {}

// ---- loads and stores with a cache hint, which the host ignores

template <class T> T __ldg(const T* address) { return *address; }
template <class T> T __ldca(const T* address) { return *address; }
template <class T> T __ldcg(const T* address) { return *address; }
template <class T> T __ldcs(const T* address) { return *address; }
template <class T> T __ldlu(const T* address) { return *address; }
template <class T> void __stcg(T* address, Value<T> value) { *address = value; }
template <class T> void __stcs(T* address, Value<T> value) { *address = value; }
template <class T> void __stwb(T* address, Value<T> value) { *address = value; }
template <class T> void __stwt(T* address, Value<T> value) { *address = value; }

// ---- integers

inline unsigned __umulhi(unsigned a, unsigned b) { return static_cast<unsigned>((static_cast<ull>(a) * b) >> 32); }
inline int __mulhi(int a, int b) { return static_cast<int>((static_cast<long long>(a) * b) >> 32); }
inline ull __umul64hi(ull a, ull b) { return static_cast<ull>((static_cast<unsigned __int128>(a) * b) >> 64); }
inline long long __mul64hi(long long a, long long b) {
    return static_cast<long long>((static_cast<__int128>(a) * b) >> 64);
}
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(ull x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x)); }
inline int __clzll(long long x) { return x == 0 ? 64 : __builtin_clzll(static_cast<ull>(x)); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }

inline unsigned __brev(unsigned x) {
    unsigned reversed = 0;
    for (int bit = 0; bit < 32; ++bit) reversed |= ((x >> bit) & 1u) << (31 - bit);
    return reversed;
}
inline ull __brevll(ull x) {
    return static_cast<ull>(__brev(static_cast<unsigned>(x))) << 32 | __brev(static_cast<unsigned>(x >> 32));
}

// Shifts the 64 bits hi:lo and returns the upper word (l) or the lower word (r). c: shifts of 32 are allowed.
inline unsigned __funnelshift_lc(unsigned lo, unsigned hi, unsigned shift) {
    const ull pair = static_cast<ull>(hi) << 32 | lo;
    return shift >= 32 ? lo : static_cast<unsigned>((pair << shift) >> 32);
}
inline unsigned __funnelshift_rc(unsigned lo, unsigned hi, unsigned shift) {
    const ull pair = static_cast<ull>(hi) << 32 | lo;
    return shift >= 32 ? hi : static_cast<unsigned>(pair >> shift);
}
inline unsigned __funnelshift_l(unsigned lo, unsigned hi, unsigned shift) {
    return __funnelshift_lc(lo, hi, shift & 31);
}
inline unsigned __funnelshift_r(unsigned lo, unsigned hi, unsigned shift) {
    return __funnelshift_rc(lo, hi, shift & 31);
}

inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
    const ull bytes = static_cast<ull>(y) << 32 | x;
    unsigned result = 0;
    for (int i = 0; i < 4; ++i)
        result |= static_cast<unsigned>((bytes >> (8 * ((selector >> (4 * i)) & 7))) & 0xff) << (8 * i);
    return result;
}

// CUDA's min and max: mixed signedness compares as unsigned, a number wins over NaN.
template <class A, class B> std::common_type_t<A, B> min(A a, B b) {
    using T = std::common_type_t<A, B>;
    if constexpr (std::is_floating_point_v<T>) return std::fmin(static_cast<T>(a), static_cast<T>(b));
    else return static_cast<T>(b) < static_cast<T>(a) ? static_cast<T>(b) : static_cast<T>(a);
}
template <class A, class B> std::common_type_t<A, B> max(A a, B b) {
    using T = std::common_type_t<A, B>;
    if constexpr (std::is_floating_point_v<T>) return std::fmax(static_cast<T>(a), static_cast<T>(b));
    else return static_cast<T>(a) < static_cast<T>(b) ? static_cast<T>(b) : static_cast<T>(a);
}

// ---- conversions: CUDA saturates and converts NaN to 0; in C++ these are undefined

template <class Integer> Integer saturate(double rounded) {
    using Limits = std::numeric_limits<Integer>;
    if (std::isnan(rounded)) return 0;
    if (rounded <= static_cast<double>(Limits::min())) return Limits::min();
    if (rounded >= static_cast<double>(Limits::max())) return Limits::max();
    return static_cast<Integer>(rounded);
}

#define BOLTZBENCH_CONVERSIONS(From, from, Integer, name)                                                           \
    inline Integer __##from##2##name##_rn(From x) {                                                                 \
        return saturate<Integer>(std::nearbyint(static_cast<double>(x)));                                           \
    }                                                                                                               \
    inline Integer __##from##2##name##_rz(From x) { return saturate<Integer>(std::trunc(static_cast<double>(x))); } \
    inline Integer __##from##2##name##_rd(From x) { return saturate<Integer>(std::floor(static_cast<double>(x))); } \
    inline Integer __##from##2##name##_ru(From x) { return saturate<Integer>(std::ceil(static_cast<double>(x))); }

BOLTZBENCH_CONVERSIONS(float, float, int, int)
BOLTZBENCH_CONVERSIONS(float, float, unsigned, uint)
BOLTZBENCH_CONVERSIONS(float, float, long long, ll)
BOLTZBENCH_CONVERSIONS(float, float, ull, ull)
BOLTZBENCH_CONVERSIONS(double, double, int, int)
BOLTZBENCH_CONVERSIONS(double, double, unsigned, uint)
BOLTZBENCH_CONVERSIONS(double, double, long long, ll)
BOLTZBENCH_CONVERSIONS(double, double, ull, ull)

inline float __int2float_rn(int x) { return static_cast<float>(x); }
inline float __uint2float_rn(unsigned x) { return static_cast<float>(x); }
inline float __ll2float_rn(long long x) { return static_cast<float>(x); }
inline float __ull2float_rn(ull x) { return static_cast<float>(x); }
inline double __int2double_rn(int x) { return x; }
inline double __uint2double_rn(unsigned x) { return x; }
inline float __double2float_rn(double x) { return static_cast<float>(x); }

// ---- arithmetic that must not be contracted, and fast approximations (exact here: the host has no MUFU)

inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __frcp_rn(float a) { return 1.0f / a; }
inline float __fsqrt_rn(float a) { return std::sqrt(a); }
inline float __frsqrt_rn(float a) { return static_cast<float>(1.0 / std::sqrt(static_cast<double>(a))); }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline double __dsqrt_rn(double a) { return std::sqrt(a); }
inline double __fma_rn(double a, double b, double c) { return std::fma(a, b, c); }

inline float __expf(float x) { return std::exp(x); }
inline float __exp10f(float x) { return std::pow(10.0f, x); }
inline float __logf(float x) { return std::log(x); }
inline float __log2f(float x) { return std::log2(x); }
inline float __log10f(float x) { return std::log10(x); }
inline float __sinf(float x) { return std::sin(x); }
inline float __cosf(float x) { return std::cos(x); }
inline float __tanf(float x) { return std::tan(x); }
inline float __powf(float x, float y) { return std::pow(x, y); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __saturatef(float x) { return std::fmin(std::fmax(x, 0.0f), 1.0f); }
inline void __sincosf(float x, float* sine, float* cosine) { *sine = std::sin(x), *cosine = std::cos(x); }

// ---- math functions: overloads as in CUDA; expf, log1pf, fmaf and the like come from the C library

using std::abs, std::acos, std::asin, std::atan, std::atan2, std::cbrt, std::ceil, std::copysign, std::cos, std::cosh;
using std::erf, std::erfc, std::exp, std::exp2, std::expm1, std::fabs, std::floor, std::fma, std::fmax, std::fmin;
using std::fmod, std::frexp, std::hypot, std::isfinite, std::isinf, std::isnan, std::ldexp, std::lgamma, std::log;
using std::log10, std::log1p, std::log2, std::nearbyint, std::pow, std::rint, std::round, std::signbit, std::sin;
using std::sinh, std::sqrt, std::tan, std::tanh, std::tgamma, std::trunc;

inline double rsqrt(double x) { return 1.0 / std::sqrt(x); }
inline float rsqrtf(float x) { return static_cast<float>(rsqrt(x)); }

// sin(pi x): the argument is reduced to [-1/2, 1/2] exactly, so every integer gives zero.
inline double sinpi(double x) {
    double reduced = std::fmod(x, 2.0);
    if (std::fabs(reduced) > 1.0) reduced -= std::copysign(2.0, reduced);
    if (std::fabs(reduced) > 0.5) reduced = std::copysign(1.0, reduced) - reduced;
    return std::sin(3.14159265358979323846 * reduced);
}
inline double cospi(double x) {
    double reduced = std::fabs(std::fmod(x, 2.0));
    if (reduced > 1.0) reduced = 2.0 - reduced;
    return std::sin(3.14159265358979323846 * (0.5 - reduced));
}
inline void sincospi(double x, double* sine, double* cosine) { *sine = sinpi(x), *cosine = cospi(x); }
inline float sinpif(float x) { return static_cast<float>(sinpi(x)); }
inline float cospif(float x) { return static_cast<float>(cospi(x)); }
inline void sincospif(float x, float* sine, float* cosine) { *sine = sinpif(x), *cosine = cospif(x); }

}  // namespace device
