// Generalised cross-entropy in CUDA C, forward and backward.
//
// Bytes: the forward reads each logit once (8, 4 or 2 B), reads a label and its logit for each row, and writes loss and
// log-sum-exp. The backward reads and writes each logit once. Memory is the limit; logsumexp.cu says how many
// instructions per element it leaves time for.
//
// Operations per element, forward: those of log-sum-exp; the loss comes once per row. In the inner loop of sm_90: 7.3
// instructions for float32, 6.9 for 16 bits, 40 for float64. Backward: those of log-sum-exp's gradient, a comparison
// of the label with the place of an element, which is a constant of the code, and a selection of the addend of an FFMA.
// Each thread computes the label's logit and the power of its probability once, in some 150 instructions. In all 36 for
// float32 of the 62 that can be issued while the data move, 24 of 31 for 16 bits, 108 of 124 for float64.
//
// Design: as log-sum-exp. The label's logit takes a load of its own, so that the loop needs no comparison. It hits
// cache lines that the row also needs.
#include "rows/softmax.cuh"

__device__ __forceinline__ float minus_expm1(float x) { return -expm1f(x); }
__device__ __forceinline__ double minus_expm1(double x) { return -expm1(x); }
__device__ __forceinline__ float exponential(float x) { return expf(x); }
__device__ __forceinline__ double exponential(double x) { return exp(x); }

// The logit of a label in [0, n) of the row that begins at `row`; NaN, without a load, for any other label.
template <class T>
__device__ __forceinline__ Wide<T> chosen(const T* row, i64 stride, i64 n, i64 label) {
    return label >= 0 && label < n ? widen(row[label * stride]) : Wide<T>(not_a_number());
}

// loss, lse, peak: (rows,) in the wide type; peak may be null, and else lse is relative to it; labels: (rows,); parts:
// (rows, splits), or null if rows are not split; counters: zeros, one for each group of rows, or null.
template <class T, int LANES, int WIDTH, bool ROWS_CLOSER>
__global__ void __launch_bounds__(THREADS)
    forward(const T* __restrict__ x, const i64* labels, Wide<T>* loss, Wide<T>* lse, Wide<T>* peak,
            Running<Wide<T>>* parts, u32* counters, Rows rows, double q_argument, i64 ignore_index) {
    using Real = Wide<T>;
    Running<Real> sum;
    i64 row;
    if (!reduce_rows<LANES, WIDTH, ROWS_CLOSER>(x, rows, parts, counters, Weights<Real>(1.0), sum, row)) return;
    const Real shift = finite_or_zero(sum.peak), log_total = logarithm(sum.total), level = shift + log_total;
    const i64 label = labels[row];
    // Subtract the peak first: the rounding error then does not grow with the level of the row. A level of -inf means
    // that all logits are -inf.
    const Real distance = chosen(x + rows.layout.offset(row), rows.layout.stride, rows.n, label) - shift;
    const Real log_p = distance - (level == -infinity() ? Real(0) : log_total), q = static_cast<Real>(q_argument);
    lse[row] = peak ? log_total : level;
    if (peak) peak[row] = shift;
    loss[row] = label == ignore_index ? Real(0) : q == 0 ? -log_p : minus_expm1(q * log_p) / q;
}

// dx_i = grad p_y^q (p_i - delta_iy) with p_i = exp(x_i - peak - log_total).
template <class T, int LANES, int WIDTH, bool ROWS_CLOSER>
__global__ void __launch_bounds__(THREADS)
    backward(const Wide<T>* grad, const i64* labels, const Wide<T>* log_total, const Wide<T>* peak,
             const T* __restrict__ x, T* dx, Layout x_layout, Layout dx_layout, i64 rows, i64 n, i64 column_blocks,
             double q_argument, i64 ignore_index) {
    using Real = Wide<T>;
    const Real q = static_cast<Real>(q_argument);
    const auto slope_of = [=](i64 row, i64 first, Chunk<T, WIDTH>& chunk) {
        const i64 label = labels[row];
        const bool ignored = label == ignore_index;
        const Real level = ignored || log_total[row] == -infinity() ? Real(0) : log_total[row];
        const Real shift = ignored ? Real(0) : peak[row];
        const Probability<Real> probability(shift, level, 1.0);
        const Real log_p = (chosen(x + x_layout.offset(row), x_layout.stride, n, label) - shift) - level;
        const Real power = q > 0 ? exponential(q * log_p) : log_p == log_p ? Real(1) : log_p;
        const Real factor = ignored ? Real(0) : grad[row] * power;
        if (ignored)  // the row may hold inf or NaN, and 0 * inf is NaN
            for (auto& part : chunk) part = {};
        const u64 distance = static_cast<u64>(label - first);  // a label before `first` becomes a huge number
        const u32 label_place = distance < 0xffffffffu ? static_cast<u32>(distance) : 0xffffffffu;
        return [=](Real element, u32 place) {
            return fused(factor, probability(element), place == label_place ? -factor : Real(0));
        };
    };
    map_rows<LANES, WIDTH, ROWS_CLOSER>(x, dx, x_layout, dx_layout, rows, n, column_blocks, slope_of);
}
