// log Z by enumeration in CUDA C: sums over all states of a machine, in one launch; see tables.py for the formulas.
//
// product_sum, a restricted machine: 2^n states with m factors each. Up to its scale a factor 1 + e^z is
// high low + rest, since z is the sum of contributions of either half of the state. So a term takes one fma and one
// product, no exponential. Instruction issue bounds the speed: on sm_90 64 terms take 150 instructions, of which 128
// are the fmas and products, and 256 terms take some 90 more to move the products' exponents to integers: 2.7 for a
// term. Predicted, not measured, for an H200 with 132 multiprocessors at 1.98 GHz: 1.24e13 terms/s, less the start of
// each tile, a tenth of it if m is 32.
//   A thread holds 4 x 8 states: their products and exponents take 64 registers, and a load of four numbers serves 16
//   or 32 terms. The tables stay in the caches: a tile of 64 x 128 states reads 192 numbers of each unit.
//
// machine_sum, a Boltzmann machine: all states of the lower 16 units for each state of the top units, on tensor cores
// in double: a state takes one multiply-add. The 256 middle states are rows. For each top state a block makes the
// matrix of the 16 x 16 low states. The kernel multiplies the rows of `first` by it, multiplies by `second` and adds
// up. A warp keeps its rows in registers and reads 8 numbers from shared memory for 8192 states. On sm_90 that takes
// 32 mma and 75 other instructions. So the tensor cores bound the speed, at one state for each double multiply-add
// (33e12/s on an H200 by NVIDIA's data sheet).
#include "device.cuh"

constexpr int THREADS = 256, WARPS = THREADS / 32;
constexpr int GROUP = 8;
constexpr int HIGH = 64, LOW = 128;     // states of a tile
constexpr int ROWS = 4, COLUMNS = 8;    // states of a thread
constexpr int BATCH = 16, UNITS = 16;   // top states that a block prepares together; units below the top units
constexpr int EXPONENT_BIAS = 127;
constexpr double LOG_2 = 0.693147180559945309417;

// 2^exponent; 0 below the smallest normal number.
__device__ __forceinline__ float power_of_two(i32 exponent) {
    return __int_as_float((max(exponent, -EXPONENT_BIAS) + EXPONENT_BIAS) << 23);
}
__device__ __forceinline__ double power_of_two_double(i32 exponent) {
    return __longlong_as_double((i64)(max(exponent, -1023) + 1023) << 52);
}

// total 2^peak += more 2^other; afterwards peak is the larger of the two exponents.
__device__ __forceinline__ void add(i32& peak, double& total, i32 other, double more) {
    const i32 larger = max(peak, other);
    total = total * power_of_two_double(peak - larger) + more * power_of_two_double(other - larger);
    peak = larger;
}

// Moves the exponents of two positive numbers to two running sums of 16 bits in one word, to save registers. Each move
// adds EXPONENT_BIAS too much; the caller subtracts it once at the end, modulo 2^32. `one` holds the bits of 1.0.
__device__ __forceinline__ void take_exponents(float& p, float& q, u32& exponents, u32 one) {
    const u32 bits = __float_as_uint(p), more = __float_as_uint(q);
    exponents += bits >> 23;
    exponents += (more & 0x7f800000u) >> 7;
    p = __uint_as_float((bits & 0x007fffffu) | one);
    q = __uint_as_float((more & 0x007fffffu) | one);
}

__device__ __forceinline__ i32 first_of(u32 exponents) { return (i32)(short)exponents; }
__device__ __forceinline__ i32 second_of(u32 exponents) { return (i32)(exponents - (u32)first_of(exponents)) >> 16; }

// Multiplies the factors of all units for a thread's states and normalizes the exponents after every FACTORS factors.
template <int FACTORS>
__device__ __forceinline__ void multiply(float (&p)[ROWS][COLUMNS], u32 (&exponents)[ROWS][COLUMNS / 2],
                                         const float* high, const float* low, const float* rest, i32 units, u32 one) {
#pragma unroll 1
    for (i32 unit = 0; unit < units; unit += FACTORS) {
#pragma unroll 2  // unrolled further, the compiler starts loads so early that registers run out
        for (int j = 0; j < FACTORS; ++j) {
            const float4 rows = *reinterpret_cast<const float4*>(high + j * HIGH);
            const float4 left = *reinterpret_cast<const float4*>(low + j * LOW);
            const float4 right = *reinterpret_cast<const float4*>(low + j * LOW + 32);
            const float row[ROWS] = {rows.x, rows.y, rows.z, rows.w};
            const float column[COLUMNS] = {left.x, left.y, left.z, left.w, right.x, right.y, right.z, right.w};
#pragma unroll
            for (int i = 0; i < ROWS; ++i)
#pragma unroll
                for (int k = 0; k < COLUMNS; ++k) p[i][k] *= fma(row[i], column[k], rest[j]);
        }
        high += FACTORS * HIGH, low += FACTORS * LOW, rest += FACTORS;
#pragma unroll
        for (int i = 0; i < ROWS; ++i)
#pragma unroll
            for (int k = 0; k < COLUMNS; k += 2) take_exponents(p[i][k], p[i][k + 1], exponents[i][k / 2], one);
    }
}

// high: (gridDim.x, units, HIGH), low: (low_tiles, units, LOW), rest: (units), bias_high and bias_low: one number for
// each state; units is a multiple of GROUP. every: 1 to normalize exponents after each factor, 0 after each GROUP of
// factors. parts: (blocks, 2), a block's sum is e^parts[0] parts[1]. one: the bits of 1.0.
__global__ void __launch_bounds__(THREADS, 2)
    product_sum(const float* high, const float* low, const float* rest, const float* bias_high, const float* bias_low,
                const i32* every, double* parts, i32 units, i32 low_tiles, u32 one) {
    __shared__ i32 peaks[THREADS];
    __shared__ double totals[THREADS];
    const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const u32 own_high = warp / 2 * 16 + lane / 8 * ROWS, own_low = warp % 2 * 64 + lane % 8 * 4;
    const bool each = *every != 0;
    const u32 too_much = (u32)((each ? units : units / GROUP) + 1) * (EXPONENT_BIAS * 0x10001u);
    peaks[threadIdx.x] = -(1 << 30), totals[threadIdx.x] = 0.0;
    for (i32 tile = blockIdx.y; tile < low_tiles; tile += gridDim.y) {
        float p[ROWS][COLUMNS];
        u32 exponents[ROWS][COLUMNS / 2];
#pragma unroll
        for (int i = 0; i < ROWS; ++i)
#pragma unroll
            for (int k = 0; k < COLUMNS; ++k) p[i][k] = 1.0f, exponents[i][k / 2] = 0;
        const float *h = high + (i64)blockIdx.x * units * HIGH + own_high, *l = low + (i64)tile * units * LOW + own_low;
        if (each)
            multiply<1>(p, exponents, h, l, rest, units, one);
        else
            multiply<GROUP>(p, exponents, h, l, rest, units, one);
        h = bias_high + blockIdx.x * HIGH + own_high, l = bias_low + tile * LOW + own_low;
        i32 tile_peak = -(1 << 30);
#pragma unroll
        for (int i = 0; i < ROWS; ++i)
#pragma unroll
            for (int k = 0; k < COLUMNS; k += 2) {
                p[i][k] *= h[i] * l[k % 4 + k / 4 * 32];
                p[i][k + 1] *= h[i] * l[k % 4 + 1 + k / 4 * 32];
                take_exponents(p[i][k], p[i][k + 1], exponents[i][k / 2], one);
                exponents[i][k / 2] -= too_much;
                tile_peak = max(tile_peak, max(first_of(exponents[i][k / 2]), second_of(exponents[i][k / 2])));
            }
        float sum = 0.0f;
#pragma unroll
        for (int i = 0; i < ROWS; ++i)
#pragma unroll
            for (int k = 0; k < COLUMNS; k += 2) {
                sum = fma(p[i][k], power_of_two(first_of(exponents[i][k / 2]) - tile_peak), sum);
                sum = fma(p[i][k + 1], power_of_two(second_of(exponents[i][k / 2]) - tile_peak), sum);
            }
        i32 peak = peaks[threadIdx.x];
        double total = totals[threadIdx.x];
        add(peak, total, tile_peak, (double)sum);
        peaks[threadIdx.x] = peak, totals[threadIdx.x] = total;
    }
    i32 peak = peaks[threadIdx.x];
    double total = totals[threadIdx.x];
    for (int distance = 16; distance > 0; distance /= 2)
        add(peak, total, __shfl_xor_sync(warp_mask, peak, distance), __shfl_xor_sync(warp_mask, total, distance));
    if (lane == 0) peaks[threadIdx.x] = peak, totals[threadIdx.x] = total;
    __syncthreads();
    if (threadIdx.x == 0) {
        for (int i = 32; i < THREADS; i += 32) add(peak, total, peaks[i], totals[i]);
        double* const part = parts + 2 * ((i64)blockIdx.y * gridDim.x + blockIdx.x);
        part[0] = LOG_2 * (double)peak;
        part[1] = total;
    }
}

// pair: (16, 16), first, second: (256, 16), fields: (top_units, UNITS), top: (top_units, top_units). parts as above.
__global__ void __launch_bounds__(THREADS, 2)
    machine_sum(const double* pair, const double* first, const double* second, const double* fields, const double* top,
                double* parts, i64 top_units) {
    __shared__ double field[BATCH][UNITS + 1];
    __shared__ double tables[4][BATCH][16];   // e^ of the fields on four units, for all their states; at most 1
    __shared__ double pairs[BATCH][THREADS];  // 16 x 16 for each top state, in the order of the lanes' fragments
    __shared__ double level[BATCH];           // logarithm of the factor that normalizes the tables
    __shared__ double totals[WARPS];
    const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    double a[4][4], weight[4][2][2];  // rows g of 4 tiles of 8 middle states
#pragma unroll
    for (int tile = 0; tile < 4; ++tile) {
        const u32 middle = warp * 32 + tile * 8 + g;
#pragma unroll
        for (int k = 0; k < 4; ++k) a[tile][k] = first[middle * 16 + 4 * k + t];
#pragma unroll
        for (int n = 0; n < 2; ++n)
#pragma unroll
            for (int i = 0; i < 2; ++i) weight[tile][n][i] = second[middle * 16 + 8 * n + 2 * t + i];
    }
    // The matrix entry that this thread makes: lane threadIdx.x % 32 of fragment threadIdx.x / 32.
    const u32 own_a = warp / 2 * 4 + t, own_b = warp % 2 * 8 + g;
    const double own_pair = pair[own_a * 16 + own_b];
    const u32 number = threadIdx.x / UNITS, unit = threadIdx.x % UNITS;
    const u64 states = 1ull << top_units;
    double peak = -(double)infinity(), total = 0.0;
    for (u64 batch = (u64)blockIdx.x * BATCH; batch < states; batch += (u64)gridDim.x * BATCH) {
        const u64 state = batch + number;
        double x = 0.0, energy = 0.0;
        for (i64 i = 0; i < top_units; ++i)
            if (state >> i & 1) x += fields[i * UNITS + unit];
        for (i64 i = unit; i < top_units; i += UNITS)
            if (state >> i & 1)
                for (i64 k = 0; k <= i; ++k)
                    if (state >> k & 1) energy += top[i * top_units + k];
        energy += fmax(x, 0.0);
        for (int distance = UNITS / 2; distance > 0; distance /= 2)
            energy += __shfl_xor_sync(warp_mask, energy, distance);
        __syncthreads();  // all threads have finished the last batch
        field[number][unit] = x;
        if (unit == 0) level[number] = state < states ? energy : -(double)infinity();
        __syncthreads();
        double larger = peak;
        for (int s = 0; s < BATCH; ++s) larger = fmax(larger, level[s]);
        total *= exp(peak - larger);
        peak = larger;
        for (int which = 0; which < 4; ++which) {
            double exponent = which == 2 ? level[number] - peak : 0.0;
            for (int k = 0; k < 4; ++k) {
                const double of_unit = field[number][4 * which + k];
                exponent += (unit >> k & 1 ? of_unit : 0.0) - fmax(of_unit, 0.0);
            }
            tables[which][number][unit] = exp(exponent);
        }
        __syncthreads();
        for (int s = 0; s < BATCH; ++s)
            pairs[s][threadIdx.x] = own_pair * (tables[0][s][own_a] * tables[1][s][own_b]);
        __syncthreads();
#pragma unroll 1
        for (int s = 0; s < BATCH; ++s) {
            double row[4] = {};
#pragma unroll
            for (int n = 0; n < 2; ++n) {
                double sum[4][2] = {};
#pragma unroll
                for (int k = 0; k < 4; ++k) {
                    const double b = pairs[s][(2 * k + n) * 32 + lane];
#pragma unroll
                    for (int tile = 0; tile < 4; ++tile) matrix_product(sum[tile], a[tile][k], b);
                }
#pragma unroll
                for (int tile = 0; tile < 4; ++tile)
                    row[tile] = fma(sum[tile][0], weight[tile][n][0], fma(sum[tile][1], weight[tile][n][1], row[tile]));
            }
#pragma unroll
            for (int tile = 0; tile < 4; ++tile)
                total = fma(row[tile], tables[2][s][tile % 2 * 8 + g] * tables[3][s][warp * 2 + tile / 2], total);
        }
    }
    for (int distance = 16; distance > 0; distance /= 2) total += __shfl_xor_sync(warp_mask, total, distance);
    if (lane == 0) totals[warp] = total;
    __syncthreads();
    if (threadIdx.x == 0) {
        for (int i = 1; i < WARPS; ++i) total += totals[i];
        parts[2 * (i64)blockIdx.x] = peak;
        parts[2 * (i64)blockIdx.x + 1] = total;
    }
}
