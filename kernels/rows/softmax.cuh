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

// The probability exp(beta x - lse) of an element x; 0 in a row of log-sum-exp -inf, where all elements are -inf.
// Half the exponent of 2 is computed, because the whole may overflow where beta x does not. The FMA adds one rounding
// to those of beta log2(e) and lse log2(e); for the latter log2(e) comes in two parts.
template <class Real> struct Probability {
    Real half_scale, half_level;

    __device__ __forceinline__ Probability(Real lse, double beta)
        : half_scale(static_cast<Real>(beta * 0.72134752044448170)) {
        const Real level = lse == -infinity() ? Real(0) : lse;
        constexpr Real HALF_LOG2E = 0.72134752044448170, REST = 0.72134752044448170 - HALF_LOG2E;
        half_level = REST == 0 ? level * HALF_LOG2E : fused(level, HALF_LOG2E, level * REST);  // inf * 0 is NaN
    }

    __device__ __forceinline__ Real operator()(Real x) const {
        const Real half = fused(x, half_scale, -half_level);
        return weight(half + half);
    }
};
