// Log-sum-exp in CUDA C, forward and backward.
//
// Bound by memory: the forward reads each element once (4 B or 2 B) and writes a row's result; the backward reads and
// writes each element once. Per element one ex2, a subtraction, a product and a comparison.
//
// Design: LANES threads share a row (a warp for short rows, a block for long ones), each with a running maximum and a
// running sum that is rescaled once per chunk of loads, not per element. WIDTH elements come in one 128-bit load where
// the rows allow it, four loads in flight. Where rows are neighbours in memory (ROWS_CLOSER: a reduction over an outer
// dimension), neighbouring threads take neighbouring rows. Rows too few to fill the device are split over blockIdx.y;
// `combine` puts the parts together.
#include "device.cuh"

constexpr int THREADS = 256;
constexpr int CHUNK = 4;  // loads in flight

// Element k of row r lies at offset(r) + k * stride; rows are numbered over sizes (anything, size1, size2).
struct Layout {
    i64 size1, size2, stride0, stride1, stride2, stride;

    __device__ i64 offset(i64 row) const {
        const i64 inner = row % size2, rest = row / size2;
        return rest / size1 * stride0 + rest % size1 * stride1 + inner * stride2;
    }
};

__device__ __forceinline__ float power_of_two(float x) { return exp2_fast(x); }
__device__ __forceinline__ double power_of_two(double x) { return exp2(x); }
__device__ __forceinline__ float logarithm(float x) { return logf(x); }
__device__ __forceinline__ double logarithm(double x) { return log(x); }
__device__ __forceinline__ float larger(float a, float b) { return fmaxf(a, b); }
__device__ __forceinline__ double larger(double a, double b) { return fmax(a, b); }
__device__ __forceinline__ float shuffle_xor(float x, int lanes) { return __shfl_xor_sync(warp_mask, x, lanes); }
__device__ __forceinline__ double shuffle_xor(double x, int lanes) { return __shfl_xor_sync(warp_mask, x, lanes); }

// A sum of 2^((z - shift(peak)) * scale) over the z seen so far, and their maximum.
template <class Real> struct Running {
    Real peak = -infinity(), total = 0;

    // What is subtracted before the exponential: the maximum, unless it is infinite (inf - inf would be NaN).
    __device__ Real shift() const { return peak == infinity() || peak == -infinity() ? Real(0) : peak; }

    __device__ void raise(Real new_peak, Real scale) {
        const Real old_peak = peak;
        peak = new_peak;
        if (old_peak == new_peak) return;
        // A total without elements is 0 (or NaN) and stays so: its factor would be NaN at scale 0.
        total *= old_peak == -infinity() ? Real(0) : power_of_two((old_peak - shift()) * scale);
    }

    __device__ void merge(Running other, Real scale) {
        const Real new_peak = larger(peak, other.peak);
        raise(new_peak, scale);
        other.raise(new_peak, scale);
        total += other.total;
    }

    __device__ Real result(Real beta) const {
        return (beta < 0 ? -shift() : shift()) * beta + logarithm(total);
    }
};

template <class T, int WIDTH> struct __align__(sizeof(T) * WIDTH) Vector {
    T item[WIDTH];
};

template <int LANES, bool ROWS_CLOSER> struct Place {
    static constexpr int ROWS = THREADS / LANES;
    static __device__ int row() { return ROWS_CLOSER ? threadIdx.x % ROWS : threadIdx.x / LANES; }
    static __device__ int lane() { return ROWS_CLOSER ? threadIdx.x / ROWS : threadIdx.x % LANES; }
};

// y: (rows,); exact: (rows,) in the wide type, or null; peaks, totals: (splits, rows), or null for whole rows.
template <class T, int LANES, int WIDTH, bool ROWS_CLOSER>
__global__ void __launch_bounds__(THREADS)
    forward(const T* __restrict__ x, T* y, Wide<T>* exact, Wide<T>* peaks, Wide<T>* totals, Layout layout, i64 rows,
            i64 n, i64 part, double beta_argument) {
    using Real = Wide<T>;
    using Here = Place<LANES, ROWS_CLOSER>;
    const Real beta = (Real)beta_argument, sign = beta < 0 ? -1 : 1;
    const Real scale = (Real)((beta_argument < 0 ? -beta_argument : beta_argument) * 1.4426950408889634);
    const i64 row = (i64)blockIdx.x * Here::ROWS + Here::row();
    const i64 begin = blockIdx.y * part, end = begin + part < n ? begin + part : n;
    Running<Real> sum;
    if (row < rows) {
        const T* const base = x + layout.offset(row);
        for (i64 first = begin + Here::lane() * WIDTH; first < end; first += (i64)LANES * WIDTH * CHUNK) {
            Vector<T, WIDTH> chunk[CHUNK];
#pragma unroll
            for (int i = 0; i < CHUNK; ++i) {
                const i64 k = first + (i64)i * LANES * WIDTH;
                if (k < end) chunk[i] = *reinterpret_cast<const Vector<T, WIDTH>*>(base + k * layout.stride);
            }
            Real new_peak = sum.peak;
#pragma unroll
            for (int i = 0; i < CHUNK; ++i)
                if (first + (i64)i * LANES * WIDTH < end)
                    for (int j = 0; j < WIDTH; ++j) new_peak = larger(new_peak, sign * widen(chunk[i].item[j]));
            sum.raise(new_peak, scale);
            const Real shift = sum.shift();
#pragma unroll
            for (int i = 0; i < CHUNK; ++i)
                if (first + (i64)i * LANES * WIDTH < end)
                    for (int j = 0; j < WIDTH; ++j)
                        sum.total += power_of_two((sign * widen(chunk[i].item[j]) - shift) * scale);
        }
    }
    constexpr int PARTS = ROWS_CLOSER ? LANES : LANES / 32;  // what is left of a row after the exchange in a warp
    if (!ROWS_CLOSER)
        for (int lanes = 16; lanes > 0; lanes /= 2) {
            Running<Real> other;
            other.peak = shuffle_xor(sum.peak, lanes);
            other.total = shuffle_xor(sum.total, lanes);
            sum.merge(other, scale);
        }
    if (PARTS > 1) {
        __shared__ Real shared_peaks[THREADS], shared_totals[THREADS];
        const int slot = ROWS_CLOSER ? threadIdx.x : threadIdx.x / 32;
        shared_peaks[slot] = sum.peak;  // all lanes of a warp hold the same
        shared_totals[slot] = sum.total;
        __syncthreads();
        if (Here::lane() == 0)
            for (int i = 1; i < PARTS; ++i) {
                const int from = ROWS_CLOSER ? i * Here::ROWS + Here::row() : Here::row() * PARTS + i;
                Running<Real> other;
                other.peak = shared_peaks[from];
                other.total = shared_totals[from];
                sum.merge(other, scale);
            }
    }
    if (row >= rows || Here::lane() != 0) return;
    if (peaks) {
        peaks[blockIdx.y * rows + row] = sum.peak;
        totals[blockIdx.y * rows + row] = sum.total;
    } else {
        const Real result = sum.result(beta);
        y[row] = narrow<T>(result);
        if (exact) exact[row] = result;
    }
}

// The parts of split rows, (splits, rows), put together.
template <class T>
__global__ void __launch_bounds__(THREADS)
    combine(const Wide<T>* peaks, const Wide<T>* totals, T* y, Wide<T>* exact, i64 rows, i64 splits,
            double beta_argument) {
    using Real = Wide<T>;
    const Real scale = (Real)((beta_argument < 0 ? -beta_argument : beta_argument) * 1.4426950408889634);
    const i64 row = (i64)blockIdx.x * THREADS + threadIdx.x;
    if (row >= rows) return;
    Running<Real> sum;
    for (i64 split = 0; split < splits; ++split) {
        Running<Real> other;
        other.peak = peaks[split * rows + row];
        other.total = totals[split * rows + row];
        sum.merge(other, scale);
    }
    const Real result = sum.result((Real)beta_argument);
    y[row] = narrow<T>(result);
    if (exact) exact[row] = result;
}

// dx = grad * beta * exp(beta x - lse). Each block takes ROWS rows and LANES * WIDTH * CHUNK columns.
template <class T, int LANES, int WIDTH, bool ROWS_CLOSER>
__global__ void __launch_bounds__(THREADS)
    backward(const T* grad, const T* __restrict__ x, const Wide<T>* lse, T* dx, Layout x_layout, Layout dx_layout,
             i64 rows, i64 n, i64 column_blocks, double beta_argument) {
    using Real = Wide<T>;
    using Here = Place<LANES, ROWS_CLOSER>;
    const i64 row = blockIdx.x / column_blocks * Here::ROWS + Here::row();
    if (row >= rows) return;
    const Real beta = (Real)beta_argument, factor = widen(grad[row]) * beta;
    const Real level = lse[row] == -infinity() ? Real(0) : lse[row];
    const T* const from = x + x_layout.offset(row);
    T* const to = dx + dx_layout.offset(row);
    const i64 first = blockIdx.x % column_blocks * ((i64)LANES * WIDTH * CHUNK) + Here::lane() * WIDTH;
    Vector<T, WIDTH> chunk[CHUNK];
#pragma unroll
    for (int i = 0; i < CHUNK; ++i) {
        const i64 k = first + (i64)i * LANES * WIDTH;
        if (k < n) chunk[i] = *reinterpret_cast<const Vector<T, WIDTH>*>(from + k * x_layout.stride);
    }
#pragma unroll
    for (int i = 0; i < CHUNK; ++i) {
        const i64 k = first + (i64)i * LANES * WIDTH;
        if (k >= n) break;
        for (int j = 0; j < WIDTH; ++j) {
            const Real exponent = (widen(chunk[i].item[j]) * beta - level) * Real(1.4426950408889634);
            chunk[i].item[j] = narrow<T>(factor * power_of_two(exponent));
        }
        *reinterpret_cast<Vector<T, WIDTH>*>(to + k * dx_layout.stride) = chunk[i];
    }
}
