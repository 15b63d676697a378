// Thermodynamics on a CPU: log Z, mean and variance of the energy from one read; rows.hpp says how the rows are read.
//
// Bound by instructions in the caches, by memory beyond them. As in thermodynamics.cu, moments are taken around the mean of a
// block, here of up to 16 elements in each lane, and merged by the formula of Chan, Golub, LeVeque.
#include "rows/softmax.hpp"

// In each lane, moments of elements x with z = sign * x: the largest z; the sum of weights 2^(scale (z - shift)), where shift
// is finite_or_zero(peak); the weighted mean of z - shift; the weighted sum of squares around this mean.
template <class Real> struct Moments {
    using Vector = V<Real>;
    static constexpr Real INF = std::numeric_limits<Real>::infinity();
    static constexpr int FIELDS = 4, MOST = 16;
    Vector field[FIELDS];  // peak, total, mean, spread
    Weights<Real> weights;

    explicit Moments(double beta = 1) : field{all(-INF), Vector{}, Vector{}, Vector{}}, weights(beta) {}

    // An element of weight 0 may lie at an infinite distance, and 0 * inf would be NaN.
    static INLINE Vector finite(const Vector& distance) { return larger(all(std::numeric_limits<Real>::lowest()), distance); }
    static INLINE Vector share(const Vector& part, const Vector& total) { return total == 0 ? Vector{} : part / total; }

    INLINE void raise(const Vector& top) {
        Vector &peak = field[0], &total = field[1], &mean = field[2], &spread = field[3];
        const auto same = peak == top, empty = peak == -INF;
        const Vector moved = peak - finite_or_zero(top), factor = empty ? Vector{} : power_of_two(moved * weights.scale);
        total = same ? total : total * factor;  // NaN stays
        spread = same ? spread : spread * factor;
        mean = same ? mean : empty ? Vector{} : finite(mean + moved);
        peak = top;
    }
    // Distances are taken from the largest element, which has at least 1 / m of the weight of m elements. The mean square is
    // then at most m times the variance, and their difference loses little.
    template <class Load> INLINE void add(i64 whole, i64 rest, const Load& load) {
        const Real sign = weights.sign, scale = weights.scale;
        const auto present = first_lanes<Real>(rest);
        Vector top = all(-INF), sum = {}, first = {}, second = {};
        for (i64 k = 0; k < whole; ++k) top = larger(sign * load(k), top);
        if (rest) top = present ? larger(sign * load(whole), top) : top;
        const Vector shift = finite_or_zero(top);
        const auto add_one = [&](const Vector& x, const auto& weight_of) {
            const Vector distance = sign * x - shift, weight = weight_of(power_of_two(distance * scale));
            const Vector limited = finite(distance), weighted = weight * limited;
            sum += weight, first += weighted, second = fma(weighted, limited, second);
        };
        for (i64 k = 0; k < whole; ++k) add_one(load(k), [](const Vector& weight) { return weight; });
        if (rest) add_one(load(whole), [&](const Vector& weight) { return present ? weight : Vector{}; });
        const Vector centre = share(first, sum), spread = second - first * centre;
        Moments block = *this;
        block.field[0] = top, block.field[1] = sum, block.field[2] = centre, block.field[3] = spread < 0 ? Vector{} : spread;
        merge(block);
    }
    INLINE void merge(Moments other) {
        const Vector top = larger(field[0], other.field[0]);
        if (any(top > field[0])) raise(top);
        other.raise(top);
        join(other);
    }
    // Merges moments with the same peak. Each mean is multiplied by its share, so that a mean of little weight leaves no
    // rounding error of its size. The distance of the means is first multiplied by the smaller weight: if its square
    // overflowed, 0 * inf would be NaN.
    INLINE void join(const Moments& other) {
        Vector &total = field[1], &mean = field[2], &spread = field[3];
        const Vector sum = total + other.field[1], part = share(other.field[1], sum), difference = other.field[2] - mean;
        spread += other.field[3] + difference * (part * total) * difference;
        mean = fma(part, other.field[2], share(total, sum) * mean);
        total = sum;
    }
    static Moments together(Moments* sums) {
        Vector top = sums[0].field[0];
        for (int i = 1; i < LANES<Real>; ++i) top = larger(sums[i].field[0], top);
        for (int i = 0; i < LANES<Real>; ++i) sums[i].raise(top);
        for (int width = LANES<Real> / 2; width; width /= 2)
            for (int i = 0; i < width; ++i) sums[i].join(sums[i + width]);
        return sums[0];
    }
};

// log_z, energy, variance: (rows,), in the wide type.
KERNEL void forward(const void* x, i64 dtype, void* log_z, void* energy, void* variance, const Rows* rows, double beta, int threads) {
    of_type(dtype, [&](auto type) {
        using T = decltype(type);
        using Real = Wide<T>;
        const Real magnitude = Real(beta < 0 ? -beta : beta), sign = beta < 0 ? -1 : 1;
        reduce_rows(static_cast<const T*>(x), *rows, Moments<Real>(beta), threads,
                    [&](i64 row, const Moments<Real>& sum, i64 some) {
                        const V<Real> shift = finite_or_zero(sum.field[0]), nan = all(std::numeric_limits<Real>::quiet_NaN());
                        const V<Real> result = shift * magnitude + log(sum.field[1]);
                        const auto known = result - result == Real(0);  // neither infinite nor NaN
                        const V<Real> mean = -sign * (shift + sum.field[2]), spread = sum.field[3] / sum.field[1];
                        store_some(static_cast<Real*>(log_z) + row, result, some);
                        store_some(static_cast<Real*>(energy) + row, known ? mean : nan, some);
                        store_some(static_cast<Real*>(variance) + row, known ? spread : nan, some);
                    });
    });
}
