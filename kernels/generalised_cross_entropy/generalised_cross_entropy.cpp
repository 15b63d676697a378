// Generalised cross-entropy on a CPU, forward and backward; rows.hpp says how the rows are read.
//
// Bound by memory for rows beyond the caches: as log-sum-exp. The label's logit takes a load of its own, and what is done
// once for a row is done for a vector of rows.
#include "rows/softmax.hpp"

// The logits of the labels of `some` rows from `row` on; NaN for a label out of range.
template <class T> V<Wide<T>> chosen(const T* x, const Rows& rows, const i64* labels, i64 row, i64 some) {
    T logits[LANES<Wide<T>>] = {};
    V<Wide<T>> missing = {};
    rows.each(row, some, 0, [&](i64 i, i64 offset) {
        const i64 label = labels[row + i];
        if (label >= 0 && label < rows.n) logits[i] = x[offset + label * rows.layouts[0].stride];
        else missing[i] = std::numeric_limits<Wide<T>>::quiet_NaN();
    });
    return load_wide(logits) + missing;
}

// A mask of the rows whose label is ignored.
template <class Real> auto ignored_rows(const i64* labels, i64 ignore_index, i64 some) {
    Real found[LANES<Real>] = {};
    for (i64 i = 0; i < some; ++i) found[i] = labels[i] == ignore_index;
    return load<V<Real>>(found) != 0;
}

// loss, lse, peak: (rows,) in the wide type; peak may be null, and else lse is relative to it. labels: (rows,).
KERNEL void forward(const void* x, i64 dtype, const i64* labels, void* loss, void* lse, void* peak, const Rows* rows, double q,
                    i64 ignore_index, int threads) {
    of_type(dtype, [&](auto type) {
        using T = decltype(type);
        using Real = Wide<T>;
        using Vector = V<Real>;
        constexpr Real INF = std::numeric_limits<Real>::infinity();
        reduce_rows(static_cast<const T*>(x), *rows, Running<Real>(), threads,
                    [&](i64 row, const Running<Real>& sum, i64 some) {
                        const Vector shift = finite_or_zero(sum.field[0]), log_total = log(sum.field[1]);
                        const Vector level = shift + log_total;
                        // Subtract the peak first: the rounding error then does not grow with the level of the row. A level of
                        // -inf means that all logits are -inf.
                        const Vector distance = chosen(static_cast<const T*>(x), *rows, labels, row, some) - shift;
                        const Vector log_p = distance - (level == -INF ? Vector{} : log_total);
                        const Vector found = Real(q) == 0 ? -log_p : -expm1(Real(q) * log_p) / Real(q);
                        const auto ignored = ignored_rows<Real>(labels + row, ignore_index, some);
                        store_some(static_cast<Real*>(loss) + row, ignored ? Vector{} : found, some);
                        store_some(static_cast<Real*>(lse) + row, peak ? log_total : level, some);
                        if (peak) store_some(static_cast<Real*>(peak) + row, shift, some);
                    });
    });
}

// grad p_y^q (p_i - delta_iy); 0 where ignored, since the row may hold inf or NaN.
template <class Real> struct Slope {
    using Vector = V<Real>;
    using Whole = std::conditional_t<sizeof(Real) == 4, i32, i64>;
    Probability<Real> probability;
    Vector factor;
    const i64* labels;
    V<Whole> ignored, place;  // place: the column of a label, or for one row the distance to it; -1 if there is none

    INLINE Slope lane(i64 i, i64 first) const {
        const i64 distance = labels[i] - first;
        const Whole inside = distance >= 0 && distance < PART ? Whole(distance) : Whole(-PART);
        return {probability.lane(i), all(factor[i]), labels, all<Whole>(ignored[i]), inside - places<Whole>()};
    }
    INLINE Vector operator()(const Vector& x, i64 column) const {
        const Vector addend = place == Whole(column) ? -factor : Vector{};
        return as<Vector>(as<V<Whole>>(fma(factor, probability(x), addend)) & ~ignored);
    }
};

// dx_i = grad p_y^q (p_i - delta_iy) with p_i = exp(x_i - peak - log_total).
KERNEL void backward(const void* grad, const i64* labels, const void* log_total, const void* peak, const void* x, i64 dtype, void* dx,
                     const Rows* rows, double q, i64 ignore_index, int threads) {
    of_type(dtype, [&](auto type) {
        using T = decltype(type);
        using Real = Wide<T>;
        using Vector = V<Real>;
        using Whole = typename Slope<Real>::Whole;
        map_rows(static_cast<const T*>(x), static_cast<T*>(dx), *rows, threads, [&](i64 row, i64 some) {
            const Vector shift = load_some(static_cast<const Real*>(peak) + row, some);
            const Probability<Real> probability(shift, load_some(static_cast<const Real*>(log_total) + row, some), 1.0);
            const Vector log_p = (chosen(static_cast<const T*>(x), *rows, labels, row, some) - shift) + probability.level;
            const Vector power = q > 0 ? exp(Real(q) * log_p) : log_p == log_p ? all(Real(1)) : log_p;
            V<Whole> place = {};
            for (i64 i = 0; i < some; ++i) place[i] = labels[row + i] >= 0 && labels[row + i] < rows->n ? labels[row + i] : -1;
            const auto ignored = ignored_rows<Real>(labels + row, ignore_index, some);
            return Slope<Real>{probability, load_some(static_cast<const Real*>(grad) + row, some) * power, labels + row,
                               as<V<Whole>>(ignored), place};
        });
    });
}
