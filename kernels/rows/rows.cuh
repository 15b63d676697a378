// Reduces each row of a strided tensor to one sum in one launch (log-sum-exp, thermodynamics), or maps rows element by
// element (their gradients).
//
// Memory bandwidth is the limit: loads are wide, several are in flight, and threads wait for each other once per row.
//
// The caller defines a sum, a struct without constructors, since it also lies in shared and in global memory:
//
//   static Sum nothing()                          the sum of no elements
//   void add<ALL, FLIP>(chunk, present, weights)  adds a chunk, or if not ALL its first `present`; FLIP: beta < 0
//   void merge(other, weights)                    adds other elements of the same row
//   void over_lanes<COUNT>(weights)               combines COUNT neighbouring lanes; each lane gets the result
//
// LANES threads share a row: 2 to 32 of a warp, or the block. One load has WIDTH elements. It has 128 bits unless WIDTH
// is 1, for rows that are not aligned or not contiguous. A chunk of four or eight loads is in flight. Full chunks are
// read without a test; the remainder of a row follows once.
//
// Rows too few to fill the device are split. Each part writes its sum to memory, and the block that finishes last in a
// row combines the parts in their order: the bits do not depend on which block that is. A counter finds the last block,
// and is 0 again when the launch ends.
#pragma once
#include "device.cuh"

constexpr int THREADS = 256;
template <class T, int WIDTH> constexpr int CHUNK = WIDTH > 1 || sizeof(T) == 8 ? 4 : 8;  // loads in flight

// Element k of row r lies at offset(r) + k * stride. Rows have the sizes (any, size1, size2).
struct Layout {
    i64 size1, size2, stride0, stride1, stride2, stride;

    __device__ i64 offset(i64 row) const {
        if (size2 == 0) return row * stride2;  // one dimension of rows: no divisions
        const i64 inner = row % size2, rest = row / size2;
        return rest / size1 * stride0 + rest % size1 * stride1 + inner * stride2;
    }
};

// A part of a row has `length` elements, a multiple of one step of a block; the last part may be shorter.
struct Rows {
    Layout layout;
    i64 count, n, splits, length;
};

template <class Real> struct Weights {
    Real scale;  // beta log2(e): element x weighs 2^(scale x)
    Real sign;   // of beta: the heaviest element has the largest sign * x

    __device__ explicit Weights(double beta)
        : scale(static_cast<Real>(beta * 1.4426950408889634)), sign(beta < 0 ? -1 : 1) {}
};

// Flushing small weights to 0 does no harm: the largest weight of a sum is 1.
__device__ __forceinline__ float power_of_two(float x) { return exp2_flushed(x); }

// (2^f - 1) / f on [-1/2, 1/2], interpolated at Chebyshev nodes; 2^f is within 0.2 u. `exp2`, which keeps subnormal
// results, takes registers that the loads in flight need.
__constant__ double exponential_series[] = {
    0.6931471805599453,    0.24022650695910097,   0.0555041086648216,     0.009618129107606888,
    0.0013333558146416936, 0.0001540353044173605, 1.525273382983612e-05,  1.321544258792169e-06,
    1.0178062445845774e-07, 7.072585949269223e-09, 4.4549605981865186e-10};

__device__ __forceinline__ double power_of_two(double x) {
    const double shifter = 6755399441055744.0;  // 1.5 * 2^52: adding it rounds to an integer in the low bits
    const double shifted = x + shifter, f = x - (shifted - shifter);
    double series = exponential_series[10];
#pragma unroll
    for (int k = 9; k >= 0; --k) series = fma(series, f, exponential_series[k]);
    const u64 exponent = static_cast<u64>(__double_as_longlong(shifted)) << 52;
    const double power = __longlong_as_double(static_cast<u64>(__double_as_longlong(fma(series, f, 1.0))) + exponent);
    // Beyond 1022: 0, or x itself, which is correct for infinity and NaN. Other large x occur only beside infinity.
    return fabs(x) < 1022 ? power : x < 0 ? 0 : x;
}
__device__ __forceinline__ float logarithm(float x) { return logf(x); }
__device__ __forceinline__ double logarithm(double x) { return log(x); }
__device__ __forceinline__ float larger(float a, float b) { return fmaxf(a, b); }
__device__ __forceinline__ double larger(double a, double b) { return fmax(a, b); }
__device__ __forceinline__ float fused(float a, float b, float c) { return fmaf(a, b, c); }
__device__ __forceinline__ double fused(double a, double b, double c) { return fma(a, b, c); }
__device__ __forceinline__ float quotient(float a, float b) { return __fdividef(a, b); }  // 2 ulp, 0 for b > 2^126
__device__ __forceinline__ double quotient(double a, double b) { return a / b; }
template <class Real> __device__ __forceinline__ Real shuffle_xor(Real x, int lanes) {
    return __shfl_xor_sync(warp_mask, x, lanes);
}

// The largest element, to subtract before the exponential; 0 if it is infinite, since inf - inf is NaN.
template <class Real> __device__ __forceinline__ Real finite_or_zero(Real peak) {
    return peak == infinity() || peak == -infinity() ? Real(0) : peak;
}

template <class T, int WIDTH, bool PAIRS = sizeof(T) == 2 && WIDTH % 2 == 0>
struct __align__(sizeof(T) * WIDTH) Vector {
    T item[WIDTH];

    __device__ T get(int j) const { return item[j]; }
    __device__ void set(int j, T value) { item[j] = value; }

    template <bool FLIP> __device__ Wide<T> highest(Wide<T> peak) const {
        for (int j = 0; j < WIDTH; ++j) peak = larger(peak, FLIP ? -widen(item[j]) : widen(item[j]));
        return peak;
    }
};

// 16-bit elements, two in a register: half as many comparisons, and no 16-bit registers.
template <class T, int WIDTH> struct __align__(sizeof(T) * WIDTH) Vector<T, WIDTH, true> {
    u32 pair[WIDTH / 2];

    __device__ T get(int j) const { return {static_cast<unsigned short>(pair[j / 2] >> j % 2 * 16)}; }
    __device__ void set(int j, T value) {
        if (j % 2 == 0) pair[j / 2] = (pair[j / 2] & 0xffff0000u) | value.bits;
        else pair[j / 2] = (pair[j / 2] & 0xffffu) | static_cast<u32>(value.bits) << 16;
    }

    template <bool FLIP> __device__ float highest(float peak) const {
        u32 best = pair[0];
        for (int j = 1; j < WIDTH / 2; ++j)
            best = FLIP ? smaller_pair<T>(best, pair[j]) : larger_pair<T>(best, pair[j]);
        const float low = widen(T{static_cast<unsigned short>(best)});
        const float high = widen(T{static_cast<unsigned short>(best >> 16)});
        return larger(peak, FLIP ? larger(-low, -high) : larger(low, high));
    }
};

// The elements of a row that a thread has in flight.
template <class T, int WIDTH> using Chunk = Vector<T, WIDTH>[CHUNK<T, WIDTH>];

// One access of all WIDTH elements, of 128 bits unless WIDTH is 1.
template <int WIDTH, class T> __device__ __forceinline__ Vector<T, WIDTH> load(const T* from) {
    return *reinterpret_cast<const Vector<T, WIDTH>*>(from);
}
template <int WIDTH, class T> __device__ __forceinline__ void store(T* to, const Vector<T, WIDTH>& chunk) {
    if constexpr (WIDTH == 1) *to = chunk.get(0);
    else store_128(to, *reinterpret_cast<const uint4*>(&chunk));
}

// The larger of `peak` and sign * x for all x. NaN is ignored here; its weight makes the sum NaN.
template <bool ALL, bool FLIP, class Real, class T, int WIDTH, int COUNT>
__device__ __forceinline__ Real highest(Real peak, const Vector<T, WIDTH> (&chunk)[COUNT], int present) {
#pragma unroll
    for (int i = 0; i < COUNT; ++i)
        if (ALL || i < present) peak = chunk[i].template highest<FLIP>(peak);
    return peak;
}

// Adds one lane's share of the elements from `begin` to `end` of a row.
template <bool FLIP, int LANES, int WIDTH, class Sum, class T, class Real>
__device__ __forceinline__ void read_row(const T* __restrict__ row, i64 stride, i64 begin, i64 end, int lane,
                                         Weights<Real> weights, Sum& sum) {
    constexpr int STRIDE = LANES * WIDTH, COUNT = CHUNK<T, WIDTH>;
    const i64 whole = end - end % WIDTH;
    i64 k = begin + lane * WIDTH;
    Vector<T, WIDTH> chunk[COUNT];
#pragma unroll 1
    for (; k + (COUNT - 1) * STRIDE < whole; k += COUNT * STRIDE) {
#pragma unroll
        for (int i = 0; i < COUNT; ++i) chunk[i] = load<WIDTH>(row + (k + i * STRIDE) * stride);
        sum.template add<true, FLIP>(chunk, COUNT, weights);
    }
    if (k < whole) {
        const int present = static_cast<int>((whole - k - 1) / STRIDE) + 1;
#pragma unroll
        for (int i = 0; i < COUNT; ++i)
            if (i < present) chunk[i] = load<WIDTH>(row + (k + i * STRIDE) * stride);
        sum.template add<false, FLIP>(chunk, present, weights);
    }
    if (WIDTH > 1)
#pragma unroll 1
        for (k = whole + lane; k < end; k += LANES) {
            Vector<T, 1> single[1];
            single[0].set(0, row[k]);
            sum.template add<true, FLIP>(single, 1, weights);
        }
}

// Combines the sums of a row's threads. Before, neighbouring threads have neighbouring elements, or (ROWS_CLOSER)
// neighbouring rows. After, thread t has the sum of row t / LANES of the block.
template <int LANES, bool ROWS_CLOSER, class Sum, class Real>
__device__ __forceinline__ Sum together(Sum own, Weights<Real> weights) {
    if (!ROWS_CLOSER) own.template over_lanes<LANES < 32 ? LANES : 32>(weights);
    constexpr int PARTS = ROWS_CLOSER ? LANES : LANES / 32, ROWS = THREADS / LANES;
    if (PARTS > 1) {
        __shared__ Sum slots[ROWS_CLOSER ? THREADS : THREADS / 32];
        slots[ROWS_CLOSER ? threadIdx.x % ROWS * LANES + threadIdx.x / ROWS : threadIdx.x / 32] = own;
        __syncthreads();
        own = slots[ROWS_CLOSER ? threadIdx.x : threadIdx.x % PARTS];
        own.template over_lanes<(PARTS > 1 ? PARTS : 2)>(weights);
    }
    return own;
}

// Reduces a block's share of rows. Returns true in the thread that writes `sum`, the result of row `row`.
template <int LANES, int WIDTH, bool ROWS_CLOSER, class Sum, class T, class Real>
__device__ __forceinline__ bool reduce_rows(const T* __restrict__ x, const Rows& rows, Sum* parts, u32* counters,
                                            Weights<Real> weights, Sum& sum, i64& row) {
    constexpr int ROWS = THREADS / LANES, AT_ONCE = 4;
    const u32 group = rows.splits == 1 ? blockIdx.x : blockIdx.x / static_cast<u32>(rows.splits);
    const i64 part = rows.splits == 1 ? 0 : blockIdx.x % static_cast<u32>(rows.splits);
    const i64 begin = part * rows.length, end = begin + rows.length < rows.n ? begin + rows.length : rows.n;
    const int lane = ROWS_CLOSER ? threadIdx.x / ROWS : threadIdx.x % LANES;
    row = static_cast<i64>(group) * ROWS + (ROWS_CLOSER ? threadIdx.x % ROWS : threadIdx.x / LANES);
    sum = Sum::nothing();
    if (row < rows.count) {
        const T* const base = x + rows.layout.offset(row);
        const i64 stride = WIDTH > 1 ? 1 : rows.layout.stride;
        if (weights.sign > 0) read_row<false, LANES, WIDTH>(base, stride, begin, end, lane, weights, sum);
        else read_row<true, LANES, WIDTH>(base, stride, begin, end, lane, weights, sum);
    }
    sum = together<LANES, ROWS_CLOSER>(sum, weights);
    row = static_cast<i64>(group) * ROWS + threadIdx.x / LANES;
    const int place = threadIdx.x % LANES;
    if (rows.splits == 1) return row < rows.count && place == 0;

    if (row < rows.count && place == 0) parts[row * rows.splits + part] = sum;
    __threadfence();  // the part before the counter
    __syncthreads();
    __shared__ u32 finished_before;
    if (threadIdx.x == 0) finished_before = atomicAdd(counters + group, 1u);
    __syncthreads();
    if (finished_before != rows.splits - 1) return false;
    __threadfence();  // the counter before the other parts
    if (threadIdx.x == 0) counters[group] = 0;
    sum = Sum::nothing();
    if (row < rows.count) {
        const Sum* const given = parts + row * rows.splits;
#pragma unroll 1
        for (i64 first = place; first < rows.splits; first += LANES * AT_ONCE) {
            Sum several[AT_ONCE];
#pragma unroll
            for (int i = 0; i < AT_ONCE; ++i)
                several[i] = first + i * LANES < rows.splits ? given[first + i * LANES] : Sum::nothing();
#pragma unroll
            for (int i = 0; i < AT_ONCE; ++i) sum.merge(several[i], weights);
        }
    }
    sum = together<LANES, false>(sum, weights);
    return row < rows.count && place == 0;
}

// dx[k] = slope(x[k], place) for each element k = first + place of each row, with slope = slope_of(row, first, chunk):
// what depends on the row alone is done once for a thread, which may change what it has read of the row, and `place` is
// known to the compiler. Each block takes ROWS rows and LANES * WIDTH * CHUNK columns; n is a multiple of WIDTH.
template <int LANES, int WIDTH, bool ROWS_CLOSER, class T, class SlopeOf>
__device__ __forceinline__ void map_rows(const T* __restrict__ x, T* dx, const Layout& x_layout,
                                         const Layout& dx_layout, i64 rows, i64 n, i64 column_blocks,
                                         SlopeOf slope_of) {
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
    Chunk<T, WIDTH> chunk;
#pragma unroll
    for (int i = 0; i < COUNT; ++i) {
        const i64 k = first + i * STRIDE;
        if (k < n) chunk[i] = load<WIDTH>(from + k * x_stride);
    }
    const auto slope = slope_of(row, first, chunk);  // loads of its own follow those of the chunk
#pragma unroll
    for (int i = 0; i < COUNT; ++i) {
        const i64 k = first + i * STRIDE;
        if (k >= n) break;
#pragma unroll
        for (int j = 0; j < WIDTH; ++j) chunk[i].set(j, narrow<T>(slope(widen(chunk[i].get(j)), i * STRIDE + j)));
        store<WIDTH>(to + k * dx_stride, chunk[i]);
    }
}
