// Log-sum-exp in CUDA C, forward and backward.
//
// Bytes: the forward reads each element once (8, 4 or 2 B) and writes a result per row; the backward reads and writes
// each element once. Memory is the limit: at 4.3 TB/s over 132 multiprocessors of 1.98 GHz, 16.5 B arrive per clock
// and multiprocessor, so that 128 lanes have 31 instructions for an element of 4 B read, and 15.6 for one of 2 B.
//
// Operations per element, forward: a comparison, a subtraction, a product, an ex2, a sum, and for 16 bits an unpacking
// in place of half a comparison. In the inner loop of sm_90, loads, addresses and rescaling included: 7.1 instructions
// for float32 (23 % of what can be issued while the data arrive), 6.8 for 16 bits (43 %), of which 1.06 and 1.03 MUFU;
// 40 for float64 (64 %), of which 23 in the double-precision pipe. The scale is not folded into an FFMA: x * scale -
// peak * scale overflows where x does not, and the result for a single element would not be exact.
// Backward: a difference, two FFMA, a product and an ex2 that keeps subnormal numbers, and packing for 16 bits.
// Including the work that a thread does once: 24 for float32 and 18 for 16 bits, of 62 and 31 that can be issued.
//
// Predicted, not measured, for an H200 whose copies reach 81 % of the datasheet: forward 0.96e12 elements/s (0.81e12 to
// 1.13e12) in float32, 1.84e12 (1.56e12 to 2.17e12) in bfloat16; backward 0.47e12 and 0.92e12. Memory decides, so that
// no kernel which reads each element once can be much faster. To beat: QuACK's cross-entropy, whose machine code lets
// expect 0.92e12 and 1.54e12 (results/predictions).
//
// Design: rows.cuh reads the rows: 2 to 32 lanes of a warp for a short row, a block for a long row, several blocks for
// each row if there are few long rows. Each thread has a running maximum and a running sum, rescaled once per chunk of
// four loads: no lane waits for another before the end of the row. 32 registers leave room for 2048 threads on a
// multiprocessor (float64: 48), each with 64 B in flight: 128 KB, while bandwidth times latency is about 25 KB.
// There is no cluster per row. A row too long for one block is split over blocks, each of which writes two numbers.
// Distributed shared memory would save only this exchange, one per 64 KB read, and limit a row to 16 parts.
#include "rows/softmax.cuh"

// y: (rows,), the sum beta peak + log_total of two numbers that the gradient needs apart; log_total, peak: (rows,) in
// the wide type, or null; parts: (rows, splits), or null if rows are not split; counters: zeros, one for each group of
// rows, or null.
template <class T, int LANES, int WIDTH, bool ROWS_CLOSER>
__global__ void __launch_bounds__(THREADS)
    forward(const T* __restrict__ x, T* y, Wide<T>* log_total, Wide<T>* peak, Running<Wide<T>>* parts, u32* counters,
            Rows rows, double beta) {
    using Real = Wide<T>;
    Running<Real> sum;
    i64 row;
    if (!reduce_rows<LANES, WIDTH, ROWS_CLOSER>(x, rows, parts, counters, Weights<Real>(beta), sum, row)) return;
    const Real shift = finite_or_zero(sum.peak), logarithm_of_total = logarithm(sum.total);
    y[row] = narrow<T>(shift * static_cast<Real>(beta < 0 ? -beta : beta) + logarithm_of_total);
    if (peak == nullptr) return;
    log_total[row] = logarithm_of_total;
    peak[row] = beta < 0 ? -shift : shift;
}

// dx = grad * beta * exp(beta (x - peak) - log_total).
template <class T, int LANES, int WIDTH, bool ROWS_CLOSER>
__global__ void __launch_bounds__(THREADS)
    backward(const T* grad, const Wide<T>* log_total, const Wide<T>* peak, const T* __restrict__ x, T* dx,
             Layout x_layout, Layout dx_layout, i64 rows, i64 n, i64 column_blocks, double beta) {
    using Real = Wide<T>;
    const auto slope_of = [=](i64 row, i64, Chunk<T, WIDTH>&) {
        const Probability<Real> probability(peak[row], log_total[row], beta);
        const Real factor = widen(grad[row]) * Real(beta);
        return [=](Real element, u32) { return factor * probability(element); };
    };
    map_rows<LANES, WIDTH, ROWS_CLOSER>(x, dx, x_layout, dx_layout, rows, n, column_blocks, slope_of);
}
