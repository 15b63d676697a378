// The limits of a GPU, each driven by a kernel that does nothing else.
//
// Bandwidth: 128-bit accesses, four in flight for each thread, to data that no cache holds. A grid of one block per
// tile and a grid of only the resident blocks both work; the device decides which one is faster.
//
// Arithmetic: the work is cut into units, and a thread takes units one grid apart, so that every warp is resident from
// the first unit to the last on any device. Within a unit the chains of a thread are independent of each other, and
// each step needs the one before, so that none can be left out. A thread adds up its results and writes the sum. The
// additions cost little compared with a unit, and the check can recompute the sum of any thread.
#include "philox.cuh"

constexpr int THREADS = 256;
constexpr int IN_FLIGHT = 4;
constexpr int TILE = THREADS * IN_FLIGHT;  // vectors

// ---- memory

// Loads this thread's vectors of a tile, all in flight at the same time.
__device__ __forceinline__ void load(uint4 (&chunk)[IN_FLIGHT], const uint4* __restrict__ x) {
#pragma unroll
    for (int i = 0; i < IN_FLIGHT; ++i) chunk[i] = x[i * THREADS];
}

// sums: for each warp the sum of all words that it read, modulo 2^32. vectors: a multiple of TILE.
__global__ void __launch_bounds__(THREADS) read(const uint4* __restrict__ x, i64 vectors, u32* sums) {
    u32 sum = 0;
#pragma unroll 1
    for (i64 tile = (i64)blockIdx.x * TILE; tile < vectors; tile += (i64)gridDim.x * TILE) {
        uint4 chunk[IN_FLIGHT];
        load(chunk, x + tile + threadIdx.x);
#pragma unroll
        for (int i = 0; i < IN_FLIGHT; ++i) sum += chunk[i].x + chunk[i].y + chunk[i].z + chunk[i].w;
    }
    sum = __reduce_add_sync(warp_mask, sum);
    if (threadIdx.x % 32 == 0) sums[((i64)blockIdx.x * THREADS + threadIdx.x) / 32] = sum;
}

// Word i becomes i * factor modulo 2^32.
__global__ void __launch_bounds__(THREADS) write(uint4* x, i64 vectors, u32 factor) {
#pragma unroll 1
    for (i64 tile = (i64)blockIdx.x * TILE; tile < vectors; tile += (i64)gridDim.x * TILE)
#pragma unroll
        for (int i = 0; i < IN_FLIGHT; ++i) {
            const i64 vector = tile + i * THREADS + threadIdx.x;
            const u32 word = (u32)vector * 4 * factor;
            x[vector] = make_uint4(word, word + factor, word + 2 * factor, word + 3 * factor);
        }
}

__global__ void __launch_bounds__(THREADS) copy(const uint4* __restrict__ x, i64 vectors, uint4* y) {
#pragma unroll 1
    for (i64 tile = (i64)blockIdx.x * TILE; tile < vectors; tile += (i64)gridDim.x * TILE) {
        uint4 chunk[IN_FLIGHT];
        load(chunk, x + tile + threadIdx.x);
#pragma unroll
        for (int i = 0; i < IN_FLIGHT; ++i) y[tile + i * THREADS + threadIdx.x] = chunk[i];
    }
}

// ---- arithmetic

// The start of a unit's chains, in [1, 2), from the low bits of its index: a conversion would use the pipe of ex2.
__device__ __forceinline__ float beginning(i64 unit) { return __uint_as_float(0x3f800000u | ((u32)unit & 0x7fffffu)); }

// Chains of one float32 operation, `Step::of`.
template <class Step> struct FloatChains {
    using Sum = float;

    static __device__ __forceinline__ void add(i64 unit, float& sum) {
        float x[Step::CHAINS], part = 0.0f;
        for (int chain = 0; chain < Step::CHAINS; ++chain) x[chain] = beginning(unit) + (float)chain;
#pragma unroll (Step::STEPS < 64 ? Step::STEPS : 64)
        for (int step = 0; step < Step::STEPS; ++step)
#pragma unroll
            for (int chain = 0; chain < Step::CHAINS; ++chain) x[chain] = Step::of(x[chain]);
        for (int chain = 0; chain < Step::CHAINS; ++chain) part += x[chain];
        sum += part;
    }
};

// x <- x (1 - 2^-10) + 1: slow to converge, so that the check sees a step more or less.
struct Fma : FloatChains<Fma> {
    static constexpr int CHAINS = 8, STEPS = 512;
    static __device__ __forceinline__ float of(float x) { return fmaf(x, 0.9990234375f, 1.0f); }
};

// x <- 2^-x: converges to a fixed point, hence the few steps; the sign costs nothing.
struct Exp2 : FloatChains<Exp2> {
    static constexpr int CHAINS = 16, STEPS = 8;
    static __device__ __forceinline__ float of(float x) { return exp2_flushed(-x); }
};

// x <- low word of x times high word of x, plus a constant: both halves of each product go into the next.
struct WideMultiply {
    using Sum = u64;
    static constexpr int CHAINS = 8, STEPS = 128;

    static __device__ __forceinline__ void add(i64 unit, u64& sum) {
        u64 x[CHAINS];
        for (int chain = 0; chain < CHAINS; ++chain)
            x[chain] = mul_wide((u32)unit * CHAINS + chain, 0x9E3779B9u) + 0x9E3779B97F4A7C15u;
#pragma unroll 16
        for (int step = 0; step < STEPS; ++step)
#pragma unroll
            for (int chain = 0; chain < CHAINS; ++chain)
                x[chain] = mul_wide((u32)x[chain], (u32)(x[chain] >> 32)) + 0x9E3779B97F4A7C15u;
        for (int chain = 0; chain < CHAINS; ++chain) sum ^= x[chain];
    }
};

// Four groups of four words of the suite's stream. As in any kernel, the compiler computes once what neighbouring
// groups share: of the 20 products of a group, those of the step and of the index's high word.
struct Philox {
    using Sum = u32;
    static constexpr int GROUPS = 4;

    static __device__ __forceinline__ void add(i64 unit, u32& sum) {
#pragma unroll
        for (int group = 0; group < GROUPS; ++group) {
            const Words words = random_words((u64)unit * GROUPS + group, 0x0123456789ABCDEFull, 0, STREAM_NOISE);
            sum ^= words.word[0] ^ words.word[1] ^ words.word[2] ^ words.word[3];
        }
    }
};

// sums: one for each thread of the grid.
template <class Unit>
__global__ void __launch_bounds__(THREADS, 2048 / THREADS) arithmetic(i64 units, typename Unit::Sum* sums) {
    const i64 thread = (i64)blockIdx.x * THREADS + threadIdx.x;
    typename Unit::Sum sum = 0;
    for (i64 unit = thread; unit < units; unit += (i64)gridDim.x * THREADS) Unit::add(unit, sum);
    sums[thread] = sum;
}

// ---- launches

// Does nothing when it is timed; given a counter, it counts its runs.
__global__ void empty(u32* count) {
    if (count) atomicAdd(count, 1);
}
