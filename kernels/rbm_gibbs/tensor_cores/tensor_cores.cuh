// Shared by the tensor-core kernels of block Gibbs: states as operands of a product, and the draw after it.
#pragma once
#include "philox.cuh"

constexpr int SLAB = 64;       // given units in one step: a word of packed states
constexpr int ROW_BYTES = 64;  // of a row of weights, or of states in bytes, in shared memory
constexpr int CHAIN_TILES = 2, WARP_CHAINS = 16 * CHAIN_TILES;

template <class Weight> struct Sum {
    using type = float;
};
template <> struct Sum<signed char> {
    using type = i32;
};

// The sums of a warp: 32 chains x 8 * UNIT_TILES units. A lane holds 2 * UNIT_TILES units of each of its rows, two
// columns of each tile, in groups of four that share a Philox call. Either its units are neighbours, and its draws are
// bits of one word. Or, SPREAD, the four lanes of a row take the groups in turn, and draws are states in the format of
// the next product's operands.
template <class Weight, int PRODUCTS, int UNIT_TILES, bool SPREAD = false> struct Sums {
    static constexpr bool digits = sizeof(Weight) == 1, spread = SPREAD;
    static constexpr int parts = digits ? PRODUCTS : 1, own_units = 2 * UNIT_TILES;
    static constexpr int group_step = SPREAD ? 16 : 4;  // units from a group to the lane's next
    static constexpr int word_units = SPREAD ? 4 / sizeof(Weight) : own_units;  // units with draws in the same word
    static constexpr int draw_words = own_units / word_units;
    using Number = typename Sum<Weight>::type;
    Number of[parts][CHAIN_TILES][UNIT_TILES][4] = {};

    // The sum of the lane's unit e in `row`, one of its 2 * CHAIN_TILES rows.
    __device__ __forceinline__ Number at(int part, int row, int e) const {
        return of[part][row / 2][e / 2][row % 2 * 2 + e % 2];
    }
    static __device__ __forceinline__ i64 unit(i64 first_unit, int e) {
        return first_unit + e / 4 * group_step + e % 4;
    }
    // The state 1 of unit e in its word: a bit, a byte, or 1 in bfloat16.
    static __device__ __forceinline__ constexpr u32 one(int e) {
        return SPREAD ? (digits ? 1u : 0x3f80u) << 32 / word_units * (e % word_units) : 1u << e;
    }
    // The exact sum, from the sums of three digits. The first two fit an int32, because prepared weights have a limited
    // number of given units.
    __device__ __forceinline__ i64 whole_number(int row, int e) const {
        return (i64)(at(0, row, e) * 256 + at(1, row, e)) * 256 + at(2, row, e);
    }
    // The same within two roundings. The first conversion loses bits only where the sum is large beside the last digit,
    // which itself converts exactly.
    __device__ __forceinline__ float near_number(int row, int e) const {
        return fmaf((float)(at(0, row, e) * 256 + at(1, row, e)), 256.0f, (float)at(2, row, e));
    }
};

// Four states of one byte each as two pairs of bfloat16: 1 is 0x3f80.
__device__ __forceinline__ void widen_states(u32 states, u32& low, u32& high) {
    const u32 lower_bytes = states << 7, upper_bytes = states * 0x3fu;
    low = __byte_perm(lower_bytes, upper_bytes, 0x5140);
    high = __byte_perm(lower_bytes, upper_bytes, 0x7362);
}

// The lowest four bits as bytes.
__device__ __forceinline__ u32 bytes_of_bits(u32 bits) { return (bits & 15u) * 0x00204081u & 0x01010101u; }

// A lane's 16 states of a row, packed, as two fragments of signed bytes. `half` is the row's place in its tile.
__device__ __forceinline__ void fragments_of_bits(u32 bits, u32 (&a)[2][4], int half) {
#pragma unroll
    for (int product = 0; product < 2; ++product) {
        a[product][half] = bytes_of_bits(bits >> 8 * product);
        a[product][2 + half] = bytes_of_bits(bits >> (8 * product + 4));
    }
}

// The lowest two bits as two bfloat16.
__device__ __forceinline__ u32 pair_of_bits(u32 bits) { return ((bits | bits << 15) & 0x00010001u) * 0x3f80u; }

// Eight bits, from bit `first` on, as two fragments of bfloat16.
__device__ __forceinline__ void wide_fragments_of_bits(u32 bits, int first, u32 (&a)[2][4], int half) {
    const u32 pairs = bits | bits << 15;  // the second of a pair lies 16 bits above the first
#pragma unroll
    for (int product = 0; product < 2; ++product) {
        a[product][half] = (pairs >> (first + 4 * product) & 0x00010001u) * 0x3f80u;
        a[product][2 + half] = (pairs >> (first + 4 * product + 2) & 0x00010001u) * 0x3f80u;
    }
}

// The layer that is drawn: scale (for digits) and bias of each unit (where sums are SPREAD, up to the end of the
// tiles), and its place in the stream. first_step, if not null, points to a number that is added to step. Each use
// reads it again, which saves a register.
struct Layer {
    const float *scale, *bias;
    i64 units;
    u64 seed;
    u32 step, stream;
    const i64* first_step;
    __device__ __forceinline__ u32 own_step() const {
        return first_step ? step + (u32)*(const volatile i64*)first_step : step;
    }
};

// A lane's chains, 8 apart: one row in each half of its tiles. first: the number of the first chain in the stream.
// betas: the inverse temperatures of `left` chains from the first on, or null for `beta`. factor: beta times -log2(e).
struct LaneChains {
    u64 first;
    const double* betas;
    double beta;
    int left;
    float factor[2 * CHAIN_TILES];

    __device__ __forceinline__ LaneChains(u64 first, const double* betas, i64 left, double beta)
        : first(first), betas(betas), beta(beta), left(left < WARP_CHAINS ? (int)left : WARP_CHAINS) {
#pragma unroll
        for (int row = 0; row < 2 * CHAIN_TILES; ++row) factor[row] = (float)(own_beta(row) * -1.4426950408889634);
    }
    __device__ __forceinline__ double own_beta(int row) const {
        return betas && 8 * row < left ? betas[8 * row] : beta;
    }
};

// Draws the lane's units, into words for each row. Where draws are bits, those beyond the last unit are 0.
//
// The test u (1 + exp(-x)) < 1 is one fused multiplication of the 24 bits of u: u 2**24 + u 2**24 exp(-x) < 2**24.
template <class S>
__device__ __forceinline__ void draw_units(const S& sums, const LaneChains& chains, i64 first_unit, const Layer& layer,
                                           u32 (&drawn)[2 * CHAIN_TILES][S::draw_words]) {
    constexpr int rows = 2 * CHAIN_TILES, group_step = S::group_step / 4;
    const u32 step = layer.own_step();
    const u64 groups = (u64)(layer.units + 3) / 4, first_group = chains.first * groups + (u64)first_unit / 4;
    u32 near[rows] = {};
#pragma unroll
    for (int four = 0; four < S::own_units; four += 4) {
        float offset[4], step_size[4];
#pragma unroll
        for (int e = 0; e < 4; ++e) {
            const i64 unit = S::unit(first_unit, four + e);
            offset[e] = S::spread || unit < layer.units ? layer.bias[unit] : 0.0f;
            if constexpr (S::digits) step_size[e] = layer.scale[unit];
        }
#pragma unroll
        for (int row = 0; row < rows; ++row) {
            const u64 group = first_group + 8 * row * groups + four / 4 * group_step;
            const Words words = random_words(group, layer.seed, step, layer.stream);
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                float logit, size = 0.0f;
                if constexpr (S::digits) {
                    logit = sums.near_number(row, four + e) * step_size[e];
                    size = fabsf(logit) + fabsf(offset[e]);
                } else {
                    logit = sums.at(0, row, four + e);
                }
                const float u = (float)(words.word[e] >> 8);
                const float test = fmaf(u, exp2_flushed((logit + offset[e]) * chains.factor[row]), u);
                u32& word = drawn[row][(four + e) / S::word_units];
                if constexpr (S::word_units == 2) {
                    const u32 state = __float_as_uint(test < 16777216.0f ? 1.0f : 0.0f);
                    word = e % 2 ? __byte_perm(word, state, 0x7632) : state;
                } else {
                    if ((four + e) % S::word_units == 0) word = 0;
                    if (test < 16777216.0f) word |= S::one(four + e);
                }
                if constexpr (S::digits) {
                    // The error of float32: 5 roundings of beta * `size`, and 2**-22 of the exponential. The margin
                    // allows 8 roundings (5.6 is 8 log(2), rounded up) and 2**-20, times 2**24. The NaN of
                    // 0 * infinity counts as near.
                    const float margin = fmaf(fabsf(chains.factor[row]) * size, 5.6f, 16.0f);
                    if (!(fabsf(test - 16777216.0f) > margin)) near[row] |= 1u << (four + e);
                }
            }
        }
    }
#pragma unroll
    for (int row = 0; row < rows; ++row) {
        if constexpr (!S::spread) {
            const i64 left = layer.units - first_unit;
            drawn[row][0] &= left >= S::own_units ? ~0u : left > 0 ? (1u << left) - 1u : 0u;
        }
        if constexpr (S::digits) {
            while (near[row]) {  // for one unit in some 400,000
                const int e = __ffs((int)near[row]) - 1;
                near[row] &= near[row] - 1;
                const i64 unit = S::unit(first_unit, e);
                if (unit >= layer.units) continue;
                i64 whole = 0;
                const u64 group = first_group + 8 * row * groups + e / 4 * group_step;
                const Words again = random_words(group, layer.seed, layer.own_step(), layer.stream);
                u32 random = 0;
#pragma unroll  // registers cannot be indexed at run time
                for (int other = 0; other < S::own_units; ++other) {
                    if (other != e) continue;
                    whole = sums.whole_number(row, other);
                    random = again.word[other % 4];
                }
                const double x = chains.own_beta(row) *
                                 ((double)layer.bias[unit] + (double)whole * (double)layer.scale[unit]);
                const u32 state = (double)uniform(random) * (1.0 + exp(-x)) < 1.0 ? S::one(e) : 0u;
#pragma unroll
                for (int word = 0; word < S::draw_words; ++word)
                    if (e / S::word_units == word) drawn[row][word] = (drawn[row][word] & ~S::one(e)) | state;
            }
        }
    }
}

// Stores P(unit = 1) for the lane's units in `row`, which is one chain.
template <class S>
__device__ __forceinline__ void store_probabilities(const S& sums, int row, double beta, i64 first_unit,
                                                    const Layer& layer, float* to) {
    const float factor = (float)(beta * -1.4426950408889634);
#pragma unroll
    for (int e = 0; e < S::own_units; ++e) {
        const i64 unit = first_unit + e;
        if (unit >= layer.units) break;
        float logit;
        if constexpr (S::digits)
            logit = sums.near_number(row, e) * layer.scale[unit];
        else
            logit = sums.at(0, row, e);
        to[unit] = 1.0f / (1.0f + exp2_fast((logit + layer.bias[unit]) * factor));
    }
}

// `drawn`, with the bits of `kept` for the lane's clamped units. clamped: bool, of this chain.
template <class S>
__device__ __forceinline__ u32 clamp_units(u32 drawn, u32 kept, const unsigned char* clamped, i64 stride,
                                           i64 first_unit, i64 units) {
    u32 held = 0;
#pragma unroll
    for (int e = 0; e < S::own_units; ++e)
        if (first_unit + e < units && clamped[(first_unit + e) * stride]) held |= 1u << e;
    return (drawn & ~held) | (kept & held);
}
