// Many sweeps of block Gibbs in one launch, for machines with weights that fit a multiprocessor's shared memory.
//
// Bound by issue in bf16 and int8x3, and about equally by tensor cores in bf16x3. No state or weight is read from
// global memory between sweeps (only near ties of int8x3 read the chain's beta, if each chain has its own).
//
// Design: a block advances 64 chains through all sweeps; it loads weights and biases once. Two groups of 8 warps have
// 32 chains each and take turns to multiply: while one group multiplies, the other draws, so that tensor cores and
// schedulers work at the same time. The barrier of a group's turn is also its barrier between two half sweeps. Groups
// of 4 warps with twice the units would issue an eighth less, but wait longer for their own instructions.
//
// The draw leaves states as operands of the next product, bfloat16 or bytes: ldmatrix loads the fragments, and no
// instruction unpacks them. Digits of int8 differ between the two half sweeps, because scales belong to the drawn
// units. So both matrices are in shared memory, 6 bytes for each weight. In bfloat16 one matrix of 2 or 6 bytes for
// each weight serves both directions. Its rows are hidden units: drawn units in the forward direction, and given units
// in the backward one, where ldmatrix transposes. The assignment of units to rows and columns of a fragment is free. It
// gives each lane groups of four units that share a Philox call: by the order of the rows that a lane loads (forward),
// and by the order of the columns in memory (backward, `place_in_row`).
//
// Prediction for 256 x 256 units in bf16 and 132 blocks on an H200 (1.98 GHz; one unit for each clock of a
// multiprocessor is 261 updates/ns). Nothing here was measured. Each of the four schedulers of a multiprocessor has two
// warps of each group. In a half sweep (SASS for sm_90) such a warp
// - multiplies 128 times 16 x 8 x 16: 512 clocks at the documented rate, 813 at the share of it that is assumed for
//   mma.sync (see tensor_cores.cu), in 4 steps of a slab of 67 instructions;
// - draws 32 units for each lane, with 19.7 instructions for each unit, the store included; 10 are Philox's rounds;
// - executes 190 other instructions: addresses, numbers of chains, sums set to zero.
// For the four warps that is 4330 clocks of issue beside 3250 of tensor cores, for 64 x 256 units: at best 990
// updates/ns, if no scheduler ever waits. With 3.6 clocks from an instruction of a warp to its next (harness/inspection)
// each warp takes 3900 clocks for its 1080 instructions, and 720 updates/ns are expected (520 to 1000); with half as many
// warps it would be 540. In bf16 a warp has 32 units, so that half of the warps or more wait where a layer has 128 units
// or fewer.
#include "tensor_cores.cuh"

constexpr int GROUPS = 2, UNIT_WARPS = 8, GROUP_THREADS = 32 * UNIT_WARPS, THREADS = GROUPS * GROUP_THREADS;
constexpr int CHAINS = WARP_CHAINS * GROUPS;

// Sizes that follow from the format of the weights and the number of products.
template <class W, int PRODUCTS> struct Kind {
    using Weight = W;
    static constexpr bool digits = sizeof(Weight) == 1;
    static constexpr int products = PRODUCTS, slab_bytes = SLAB * sizeof(Weight);
    static constexpr int unit_tiles = PRODUCTS == 1 ? 4 : 2, warp_units = 8 * unit_tiles;
    using WarpSums = Sums<Weight, PRODUCTS, unit_tiles, true>;
};

// The byte of a unit in its row of states or weights of `size` bytes each. Unit 16 m + 4 q + 2 h + i is element
// 16 m + 4 q + 2 h + i of a row of int8, and element 16 m + 8 h + 2 q + i of a row of bfloat16.
__device__ __forceinline__ int place_in_row(int unit, int size) {
    return size == 1 ? unit : 2 * ((unit & ~15) + unit % 4 / 2 * 8 + unit % 16 / 4 * 2 + unit % 2);
}

// States of CHAINS chains in shared memory, as operands of `size` bytes; the first byte of the state 1 is not 0. Rows
// are 16 bytes longer than their slabs, so that the same 16 bytes of 8 rows are in different banks.
struct States {
    unsigned char* first;
    int units, size;
    __device__ __forceinline__ int slabs() const { return (units + SLAB - 1) / SLAB; }
    __device__ __forceinline__ int row_bytes() const { return SLAB * slabs() * size + 16; }
    __device__ __forceinline__ unsigned char* row(int chain) const { return first + chain * row_bytes(); }
    __device__ __forceinline__ unsigned char* end() const { return row(CHAINS); }
};

// The place of 16 bytes, `chunk` of a row, in the block of rows of one slab and part. ldmatrix reads 8 rows at a time,
// with numbers that differ in bits 0, 2 and 3: their chunks are in different banks.
template <class Weight> __device__ __forceinline__ int place(int row, int chunk) {
    constexpr int chunks = 4 * sizeof(Weight);
    const int turn = sizeof(Weight) == 1 ? row >> 2 & 3 : (row & 1) | (row >> 1 & 6);
    return 16 * (row * chunks + (chunk ^ turn));
}

// Copies the first `rows` rows of the parts, (PRODUCTS, part_rows, columns), to shared memory, slab by slab and part by
// part.
template <class Weight, int PRODUCTS>
__device__ __forceinline__ void load_weights(unsigned char* to, const Weight* parts, int rows, i64 part_rows,
                                             i64 columns) {
    const int slabs = (int)(columns / SLAB), pieces = rows * 4;  // of 16 weights
    for (int slab = 0; slab < slabs; ++slab)
        for (int part = 0; part < PRODUCTS; ++part) {
            unsigned char* block = to + (slab * PRODUCTS + part) * rows * SLAB * (int)sizeof(Weight);
            const Weight* from = parts + part * part_rows * columns + slab * SLAB;
#pragma unroll 4
            for (int i = threadIdx.x; i < pieces; i += THREADS) {
                const int row = i / 4, piece = i % 4;
                const uint4* given = reinterpret_cast<const uint4*>(from + row * columns + 16 * piece);
                if constexpr (sizeof(Weight) == 1) {
                    *reinterpret_cast<uint4*>(block + place<Weight>(row, piece)) = *given;
                } else {
                    const uint4 a = given[0], b = given[1];
                    *reinterpret_cast<uint4*>(block + place<Weight>(row, 2 * piece)) = make_uint4(a.x, a.z, b.x, b.z);
                    *reinterpret_cast<uint4*>(block + place<Weight>(row, 2 * piece + 1)) =
                        make_uint4(a.y, a.w, b.y, b.w);
                }
            }
        }
}

// Loads states from global memory, from bytes (not 0 is 1) or from packed rows; zeros beyond the chains and the units.
__device__ __forceinline__ void load_states(const States& to, const unsigned char* from, i64 stride, bool packed,
                                            i64 chains) {
    const int fours = SLAB / 4 * to.slabs();
    for (int i = threadIdx.x; i < CHAINS * fours; i += THREADS) {
        const int chain = i / fours, unit = i % fours * 4;
        u32 bits = 0;
        if (chain < chains && packed)
            bits = from[chain * stride + unit / 8] >> unit % 8;
        else if (chain < chains)
            for (int e = 0; e < 4 && unit + e < to.units; ++e)
                bits |= (u32)(from[chain * stride + unit + e] != 0) << e;
        u32* four = reinterpret_cast<u32*>(to.row(chain) + place_in_row(unit, to.size));
        if (to.size == 1)
            four[0] = bytes_of_bits(bits);
        else
            four[0] = pair_of_bits(bits), four[4] = pair_of_bits(bits >> 2);
    }
}

__device__ __forceinline__ void store_states(const States& from, unsigned char* to, i64 stride, bool packed,
                                             i64 chains) {
    const int columns = packed ? SLAB / 8 * from.slabs() : from.units;
    const int rows = (int)(chains < CHAINS ? chains : CHAINS);
    for (int i = threadIdx.x; i < rows * columns; i += THREADS) {
        const int chain = i / columns, column = i % columns;
        u32 stored = 0;
        for (int e = 0; e < (packed ? 8 : 1); ++e) {
            const int unit = packed ? 8 * column + e : column;
            if (unit < from.units) stored |= (u32)(from.row(chain)[place_in_row(unit, from.size)] != 0) << e;
        }
        to[chain * stride + column] = (unsigned char)stored;
    }
}

// Loads the clamped units as bits: a word of 64 for each slab of each chain.
__device__ __forceinline__ void load_clamped(u64* to, const unsigned char* clamped, i64 stride_chain, i64 stride_unit,
                                             int units, i64 chains) {
    const int slabs = (units + SLAB - 1) / SLAB;
    for (int i = threadIdx.x; i < CHAINS * slabs; i += THREADS) {
        const int chain = i / slabs, first = i % slabs * SLAB;
        u64 bits = 0;
        for (int e = 0; e < SLAB && chain < chains && first + e < units; ++e)
            bits |= (u64)(clamped[chain * stride_chain + (first + e) * stride_unit] != 0) << e;
        to[i] = bits;
    }
}

// sums += given * weights, for the warp's chains, its units from `unit` on, and one slab of given units. given: the
// warp's first row. weights: the first part. Forward (rows are drawn units) it points to the warp's first row; BACKWARD
// (rows are given units) to the slab's first row, in the block of the slab that contains `unit`.
//
// Each lane addresses the row or column of the 8 x 8 weights such that its columns of the sums, in two tiles, are four
// neighbours of each 16 units.
template <class K, bool BACKWARD>
__device__ __forceinline__ void multiply(typename K::WarpSums& sums, const unsigned char* given, int given_row_bytes,
                                         const unsigned char* weights, int rows, int unit) {
    using Weight = typename K::Weight;
    const int lane = threadIdx.x % 32, matrix = lane / 8, row = lane % 8, unit_row = row / 2 * 4 + row % 2;
#pragma unroll
    for (int step = 0; step < K::slab_bytes / 32; ++step) {
        u32 a[CHAIN_TILES][4];
#pragma unroll
        for (int tile = 0; tile < CHAIN_TILES; ++tile)
            load_matrices<false>(a[tile], given + (16 * tile + matrix % 2 * 8 + row) * given_row_bytes +
                                              16 * (2 * step + matrix / 2));
#pragma unroll
        for (int part = 0; part < K::products; ++part)
#pragma unroll
            for (int m = 0; m < K::unit_tiles / 2; ++m) {
                const unsigned char* block = weights + part * rows * K::slab_bytes;
                u32 w[4];
                if constexpr (BACKWARD)
                    load_matrices<true>(w, block + 16 * step * K::slab_bytes +
                                               place<Weight>(unit_row + matrix % 2 * 2,
                                                             unit % SLAB / 8 + 2 * m + matrix / 2));
                else
                    load_matrices<false>(w, block + 16 * m * K::slab_bytes +
                                                place<Weight>(unit_row + matrix / 2 * 2, 2 * step + matrix % 2));
                const u32 b[2][2] = {{w[0], w[1]}, {w[2], w[3]}};
#pragma unroll
                for (int half = 0; half < 2; ++half)
#pragma unroll
                    for (int tile = 0; tile < CHAIN_TILES; ++tile)
                        matrix_product(sums.of[K::digits ? part : 0][tile][2 * m + half], a[tile], b[half]);
            }
    }
}

// Copies one number for each unit of a layer to shared memory; zeros up to the end of the last slab.
__device__ __forceinline__ void load_numbers(float* to, const float* from, int units) {
    for (int i = threadIdx.x; i < (units + SLAB - 1) / SLAB * SLAB; i += THREADS) to[i] = i < units ? from[i] : 0.0f;
}

// The two groups of warps, of 32 chains each, take turns to multiply: while one does, the other draws. Waiting for the
// turn also waits until all warps of the group have drawn. The second group has the `last` turn and gives none after
// it.
__device__ __forceinline__ void wait_for_turn(int group) { barrier_wait(1 + group, THREADS); }
__device__ __forceinline__ void give_turn(int group, bool last) {
    if (group == 0 || !last) barrier_arrive(2 - group, THREADS);
}

// One of the two half sweeps. weights: one matrix for both directions, or digits of this one. clamped: a bit for each
// drawn unit, or null.
struct Half {
    States given, drawn;
    const unsigned char* weights;
    const u64* clamped;
    int rows;
    bool backward;
};

// Draws one layer for the warp's group.
template <class K>
__device__ __forceinline__ void half_sweep(const Half& half, const LaneChains& chains, const Layer& layer, bool last) {
    using S = typename K::WarpSums;
    const int warp = threadIdx.x / 32, group = warp / UNIT_WARPS, first_row = group * WARP_CHAINS;
    const int part_bytes = half.rows * K::slab_bytes, quarter = threadIdx.x % 4;
    wait_for_turn(group);
    bool has_turn = true;
    for (int unit = warp % UNIT_WARPS * K::warp_units; unit < half.drawn.units; unit += UNIT_WARPS * K::warp_units) {
        S sums;
        const bool backward = !K::digits && half.backward;
        const int unit_slab = unit / SLAB * K::products * part_bytes;
        const unsigned char* given = half.given.row(first_row);
        const unsigned char* weights = half.weights + (backward ? unit_slab : unit * K::slab_bytes);
        const int slabs = half.given.slabs();
        if (backward)
            for (int slab = 0; slab < slabs; ++slab, given += K::slab_bytes, weights += SLAB * K::slab_bytes)
                multiply<K, true>(sums, given, half.given.row_bytes(), weights, half.rows, unit);
        else
            for (int slab = 0; slab < slabs; ++slab, given += K::slab_bytes, weights += K::products * part_bytes)
                multiply<K, false>(sums, given, half.given.row_bytes(), weights, half.rows, unit);
        if (has_turn) give_turn(group, last);
        has_turn = false;
        u32 draws[2 * CHAIN_TILES][S::draw_words];
        draw_units(sums, chains, unit + 4 * quarter, layer, draws);
#pragma unroll
        for (int row = 0; row < 2 * CHAIN_TILES; ++row) {
            const int chain = first_row + 8 * row + threadIdx.x % 32 / 4;
            u32* own = reinterpret_cast<u32*>(half.drawn.row(chain) + unit * half.drawn.size) + quarter;
            if (half.clamped) {
                const u64 bits = half.clamped[chain * half.drawn.slabs() + unit / SLAB] >> (unit % SLAB + 4 * quarter);
#pragma unroll
                for (int e = 0; e < S::own_units; ++e) {
                    u32& word = draws[row][e / S::word_units];
                    if (bits >> S::unit(0, e) & 1)
                        word = (word & ~S::one(e)) | (own[e / S::word_units * 4] & S::one(e));
                }
            }
#pragma unroll
            for (int word = 0; word < S::draw_words; ++word) own[4 * word] = draws[row][word];
        }
    }
    if (has_turn) give_turn(group, last);
}

// to_hidden, to_visible: prepared weights, (PRODUCTS, rows, columns) of Weight, zero beyond the units. Only digits read
// the second matrix and the scales, float (rows,). Biases: float (units,). visible, visible_out and hidden_out:
// (chains, units), uint8 or `packed`, with row strides in bytes. clamped: bool (chains, visible units), with strides,
// or null; shared memory still holds the states that clamped units keep. betas: double (chains,), or null for beta.
// step: that of the first sweep. first_step: added to step, or null.
template <class Weight, int PRODUCTS>
__global__ void __launch_bounds__(THREADS, 1)
    resident_sweeps(const unsigned char* visible, const Weight* to_hidden, const Weight* to_visible,
                    const float* hidden_scale, const float* visible_scale, const float* hidden_bias,
                    const float* visible_bias, unsigned char* visible_out, unsigned char* hidden_out,
                    const unsigned char* clamped, const double* betas, i64 chains, i64 visible_units, i64 hidden_units,
                    i64 hidden_rows, i64 hidden_columns, i64 visible_rows, i64 visible_columns, i64 visible_stride,
                    i64 visible_out_stride, i64 hidden_out_stride, i64 clamped_stride_chain, i64 clamped_stride_unit,
                    double beta, u64 seed, u32 step, const i64* first_step, i64 sweeps, i64 first_chain, i64 packed) {
    using K = Kind<Weight, PRODUCTS>;
    DYNAMIC_SHARED(unsigned char, shared);
    const i64 block_chain = (i64)blockIdx.x * CHAINS, left = chains - block_chain;

    // Rows up to the end of the warps' tiles, drawn or given, and the layout of shared memory.
    constexpr int tile = K::digits ? K::warp_units : SLAB, bytes = PRODUCTS * (int)sizeof(Weight);
    const int rows = ((int)hidden_units + tile - 1) / tile * tile;
    const int back_rows = K::digits ? ((int)visible_units + tile - 1) / tile * tile : rows;
    unsigned char* back_weights = K::digits ? shared + rows * (int)hidden_columns * bytes : shared;
    unsigned char* end_of_weights =
        back_weights + back_rows * (int)(K::digits ? visible_columns : hidden_columns) * bytes;
    constexpr int size = sizeof(Weight);
    const States v = {end_of_weights, (int)visible_units, size}, h = {v.end(), (int)hidden_units, size};
    float* hidden_numbers = reinterpret_cast<float*>(h.end());  // biases, then scales of digits
    float* visible_numbers = hidden_numbers + h.slabs() * SLAB * (K::digits ? 2 : 1);
    u64* held = reinterpret_cast<u64*>(visible_numbers + v.slabs() * SLAB * (K::digits ? 2 : 1));

    load_weights<Weight, PRODUCTS>(shared, to_hidden, rows, hidden_rows, hidden_columns);
    load_numbers(hidden_numbers, hidden_bias, (int)hidden_units);
    load_numbers(visible_numbers, visible_bias, (int)visible_units);
    if constexpr (K::digits) {
        load_weights<Weight, PRODUCTS>(back_weights, to_visible, back_rows, visible_rows, visible_columns);
        load_numbers(hidden_numbers + h.slabs() * SLAB, hidden_scale, (int)hidden_units);
        load_numbers(visible_numbers + v.slabs() * SLAB, visible_scale, (int)visible_units);
    }
    load_states(v, visible + block_chain * visible_stride, visible_stride, packed != 0, left);
    load_states(h, nullptr, 0, false, 0);
    if (clamped)
        load_clamped(held, clamped + block_chain * clamped_stride_chain, clamped_stride_chain, clamped_stride_unit,
                     (int)visible_units, left);
    __syncthreads();

    const int group = threadIdx.x / GROUP_THREADS;
    const i64 own_chain = group * WARP_CHAINS + threadIdx.x % 32 / 4;  // in the block, the lane's first
    const LaneChains own((u64)(first_chain + block_chain + own_chain),
                         betas ? betas + block_chain + own_chain : nullptr, left - own_chain, beta);
    const u32 first_sweep = first_step ? step + (u32)*first_step : step;
    if (group == 1) give_turn(group, false);
    for (u32 number = 0; number < 2 * (u32)sweeps; ++number) {
        const bool backward = number % 2 != 0;
        const States &given = backward ? h : v, &drawn = backward ? v : h;
        const float* numbers = backward ? visible_numbers : hidden_numbers;
        half_sweep<K>({given, drawn, backward ? back_weights : shared, backward && clamped ? held : nullptr,
                       backward ? back_rows : rows, backward},
                      own,
                      {numbers + drawn.slabs() * SLAB, numbers, drawn.units, seed, first_sweep + number / 2,
                       backward ? STREAM_VISIBLE : STREAM_HIDDEN, nullptr},
                      number == 2 * (u32)sweeps - 1);
    }
    __syncthreads();
    store_states(v, visible_out + block_chain * visible_out_stride, visible_out_stride, packed != 0, left);
    store_states(h, hidden_out + block_chain * hidden_out_stride, hidden_out_stride, packed != 0, left);
}
