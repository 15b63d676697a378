// Thermodynamics in CUDA C: log Z, mean and variance of the energy from one read.
//
// Bytes: the kernel reads each element once (8, 4 or 2 B) and writes three results per row. Memory is the limit. Per
// element it leaves time for 31 instructions for float32, 15.6 for 16 bits, 62 for float64 (see logsumexp.cu).
//
// Operations per element: those of log-sum-exp, and a clamp, a product, a sum and an FFMA for the first and second
// moment. In the inner loop of sm_90, all included: 15.2 instructions for float32, 12.8 for 16 bits (82 % of what can
// be issued while the data arrive), 71 for float64 (so instructions are the limit there, not memory).
//
// Design: as log-sum-exp. A thread turns each chunk of loads into moments around the chunk's mean, by one division, and
// merges them with its own by the formula of Chan, Golub, LeVeque, which takes no difference of large sums of squares.
#include "rows/rows.cuh"

// Moments of elements x, with z = sign * x: the largest z; the sum of weights 2^((z - shift) |scale|), where shift is
// finite_or_zero(peak); the weighted mean of z - shift; the weighted sum of squares around this mean.
template <class Real> struct Moments {
    Real peak, total, mean, spread;

    static __device__ Moments nothing() { return {-infinity(), 0, 0, 0}; }

    // An element of weight 0 may lie at an infinite distance, and 0 * inf would be NaN.
    static __device__ Real finite(Real distance) {
        return larger(distance, sizeof(Real) == 4 ? Real(-3.402823466e+38f) : Real(-1.7976931348623157e+308));
    }

    __device__ void raise(Real new_peak, Weights<Real> weights) {
        const Real old_peak = peak;
        peak = new_peak;
        if (old_peak == new_peak) return;
        const Real moved = old_peak - finite_or_zero(new_peak);
        const Real factor = old_peak == -infinity() ? Real(0) : power_of_two(moved * (weights.sign * weights.scale));
        total *= factor;
        spread *= factor;
        mean = old_peak == -infinity() ? Real(0) : finite(mean + moved);
    }

    // Merges moments with the same peak. The difference of the two means adds to the spread.
    __device__ void join(Real other_total, Real other_mean, Real other_spread) {
        const Real sum = total + other_total;
        if (sum == 0) return;
        const Real share = quotient(other_total, sum), difference = other_mean - mean;
        // The distance is first multiplied by the smaller weight: if its square overflowed, 0 * inf would be NaN.
        spread += other_spread + (difference * (share * total)) * difference;
        mean += difference * share;
        total = sum;
    }

    // Distances are taken from the chunk's largest element, which has at least 1 / m of the weight, m = COUNT * WIDTH.
    // The mean square is then at most m times the variance, and their difference loses little.
    template <bool ALL, bool FLIP, class T, int WIDTH, int COUNT>
    __device__ __forceinline__ void add(const Vector<T, WIDTH> (&chunk)[COUNT], int present, Weights<Real> weights) {
        const Real top = highest<ALL, FLIP>(-Real(infinity()), chunk, present), shift = finite_or_zero(top);
        const Real scale = FLIP ? -weights.scale : weights.scale;
        Real all = 0, first = 0, second = 0;
#pragma unroll
        for (int i = 0; i < COUNT; ++i)
            if (ALL || i < present) {
                Real sum = 0, moment = 0, square = 0;
#pragma unroll
                for (int j = 0; j < WIDTH; ++j) {
                    const Real x = widen(chunk[i].get(j)), distance = (FLIP ? -x : x) - shift;
                    const Real weight = power_of_two(distance * scale), weighted = weight * finite(distance);
                    sum += weight;
                    moment += weighted;
                    square = fused(weighted, finite(distance), square);
                }
                all += sum;
                first += moment;
                second += square;
            }
        const Real centre = all == 0 ? Real(0) : quotient(first, all);
        merge({top, all, centre, larger(second - first * centre, Real(0))}, weights);
    }

    __device__ void merge(Moments other, Weights<Real> weights) {
        const Real new_peak = larger(peak, other.peak);
        raise(new_peak, weights);
        other.raise(new_peak, weights);
        join(other.total, other.mean, other.spread);
    }

    template <int COUNT> __device__ void over_lanes(Weights<Real> weights) {
        Real new_peak = peak;
        for (int lanes = COUNT / 2; lanes > 0; lanes /= 2) new_peak = larger(new_peak, shuffle_xor(new_peak, lanes));
        raise(new_peak, weights);
        Real sum = total, first = total * mean;
        for (int lanes = COUNT / 2; lanes > 0; lanes /= 2) {
            sum += shuffle_xor(sum, lanes);
            first += shuffle_xor(first, lanes);
        }
        const Real centre = sum == 0 ? Real(0) : quotient(first, sum), difference = mean - centre;
        spread += total * difference * difference;
        for (int lanes = COUNT / 2; lanes > 0; lanes /= 2) spread += shuffle_xor(spread, lanes);
        total = sum;
        mean = centre;
    }
};

// log_z, energy, variance: (rows,); parts: (rows, splits), or null if rows are not split; counters: zeros, one for each
// group of rows, or null.
template <class T, int LANES, int WIDTH, bool ROWS_CLOSER>
__global__ void __launch_bounds__(THREADS)
    forward(const T* __restrict__ x, Wide<T>* log_z, Wide<T>* energy, Wide<T>* variance, Moments<Wide<T>>* parts,
            u32* counters, Rows rows, double beta) {
    using Real = Wide<T>;
    const Weights<Real> weights(beta);
    Moments<Real> sum;
    i64 row;
    if (!reduce_rows<LANES, WIDTH, ROWS_CLOSER>(x, rows, parts, counters, weights, sum, row)) return;
    const Real shift = finite_or_zero(sum.peak);
    const Real result = shift * static_cast<Real>(beta < 0 ? -beta : beta) + logarithm(sum.total);
    const bool known = result - result == 0;  // neither infinite nor NaN
    log_z[row] = result;
    energy[row] = known ? -weights.sign * (shift + sum.mean) : Real(not_a_number());
    variance[row] = known ? sum.spread / sum.total : Real(not_a_number());
}
