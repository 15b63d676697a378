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
