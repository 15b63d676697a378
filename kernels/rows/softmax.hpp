// Softmax sums on vectors: a running sum of exponentials, and the probability of an element. See softmax.cuh.
#pragma once
#include "rows.hpp"

template <class Vector> INLINE Vector finite_or_zero(const Vector& x) { return x - x == x - x ? x : Vector{}; }

// In each lane, a sum of exp(beta (x - sign * finite_or_zero(peak))) over elements x; peak is the largest sign * x.
template <class Real> struct Running {
    using Vector = V<Real>;
    static constexpr Real INF = std::numeric_limits<Real>::infinity();
    Vector peak, total;
    Real beta, sign;

    static Running nothing(double beta) { return {all(-INF), Vector{}, Real(beta), Real(beta < 0 ? -1 : 1)}; }

    INLINE void raise(const Vector& top) {
        if (!any(top > peak)) return;
        const Vector factor = exp((peak - finite_or_zero(top)) * (sign * beta));
        total *= peak == -INF ? Vector{} : (peak == top ? all(Real(1)) : factor);
        peak = top;
    }
    template <int COUNT> INLINE void add(const Vector* x) {
        Vector top = peak;
        for (int k = 0; k < COUNT; ++k) top = larger(sign * x[k], top);
        raise(top);
        const Vector origin = sign * finite_or_zero(peak);
        Vector part = exp((x[0] - origin) * beta);
        for (int k = 1; k < COUNT; ++k) part += exp((x[k] - origin) * beta);
        total += part;
    }
    INLINE void add_first(const Vector& x, i64 count) {
        const auto present = first_lanes<Real>(count) != Real(0);
        raise(present ? larger(sign * x, peak) : peak);
        const Vector weight = exp((x - sign * finite_or_zero(peak)) * beta);
        total += present ? weight : Vector{};
    }
    INLINE void merge(Running other) {
        const Vector top = larger(peak, other.peak);
        raise(top), other.raise(top);
        total += other.total;
    }
    INLINE void over_lanes() {
        raise(all(reduce(peak, [](Real a, Real b) { return a > b ? a : b; })));
        total = all(sum(total));
    }
};

// exp(beta (x - peak) - log_total) for each row of a vector; 0 if log_total is -inf, where all elements are -inf. In float32
// beta comes in two parts of one sign, so that no sum of infinities is NaN.
template <class Real> struct Probability {
    using Vector = V<Real>;
    Vector peak, level;
    Real scale, rest;

    Probability(const Vector& peak, const Vector& log_total, double beta)
        : peak(peak), level(log_total == -std::numeric_limits<Real>::infinity() ? Vector{} : -log_total),
          scale(Real(sizeof(Real) == 4 ? beta * (1 - 2.384185791015625e-07) : beta)), rest(Real(beta - scale)) {}

    INLINE Vector operator()(const Vector& x) const {
        const Vector distance = x - peak;
        if (sizeof(Real) == 8 || rest == 0) return exp(fma(distance, all(scale), level));
        return exp(fma(distance, all(scale), fma(distance, all(rest), level)));
    }
};
