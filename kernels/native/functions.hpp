// Elementary functions of vectors of float, within a few units in the last place.
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

// e^x: 2^k times a polynomial of the rest, x = k log 2 + rest. 0 below -87.3 (no subnormal results), infinite above
// 88.72, NaN for NaN.
INLINE F32 exp(F32 x) {
    const F32 shift = all(12582912.0f);  // 1.5 * 2^23: adding it rounds to a whole number
    const F32 limited = larger(smaller(x, all(89.0f)), all(-104.0f));
    const F32 shifted = fma(limited, all(1.44269504f), shift), k = shifted - shift;
    const F32 rest = fma(k, all(2.12194440e-4f), fma(k, all(-0.693359375f), limited));
    const F32 power = polynomial(rest, 1.0, 1.0, 0.5, 0.166666667, 0.0416666667, 0.00833333333, 0.00138888889, 0.000198412698);
    // 2^k in two factors, so that neither overflows where the product does not.
    const I32 whole = as<I32>(shifted) - 0x4b400000, half = whole >> 1;
    const F32 first = as<F32>((half + 127) << 23), second = as<F32>((whole - half + 127) << 23);
    const F32 y = power * first * second;
    return x < -87.33654f ? all(0.0f) : (x != x ? x : y);
}
