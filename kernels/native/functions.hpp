// Elementary functions of vectors, within a few units in the last place.
#pragma once
#include "vectors.hpp"

// c0 + c1 x + c2 x^2 + ...
template <class Real> INLINE Real polynomial(const Real&, double c) {
    return all(static_cast<std::remove_reference_t<decltype(Real{}[0])>>(c));
}
template <class Real, class... More> INLINE Real polynomial(const Real& x, double c0, double c1, More... more) {
    return fma(x, polynomial(x, c1, more...), polynomial(x, c0));
}

// log2 x of positive normal x: 2^e m with m in [3/4, 3/2), and a polynomial of m - 1 with an error of 0.5 units.
INLINE F32 log2(F32 x) {
    const U32 bits = as<U32>(x);
    const I32 exponent = as<I32>(bits - 0x3f400000u) >> 23;
    const F32 t = as<F32>(bits - (as<U32>(exponent) << 23)) - 1.0f;
    const F32 of_mantissa = t * polynomial(t, 1.442695032, -0.7213484784, 0.4809020806, -0.3605759219, 0.2881915028,
                                           -0.2427235148, 0.2163248781, -0.1742302761, 0.07806677652);
    return __builtin_convertvector(exponent, F32) + of_mantissa;
}

// log x: as log2, with the specials of the standard library.
INLINE F32 log(F32 x) {
    if (any((x < 1.17549435e-38f) | (x > 3.40282347e38f) | (x != x))) return each(x, [](float a) { return std::log(a); });
    const U32 bits = as<U32>(x);
    const I32 exponent = as<I32>(bits - 0x3f400000u) >> 23;
    const F32 t = as<F32>(bits - (as<U32>(exponent) << 23)) - 1.0f, k = __builtin_convertvector(exponent, F32);
    const F32 of_mantissa = t * polynomial(t, 0.9999999941, -0.500000664, 0.3333359213, -0.2499321837, 0.1997591276,
                                           -0.16824312, 0.1499449793, -0.1207672245, 0.05411176585);
    return fma(k, all(0.693359375f), fma(k, all(-2.12194440e-4f), of_mantissa));
}
INLINE F64 log(F64 x) {
    return each(x, [](double a) { return std::log(a); });
}

// e^x: 2^k times a polynomial of the rest, x = k log 2 + rest. Within 2 units of 2^-24; subnormal results are kept; 0 and
// infinity where they belong; NaN for NaN.
INLINE F32 exp(F32 x) {
    const F32 shift = all(12582912.0f);  // 1.5 * 2^23: adding it rounds to a whole number
    x = limited(x, -105.0f, 89.0f);
    const F32 shifted = fma(x, all(1.44269504f), shift), k = shifted - shift;
    const F32 rest = fma(k, all(2.12194440e-4f), fma(k, all(-0.693359375f), x));
    const F32 power = polynomial(rest, 1.0, 1.000000036, 0.4999999208, 0.1666642015, 0.04166822559, 0.008374817376,
                                 0.00138368497);
#if defined(BOLTZBENCH_AVX512)
    return (F32)_mm512_scalef_ps((__m512)power, (__m512)k);
#else
    // 2^k in two factors, so that neither overflows where the product does not.
    const I32 whole = as<I32>(shifted) - 0x4b400000, half = whole >> 1;
    return power * as<F32>((half + 127) << 23) * as<F32>((whole - half + 127) << 23);
#endif
}

// The same in double, within 2 units of 2^-53.
INLINE F64 exp(F64 x) {
    const F64 shift = all(6755399441055744.0);  // 1.5 * 2^52
    x = limited(x, -750.0, 710.0);
    const F64 shifted = fma(x, all(1.4426950408889634), shift), k = shifted - shift;
    const F64 rest = fma(k, all(-1.90821492927058770002e-10), fma(k, all(-6.93147180369123816490e-1), x));
    const F64 power = polynomial(rest, 1.0, 1.0, 1.0 / 2, 1.0 / 6, 1.0 / 24, 1.0 / 120, 1.0 / 720, 1.0 / 5040, 1.0 / 40320,
                                 1.0 / 362880, 1.0 / 3628800, 1.0 / 39916800, 1.0 / 479001600, 1.0 / 6227020800);
#if defined(BOLTZBENCH_AVX512)
    return (F64)_mm512_scalef_pd((__m512d)power, (__m512d)k);
#else
    const I64 whole = as<I64>(shifted) - 0x4338000000000000, half = whole >> 1;
    return power * as<F64>((half + 1023) << 52) * as<F64>((whole - half + 1023) << 52);
#endif
}

// 2^x: 2^k times a polynomial of the rest, within 2 units. 0, infinity and NaN as `exp`.
INLINE F32 power_of_two(F32 x) {
#if defined(BOLTZBENCH_AVX512)
    const F32 rest = (F32)_mm512_reduce_ps((__m512)x, _MM_FROUND_TO_NEG_INF);  // x - floor(x); 0 for infinities
    const F32 power = polynomial(rest, 1.0, 0.69314698384, 0.240229836279, 0.0554833419683, 0.00967884101831,
                                 0.00124396877005, 0.000217022556842);
    return (F32)_mm512_scalef_ps((__m512)power, (__m512)x);  // by 2^floor(x)
#else
    const F32 shift = all(12582912.0f);
    x = limited(x, -152.0f, 129.0f);
    const F32 shifted = x + shift, rest = x - (shifted - shift);
    const F32 power = polynomial(rest, 1.0, 0.693147205737, 0.240226468906, 0.0555032877711, 0.00961848895633,
                                 0.00133999311772, 0.000153458121613);
    const I32 whole = as<I32>(shifted) - 0x4b400000, half = whole >> 1;
    return power * as<F32>((half + 127) << 23) * as<F32>((whole - half + 127) << 23);
#endif
}
INLINE F64 power_of_two(F64 x) {
    const F64 shift = all(6755399441055744.0);
    x = limited(x, -1080.0, 1025.0);
    const F64 shifted = x + shift, k = shifted - shift, rest = x - k;
    const F64 power = polynomial(rest, 1.0, 0.6931471805599453305, 0.240226506959101562, 0.0555041086648199216,
                                 0.009618129107588335244, 0.001333355814678992172, 0.0001540353046251443206,
                                 0.00001525273348998852565, 1.321543308967639918e-6, 1.017819802167193084e-7,
                                 7.074105613508142796e-9, 4.435282706957277151e-10);
#if defined(BOLTZBENCH_AVX512)
    return (F64)_mm512_scalef_pd((__m512d)power, (__m512d)k);
#else
    const I64 whole = as<I64>(shifted) - 0x4338000000000000, half = whole >> 1;
    return power * as<F64>((half + 1023) << 52) * as<F64>((whole - half + 1023) << 52);
#endif
}

// e^x - 1 of x up to 88, within 3 units of the result, also where that is small: 2^k (e^rest - 1) + (2^k - 1).
INLINE F32 expm1(F32 x) {
    const F32 shift = all(12582912.0f);
    x = limited(x, -20.0f, 88.0f);
    const F32 shifted = fma(x, all(1.44269504f), shift), k = shifted - shift;
    const F32 rest = fma(k, all(2.12194440e-4f), fma(k, all(-0.693359375f), x));
    const F32 series = polynomial(rest, 0.4999999955, 0.1666657696, 0.04166685409, 0.008363200058, 0.00139013098);
    const F32 power = as<F32>((as<I32>(shifted) - 0x4b400000 + 127) << 23);
    return fma(power, fma(rest * rest, series, rest), power - 1.0f);
}
INLINE F64 expm1(F64 x) {
    return each(x, [](double a) { return std::expm1(a); });
}
