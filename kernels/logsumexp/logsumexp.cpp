// Log-sum-exp on a CPU, forward and backward; rows.hpp says how the rows are read.
//
// Bound by memory for rows beyond the caches: each element is read once, with a running maximum and sum in each lane.
#include "rows/softmax.hpp"

// y, log_total, peak: see logsumexp.cu.
KERNEL void forward(const void* x, i64 dtype, void* y, void* log_total, void* peak, const Rows* rows, double beta, int threads) {
    of_type(dtype, [&](auto type) {
        using T = decltype(type);
        using Real = Wide<T>;
        const Real magnitude = Real(beta < 0 ? -beta : beta), sign = beta < 0 ? -1 : 1;
        reduce_rows(static_cast<const T*>(x), *rows, Running<Real>(beta), threads,
                    [&](i64 row, const Running<Real>& sum, i64 some) {
                        const V<Real> shift = finite_or_zero(sum.field[0]), logarithm = log(sum.field[1]);
                        store_some(static_cast<T*>(y) + row, shift * magnitude + logarithm, some);
                        if (!peak) return;
                        store_some(static_cast<Real*>(log_total) + row, logarithm, some);
                        store_some(static_cast<Real*>(peak) + row, sign * shift, some);
                    });
    });
}

template <class Real> struct Slope {
    Probability<Real> probability;
    V<Real> factor;

    INLINE Slope lane(i64 i, i64) const { return {probability.lane(i), all(factor[i])}; }
    INLINE V<Real> operator()(const V<Real>& x, i64) const { return factor * probability(x); }
};

// dx = grad * beta * exp(beta (x - peak) - log_total).
KERNEL void backward(const void* grad, const void* log_total, const void* peak, const void* x, i64 dtype, void* dx, const Rows* rows,
                     double beta, int threads) {
    of_type(dtype, [&](auto type) {
        using T = decltype(type);
        using Real = Wide<T>;
        map_rows(static_cast<const T*>(x), static_cast<T*>(dx), *rows, threads, [&](i64 row, i64 some) {
            const Probability<Real> probability(load_some(static_cast<const Real*>(peak) + row, some),
                                                load_some(static_cast<const Real*>(log_total) + row, some), beta);
            return Slope<Real>{probability, load_some(static_cast<const T*>(grad) + row, some) * Real(beta)};
        });
    });
}
