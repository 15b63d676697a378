// Softmax sums: a row's sum of exponentials, and the probability of an element.
#pragma once
#include "rows.cuh"

// A sum of 2^((x - sign * finite_or_zero(peak)) * scale) over elements x; peak is the largest sign * x of them.
template <class Real> struct Running {
    Real peak, total;

    static __device__ Running nothing() { return {-infinity(), 0}; }

    __device__ void raise(Real new_peak, Weights<Real> weights) {
        const Real old_peak = peak;
        peak = new_peak;
        if (old_peak == new_peak) return;
        // A total of no elements stays 0 (or NaN): at scale 0 its factor would be NaN.
        const Real exponent = (old_peak - finite_or_zero(new_peak)) * (weights.sign * weights.scale);
        total *= old_peak == -infinity() ? Real(0) : power_of_two(exponent);
    }

    template <bool ALL, bool FLIP, class T, int WIDTH, int COUNT>
    __device__ __forceinline__ void add(const Vector<T, WIDTH> (&chunk)[COUNT], int present, Weights<Real> weights) {
        raise(highest<ALL, FLIP>(peak, chunk, present), weights);
        const Real origin = FLIP ? -finite_or_zero(peak) : finite_or_zero(peak);
#pragma unroll
        for (int i = 0; i < COUNT; ++i)
            if (ALL || i < present) {
                Real part = 0;
#pragma unroll
                for (int j = 0; j < WIDTH; ++j)
                    part += power_of_two((widen(chunk[i].get(j)) - origin) * weights.scale);
                total += part;
            }
    }

    __device__ void merge(Running other, Weights<Real> weights) {
        const Real new_peak = larger(peak, other.peak);
        raise(new_peak, weights);
        other.raise(new_peak, weights);
        total += other.total;
    }

    template <int COUNT> __device__ void over_lanes(Weights<Real> weights) {
        Real new_peak = peak;
        for (int lanes = COUNT / 2; lanes > 0; lanes /= 2) new_peak = larger(new_peak, shuffle_xor(new_peak, lanes));
        raise(new_peak, weights);
        for (int lanes = COUNT / 2; lanes > 0; lanes /= 2) total += shuffle_xor(total, lanes);
    }
};

// Subnormal weights are kept, since they may be multiplied by a large gradient.
__device__ __forceinline__ float weight(float exponent) { return exp2_fast(exponent); }
__device__ __forceinline__ double weight(double exponent) { return exp2(exponent); }

// The probability exp(beta (x - peak) - log_total) of an element x; 0 if log_total is -inf, where all elements are
// -inf. Peak and total come apart: rounding their log-sum-exp would add an error that grows with the level of the row.
// The peak is subtracted before the product, and the FMA adds one rounding to that of the difference. In float32 beta
// log2(e) comes in two parts of one sign, so that no sum of infinities is NaN, and log2(e) times log_total as well.
template <class Real> struct Probability {
    static constexpr bool PARTS = sizeof(Real) == 4;
    Real peak, scale, rest, level;

    __device__ __forceinline__ Probability(Real peak, Real log_total, double beta) : peak(peak) {
        const double whole = beta * 1.4426950408889634;
        scale = static_cast<Real>(PARTS ? whole * (1 - 2.384185791015625e-07) : whole);  // 1 - 2^-22: two ulp
        rest = static_cast<Real>(whole - scale);
        const Real total = log_total == -infinity() ? Real(0) : log_total;
        constexpr Real LOG2E = 1.4426950408889634, REST = 1.4426950408889634 - LOG2E;
        level = REST == 0 ? total * LOG2E : fused(total, LOG2E, total * REST);  // inf * 0 is NaN
    }

    __device__ __forceinline__ Real operator()(Real x) const {
        const Real distance = x - peak;
        return weight(fused(distance, scale, PARTS ? fused(distance, rest, -level) : -level));
    }
};
