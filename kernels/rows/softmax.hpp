// Softmax sums on vectors: a running sum of exponentials, and the probability of an element. See softmax.cuh.
#pragma once
#include "rows.hpp"

template <class Vector> INLINE Vector finite_or_zero(const Vector& x) { return x - x == x - x ? x : Vector{}; }

template <class Real> struct Weights {
    Real scale, sign;  // element x weighs 2^(scale sign x), scale >= 0; the heaviest has the largest sign * x

    explicit Weights(double beta) : scale(Real((beta < 0 ? -beta : beta) * 1.4426950408889634)), sign(beta < 0 ? -1 : 1) {}
};

// In each lane, a sum of 2^(scale (sign * x - finite_or_zero(peak))) over elements x; peak is the largest sign * x.
template <class Real> struct Running {
    using Vector = V<Real>;
    static constexpr Real INF = std::numeric_limits<Real>::infinity();
    static constexpr int FIELDS = 2, MOST = 64;
    Vector field[FIELDS];  // peak, total
    Weights<Real> weights;

    explicit Running(double beta = 1) : field{all(-INF), Vector{}}, weights(beta) {}

    INLINE void raise(const Vector& top) {
        Vector &peak = field[0], &total = field[1];
        const Vector factor = power_of_two((peak - finite_or_zero(top)) * weights.scale);
        total = peak == top ? total : total * (peak == -INF ? Vector{} : factor);  // a total of NaN stays
        peak = top;
    }
    // The maximum first: the elements stay in the first cache for the second loop.
    template <class Load> INLINE void add(i64 whole, i64 rest, const Load& load) {
        const Weights<Real> weights = this->weights;
        Vector top = field[0];
        for (i64 k = 0; k < whole; ++k) top = larger(weights.sign * load(k), top);
        if (rest) top = first_lanes<Real>(rest) ? larger(weights.sign * load(whole), top) : top;
        if (any(top > field[0])) raise(top);
        const Vector shift = finite_or_zero(field[0]);
        Vector sum = {};
        for (i64 k = 0; k < whole; ++k) sum += power_of_two((weights.sign * load(k) - shift) * weights.scale);
        if (rest) {
            const Vector weight = power_of_two((weights.sign * load(whole) - shift) * weights.scale);
            sum += first_lanes<Real>(rest) ? weight : Vector{};
        }
        field[1] += sum;
    }
    INLINE void merge(Running other) {
        const Vector top = larger(field[0], other.field[0]);
        raise(top), other.raise(top);
        field[1] += other.field[1];
    }
    static Running together(Running* sums) {
        Vector top = sums[0].field[0];
        for (int i = 1; i < LANES<Real>; ++i) top = larger(top, sums[i].field[0]);
        sums[0].raise(top);
        for (int i = 1; i < LANES<Real>; ++i) {
            sums[i].raise(top);
            sums[0].field[1] += sums[i].field[1];
        }
        return sums[0];
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

    INLINE Probability lane(i64 i) const {
        Probability one = *this;
        one.peak = all(peak[i]), one.level = all(level[i]);
        return one;
    }
    INLINE Vector operator()(const Vector& x) const {
        const Vector distance = x - peak;
        if (sizeof(Real) == 8 || rest == 0) return exp(fma(distance, all(scale), level));
        return exp(fma(distance, all(scale), fma(distance, all(rest), level)));
    }
};
