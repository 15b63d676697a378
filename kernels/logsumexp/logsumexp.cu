// Log-sum-exp in CUDA C, forward and backward.
//
// Bytes: the forward reads each element once (8, 4 or 2 B) and writes a result per row; the backward reads and writes
// each element once. Memory is the limit: at 4.3 TB/s over 132 multiprocessors of 1.98 GHz, 16.5 B arrive per clock
// and multiprocessor, so that 128 lanes have 31 instructions for an element of 4 B read, and 15.6 for one of 2 B.
//
// Operations per element, forward: a comparison, a subtraction, a product, an ex2, a sum, and for 16 bits an unpacking
// in place of half a comparison. In the inner loop of sm_90, loads, addresses and rescaling included: 7.1 instructions
// for float32 (23 % of what can be issued while the data arrive), 6.8 for 16 bits (43 %), of which 1.06 and 1.03 MUFU;
// 40 for float64 (64 %), of which 23 in the double-precision pipe. No FFMA takes the scale in: x * scale - peak * scale
// overflows where x does not, and a single element would not come back exactly.
// Backward: an FFMA, a sum, a product and an ex2 with its care for subnormal numbers, packing for 16 bits; 23 for
// float32 and 16 for 16 bits with all that a thread does once, of 62 and 31 that can be issued.
//
// Design: rows.cuh reads the rows: 2 to 32 lanes of a warp for short ones, a block for long ones, several blocks for
// long ones that are few. Each thread has a running maximum and a running sum, rescaled once per chunk of four loads:
// no lane waits for another before the end of the row. 32 registers leave room for 2048 threads on a multiprocessor
// (float64: 48), each with 64 B in flight: 128 KB, where bandwidth times latency asks for about 25 KB.
// No cluster per row: a row that a block cannot read fast enough alone is split over blocks, whose sums are two numbers
// each; distributed shared memory would save the one exchange per 64 KB read, and bound the parts of a row to 16.
#include "rows.cuh"

// A sum of 2^((x - sign * finite_or_zero(peak)) * scale) over elements x; peak is the largest sign * x of them.
template <class Real> struct Running {
    Real peak, total;

    static __device__ Running nothing() { return {-infinity(), 0}; }

    __device__ void raise(Real new_peak, Weights<Real> weights) {
        const Real old_peak = peak;
        peak = new_peak;
        if (old_peak == new_peak) return;
        // A total without elements is 0 (or NaN) and stays so: its factor would be NaN at scale 0.
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

// y: (rows,); exact: (rows,) in the wide type, or null; parts: (rows, splits) and counters, 0, or null for whole rows.
template <class T, int LANES, int WIDTH, bool ROWS_CLOSER>
__global__ void __launch_bounds__(THREADS)
    forward(const T* __restrict__ x, T* y, Wide<T>* exact, Running<Wide<T>>* parts, u32* counters, Rows rows,
            double beta) {
    using Real = Wide<T>;
    Running<Real> sum;
    i64 row;
    if (!reduce_rows<LANES, WIDTH, ROWS_CLOSER>(x, rows, parts, counters, Weights<Real>(beta), sum, row)) return;
    const Real level = finite_or_zero(sum.peak) * static_cast<Real>(beta < 0 ? -beta : beta);
    const Real result = level + logarithm(sum.total);
    y[row] = narrow<T>(result);
    if (exact) exact[row] = result;
}

// Subnormal weights are kept: a gradient may be large.
__device__ __forceinline__ float weight(float exponent) { return exp2_fast(exponent); }
__device__ __forceinline__ double weight(double exponent) { return exp2(exponent); }

// dx = grad * beta * exp(beta x - lse). Each block takes ROWS rows and LANES * WIDTH * CHUNK columns; n is a multiple
// of WIDTH.
template <class T, int LANES, int WIDTH, bool ROWS_CLOSER>
__global__ void __launch_bounds__(THREADS)
    backward(const T* grad, const T* __restrict__ x, const Wide<T>* lse, T* dx, Layout x_layout, Layout dx_layout,
             i64 rows, i64 n, i64 column_blocks, double beta_argument) {
    using Real = Wide<T>;
    constexpr int ROWS = THREADS / LANES, STRIDE = LANES * WIDTH, COUNT = CHUNK<T, WIDTH>;
    const u32 per_row = static_cast<u32>(column_blocks);
    const u32 group = per_row == 1 ? blockIdx.x : blockIdx.x / per_row;
    const u32 column_block = per_row == 1 ? 0 : blockIdx.x % per_row;
    const i64 row = static_cast<i64>(group) * ROWS + (ROWS_CLOSER ? threadIdx.x % ROWS : threadIdx.x / LANES);
    if (row >= rows) return;
    const int lane = ROWS_CLOSER ? threadIdx.x / ROWS : threadIdx.x % LANES;
    const i64 x_stride = WIDTH > 1 ? 1 : x_layout.stride, dx_stride = WIDTH > 1 ? 1 : dx_layout.stride;
    const i64 first = static_cast<i64>(column_block) * (STRIDE * COUNT) + lane * WIDTH;
    const T* const from = x + x_layout.offset(row);
    T* const to = dx + dx_layout.offset(row);
    Vector<T, WIDTH> chunk[COUNT];
#pragma unroll
    for (int i = 0; i < COUNT; ++i) {
        const i64 k = first + i * STRIDE;
        if (k < n) chunk[i] = load<WIDTH>(from + k * x_stride);
    }
    // Half the exponent of 2, since the whole may overflow where beta x does not; the FMA adds one rounding to those of
    // beta log2(e) and lse log2(e), the latter from a constant in two parts.
    const Real half_scale = static_cast<Real>(beta_argument * 0.72134752044448170);
    const Real level = lse[row] == -infinity() ? Real(0) : lse[row], factor = widen(grad[row]) * Real(beta_argument);
    constexpr Real HALF_LOG2E = 0.72134752044448170, REST = 0.72134752044448170 - HALF_LOG2E;
    const Real half_level = REST == 0 ? level * HALF_LOG2E : fused(level, HALF_LOG2E, level * REST);  // inf * 0 is NaN
#pragma unroll
    for (int i = 0; i < COUNT; ++i) {
        const i64 k = first + i * STRIDE;
        if (k >= n) break;
#pragma unroll
        for (int j = 0; j < WIDTH; ++j) {
            const Real half = fused(widen(chunk[i].get(j)), half_scale, -half_level);
            chunk[i].set(j, narrow<T>(factor * weight(half + half)));
        }
        store<WIDTH>(to + k * dx_stride, chunk[i]);
    }
}
