// Half a sweep of block Gibbs in CUDA C on tensor cores: prepared weights, products by mma.sync, the draw behind them.
//
// Bytes: a state of 1 byte read and one written for each unit of each chain, and weights of 1 or 2 bytes for each of
// 1 or 3 products; a block reads its states once for every column of blocks, from L2. Operations: 2 * products * given
// units for each unit drawn, and behind them a quarter of a Philox call (10 rounds of 2 wide multiplications), one ex2,
// and for digits of int8 a conversion. Bound by the matrix rate from a few hundred given units on.
//
// Design. A warp computes 32 chains x 32 or 64 units. Which given unit is which k of a fragment is free, as long as
// states and weights agree, and which unit is which column too. So a lane takes 16 neighbouring given units, which are
// both of its fragments: one 128-bit load of shared memory, where rows of 64 bytes lie without gaps and 8 lanes read
// 128 bytes in a row. And its columns are 8 or 16 neighbouring units, so that each Philox call serves four of them and
// states are stored 8 or 16 bytes at a time. Copies to shared memory are asynchronous, one or two steps ahead; they
// fill with zeros what lies beyond the last chain. The weights were padded with zeros when they were prepared.
//
// The test u (1 + exp(-x)) < 1 is u < p without a division. It differs from it where rounding does, by 3 * 2**-24 of
// the two sides, within the 4 * 2**-24 that the bound of a draw allows. p = 0 never draws 1: 1 + exp(-x) is infinite,
// and 0 * infinity is no number and not below 1. p = 1 always does: u < 1. Digits of int8 add up exactly, whatever the
// order, and the state is what the test gives in float64: where float32 cannot tell, float64 is computed. So seed and
// weights settle every state, on any tiling.
//
// Prediction for n = 1024 units in both layers and many chains on an H200 (132 multiprocessors, 1.98 GHz: one unit for
// each clock of a multiprocessor is 261 updates/ns). Nothing here was measured.
// - Matrix units: 2 * 1024 * products operations at the documented 4096 dense bf16 or 8192 int8 ones per clock are 0.5
//   (bf16), 1.5 (bf16x3), 0.75 (int8x3) clocks. mma.sync does not reach that on Hopper; 0.63 of it is what Luo et al.,
//   arXiv:2402.13499, report for an H100: 0.8, 2.4, 1.2 clocks.
// - Issue, from SASS for sm_90: a step of a warp in its loop is 203 instructions with 64 products (bf16, 2048 units),
//   245 with 96 (bf16x3, 1024 units), 219 with 48 (int8x3, 1024 units, where most are moves that put the fragments of
//   the states together); that is 0.4, 0.96, 0.86 clocks, beside the products. Behind them some 35 to 50 for each unit,
//   of which 5 wide multiplications and 5 LOP3 are Philox's and one is a MUFU: 0.3 to 0.4 clocks, hidden in part.
// - So between 220 and 330 (bf16), 90 and 110 (bf16x3), 160 and 220 (int8x3) updates/ns, if L2 delivers: for each unit
//   24, 64 and 40 bytes, at those rates 5 to 9 TB/s. A tile of more chains is the next thing to try.
#include "philox.cuh"

constexpr int SLAB = 64;       // given units in one step
constexpr int ROW_BYTES = 64;  // of a row in shared memory
constexpr int UNIT_WARPS = 2;
constexpr int CHAIN_TILES = 2, WARP_CHAINS = 16 * CHAIN_TILES;

// How many warps' tiles of chains a block has, and what follows from the format of the weights and how many there are.
template <class Weight, int PRODUCTS, int CHAIN_WARPS> struct Shape {
    static constexpr bool digits = sizeof(Weight) == 1;
    static constexpr int sums = digits ? PRODUCTS : 1;
    static constexpr int unit_tiles = PRODUCTS == 1 ? 8 : 4;  // of 8 units, for a warp
    static constexpr int own_units = 2 * unit_tiles;          // of a lane, neighbours
    static constexpr int chains = WARP_CHAINS * CHAIN_WARPS, units = 8 * unit_tiles * UNIT_WARPS;
    static constexpr int threads = 32 * CHAIN_WARPS * UNIT_WARPS;
    static constexpr int subs = sizeof(Weight);  // rows of 64 bytes that the weights of a unit in one step fill
    static constexpr int given_bytes = chains * ROW_BYTES;
    static constexpr int stage_bytes = given_bytes + PRODUCTS * subs * units * ROW_BYTES;
    static constexpr int stages = CHAIN_WARPS < 4 || stage_bytes > 24 * 1024 ? 2 : 3;
};

template <class Weight> struct Sum {
    using type = float;
};
template <> struct Sum<signed char> {
    using type = i32;
};

// Four states of one byte as two pairs of bfloat16: 1 is 0x3f80.
__device__ __forceinline__ void widen_states(u32 states, u32& low, u32& high) {
    const u32 lower_bytes = states << 7, upper_bytes = states * 0x3fu;
    low = __byte_perm(lower_bytes, upper_bytes, 0x5140);
    high = __byte_perm(lower_bytes, upper_bytes, 0x7362);
}

// What three digits stand for, summed: the first two fit an int32 for as many units as weights are prepared for.
__device__ __forceinline__ i64 whole_number(i32 high, i32 middle, i32 low) {
    return (i64)(high * 256 + middle) * 256 + low;
}

// The copies of a block's tiles, step after step: where a thread's next ones come from.
template <class Weight, int PRODUCTS, int CHAIN_WARPS> struct Copies {
    using S = Shape<Weight, PRODUCTS, CHAIN_WARPS>;
    static constexpr int chunks = 4 * S::subs;  // of 16 bytes, in a step of one row of weights
    static constexpr int given_copies = S::chains * 4 / S::threads, weight_copies = S::units * chunks / S::threads;

    const unsigned char *given, *weights;
    i64 given_hop, weight_hop, part_hop;  // bytes from one of the thread's rows to its next, and to the next part
    int columns, rows;                    // given units left, of the thread's first; chains left, of the same
    u32 given_place, weight_place;        // in a stage

    __device__ __forceinline__ Copies(const unsigned char* all_given, i64 given_stride, i64 chains_left,
                                      const Weight* parts, i64 part_rows, i64 part_columns) {
        const int thread = threadIdx.x, row = thread / chunks, chunk = thread % chunks;
        given = all_given + thread / 4 * given_stride + 16 * (thread % 4);
        given_hop = S::threads / 4 * given_stride;
        given_place = thread * 16;
        rows = (int)(chains_left < S::chains ? chains_left : S::chains) - thread / 4;
        columns = (int)given_stride - 16 * (thread % 4);
        const i64 row_bytes = part_columns * (i64)sizeof(Weight);
        weights = reinterpret_cast<const unsigned char*>(parts) + row * row_bytes + 16 * chunk;
        weight_hop = S::threads / chunks * row_bytes;
        part_hop = part_rows * row_bytes;
        // Of a lane's 16 weights in bfloat16 the first 8 lie in one row of 64 bytes, the others in another.
        weight_place = S::given_bytes + (chunk % S::subs * S::units + row) * ROW_BYTES + 16 * (chunk / S::subs);
    }

    // The next step's tiles to `stage`.
    __device__ __forceinline__ void start(unsigned char* stage) {
#pragma unroll
        for (int i = 0; i < given_copies; ++i) {
            const bool inside = columns > 0 && rows > i * (S::threads / 4);
            copy_async_16(stage + given_place + i * S::threads * 16, given + i * given_hop, inside ? 16 : 0);
        }
#pragma unroll
        for (int part = 0; part < PRODUCTS; ++part)
#pragma unroll
            for (int i = 0; i < weight_copies; ++i) {
                const int row = part * S::subs * S::units + i * (S::threads / chunks);
                copy_async_16(stage + weight_place + row * ROW_BYTES, weights + part * part_hop + i * weight_hop, 16);
            }
        given += SLAB;
        columns -= SLAB;
        weights += SLAB * sizeof(Weight);
    }
};

// given: uint8 (chains, given units) in rows of given_stride bytes, a multiple of 16, zero beyond the units.
// parts: (PRODUCTS, part_rows, part_columns) of Weight. scale: float (part_rows,), for digits. bias: float (units,).
// states: uint8 (chains, units) in rows of out_stride bytes, a multiple of 16, written up to there; or probabilities:
// float (chains, units); exactly one of them is not null. clamped: bool (chains, units) with strides, or null;
// previous: uint8 in rows of previous_stride, what a clamped unit keeps. betas: double (chains,), or null for beta.
template <class Weight, int PRODUCTS, int CHAIN_WARPS>
__global__ void __launch_bounds__(Shape<Weight, PRODUCTS, CHAIN_WARPS>::threads,
                                  384 / Shape<Weight, PRODUCTS, CHAIN_WARPS>::threads)
    matrix_half_sweep(const unsigned char* given, const Weight* parts, const float* scale, const float* bias,
                      unsigned char* states, float* probabilities, const unsigned char* clamped,
                      const unsigned char* previous, const double* betas, i64 chains, i64 units, i64 part_rows,
                      i64 part_columns, i64 given_stride, i64 out_stride, i64 previous_stride,
                      i64 clamped_stride_chain, i64 clamped_stride_unit, double beta, u64 seed, u32 step, u32 stream,
                      i64 first_chain) {
    using S = Shape<Weight, PRODUCTS, CHAIN_WARPS>;
    using Number = typename Sum<Weight>::type;
    DYNAMIC_SHARED(unsigned char, shared);
    const i64 tile_chain = (i64)blockIdx.x * S::chains, tile_unit = (i64)blockIdx.y * S::units;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, row_of_8 = lane / 4, quarter = lane % 4;
    const int warp_chain = warp / UNIT_WARPS * WARP_CHAINS, warp_unit = warp % UNIT_WARPS * (8 * S::unit_tiles);
    Number sum[S::sums][CHAIN_TILES][S::unit_tiles][4] = {};

    const int steps = (int)(part_columns / SLAB);
    Copies<Weight, PRODUCTS, CHAIN_WARPS> copies(given + tile_chain * given_stride, given_stride, chains - tile_chain,
                                                 parts + tile_unit * part_columns, part_rows, part_columns);
    int filled = 0, next = 0;  // the stages that are copied to and computed from next
#pragma unroll
    for (; filled < S::stages - 1; ++filled) {
        if (filled < steps) copies.start(shared + filled * S::stage_bytes);
        copy_async_commit();
    }
    for (int number = 0; number < steps; ++number) {
        copy_async_wait<S::stages - 2>();
        __syncthreads();  // this step's tiles are there, and all warps are done with those that are overwritten now
        if (number + S::stages - 1 < steps) copies.start(shared + filled * S::stage_bytes);
        copy_async_commit();  // an empty group too, so that the same number of groups is under way in every step
        const unsigned char* stage = shared + next * S::stage_bytes;
        filled = filled == S::stages - 1 ? 0 : filled + 1;
        next = next == S::stages - 1 ? 0 : next + 1;
        const unsigned char* given_rows = stage + (warp_chain + row_of_8) * ROW_BYTES + 16 * quarter;
        const unsigned char* weight_rows =
            stage + S::given_bytes +
            (warp_unit + row_of_8 / 2 * S::own_units + row_of_8 % 2) * ROW_BYTES + 16 * quarter;
        uint4 state[CHAIN_TILES][2];
#pragma unroll
        for (int tile = 0; tile < CHAIN_TILES; ++tile)
#pragma unroll
            for (int half = 0; half < 2; ++half)
                state[tile][half] = *reinterpret_cast<const uint4*>(given_rows + (16 * tile + 8 * half) * ROW_BYTES);
#pragma unroll
        for (int sub = 0; sub < S::subs; ++sub) {
            u32 a[CHAIN_TILES][2][4];  // the second index: the first or second product of what the lane holds
#pragma unroll
            for (int tile = 0; tile < CHAIN_TILES; ++tile)
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    const uint4 q = state[tile][half];
                    if constexpr (S::digits) {
                        a[tile][0][half] = q.x, a[tile][0][2 + half] = q.y;
                        a[tile][1][half] = q.z, a[tile][1][2 + half] = q.w;
                    } else {
                        widen_states(sub == 0 ? q.x : q.z, a[tile][0][half], a[tile][0][2 + half]);
                        widen_states(sub == 0 ? q.y : q.w, a[tile][1][half], a[tile][1][2 + half]);
                    }
                }
#pragma unroll
            for (int part = 0; part < PRODUCTS; ++part)
#pragma unroll
                for (int j = 0; j < S::unit_tiles; ++j) {
                    const uint4 w = *reinterpret_cast<const uint4*>(
                        weight_rows + ((part * S::subs + sub) * S::units + 2 * j) * ROW_BYTES);
                    const u32 b[2][2] = {{w.x, w.y}, {w.z, w.w}};
#pragma unroll
                    for (int product = 0; product < 2; ++product)
#pragma unroll
                        for (int tile = 0; tile < CHAIN_TILES; ++tile)
                            matrix_product(sum[S::digits ? part : 0][tile][j], a[tile][product], b[product]);
                }
        }
    }

    // A lane now holds rows row_of_8 and row_of_8 + 8 of each tile, of them own_units neighbouring units.
    const i64 first_unit = tile_unit + warp_unit + quarter * S::own_units;
    if (first_unit >= (states ? out_stride : units)) return;
#pragma unroll
    for (int row = 0; row < 2 * CHAIN_TILES; ++row) {
        const i64 chain = tile_chain + warp_chain + 8 * row + row_of_8;
        if (chain >= chains) continue;
        const double own_beta = betas ? betas[chain] : beta;
        const float factor = (float)(own_beta * -1.4426950408889634);
        const i64 first_group = (first_chain + chain) * ((units + 3) / 4) + first_unit / 4;
        u32 drawn = 0, near = 0;  // a bit for each unit
        Words words = {};
#pragma unroll
        for (int e = 0; e < S::own_units; ++e) {
            const i64 unit = first_unit + e;
            const float offset = unit < units ? bias[unit] : 0.0f;
            const int j = e / 2, i = row % 2 * 2 + e % 2;
            float logit, size = 0.0f;
            if constexpr (S::digits) {
                logit = (float)whole_number(sum[0][row / 2][j][i], sum[1][row / 2][j][i], sum[2][row / 2][j][i]) *
                        scale[unit];
                size = fabsf(logit) + fabsf(offset);
                logit += offset;
            } else {
                logit = sum[0][row / 2][j][i] + offset;
            }
            const float exponential = exp2_fast(logit * factor);
            if (probabilities) {
                if (unit < units) probabilities[chain * units + unit] = 1.0f / (1.0f + exponential);
                continue;
            }
            if (e % 4 == 0) words = random_words(first_group + e / 4, seed, step, stream);
            const float test = uniform(words.word[e % 4]) * (1.0f + exponential);
            drawn |= (u32)(test < 1.0f) << e;
            if constexpr (S::digits) {
                // What float32 may be off by: 4 roundings of `size`, and 2**-22 of the exponential; here twice that.
                // A nan, from 0 * infinity, is near.
                const float margin = 9.5367431640625e-07f + 4.76837158203125e-07f * (float)own_beta * size;
                near |= (u32) !(fabsf(test - 1.0f) > margin) << e;
            }
        }
        if (probabilities) continue;
        if constexpr (S::digits) {
            while (near) {  // for one unit in some 400,000
                const int e = __ffs((int)near) - 1;
                near &= near - 1;
                const i64 unit = first_unit + e;
                if (unit >= units) break;
                i64 whole = 0;
                const Words again = random_words(first_group + e / 4, seed, step, stream);
                u32 word = 0;
#pragma unroll  // an array indexed at run time would leave the registers
                for (int other = 0; other < S::own_units; ++other) {
                    const int j = other / 2, i = row % 2 * 2 + other % 2;
                    if (other != e) continue;
                    whole = whole_number(sum[0][row / 2][j][i], sum[1][row / 2][j][i], sum[2][row / 2][j][i]);
                    word = again.word[other % 4];
                }
                const double x = own_beta * ((double)bias[unit] + (double)whole * (double)scale[unit]);
                const u32 exact = (double)uniform(word) * (1.0 + exp(-x)) < 1.0;
                drawn = (drawn & ~(1u << e)) | exact << e;
            }
        }
        const i64 left = units - first_unit;
        if (left < S::own_units) drawn &= left > 0 ? (1u << left) - 1u : 0u;
        if (clamped) {
#pragma unroll
            for (int e = 0; e < S::own_units; ++e) {
                const i64 unit = first_unit + e;
                if (unit < units && clamped[chain * clamped_stride_chain + unit * clamped_stride_unit])
                    drawn = (drawn & ~(1u << e)) | (u32)previous[chain * previous_stride + unit] << e;
            }
        }
        u32 bytes[S::own_units / 4];
#pragma unroll
        for (int i = 0; i < S::own_units / 4; ++i) bytes[i] = (drawn >> (4 * i) & 15u) * 0x00204081u & 0x01010101u;
        unsigned char* place = states + chain * out_stride + first_unit;
        if constexpr (S::own_units == 16)
            *reinterpret_cast<uint4*>(place) = make_uint4(bytes[0], bytes[1], bytes[2], bytes[3]);
        else
            *reinterpret_cast<uint2*>(place) = make_uint2(bytes[0], bytes[1]);
    }
}
