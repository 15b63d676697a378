// Many sweeps of block Gibbs in one launch, for machines whose weights fit the shared memory of a multiprocessor.
//
// A block takes 64 chains through all sweeps: weights and biases are loaded once, and states never leave shared memory
// (near ties of int8x3 read the chain's beta, if it has one of its own). Two groups of 4 warps have 32 chains each, and turns to multiply: while one
// does, the other draws, so that tensor cores and schedulers work side by side. A group's barrier of its turn is also
// its barrier between two half sweeps.
//
// States are operands of the next product as the draw leaves them, bfloat16 or bytes: fragments come by ldmatrix, and
// no instruction unpacks them. Digits of int8 differ between the two half sweeps, whose units drawn have scales of
// their own: both matrices are there, 6 bytes for each weight. Of bfloat16 there is one, 2 or 6 bytes for each weight,
// that is read both ways; rows are hidden units. Forward a row is a unit drawn, and backward a unit given, which
// ldmatrix transposes. Which unit is which row or column of a fragment is free: those of a lane's sums are groups of
// four that share a call of Philox, by the order in which it asks for rows (forward), and in which columns lie
// (backward, `place_in_row`).
//
// Prediction for 256 x 256 units in bf16 and 132 blocks on an H200 (1.98 GHz; one unit for each clock of a
// multiprocessor is 261 updates/ns). Nothing here was measured. Each of a multiprocessor's four schedulers has a warp
// of each group, which in a half sweep (SASS for sm_90)
// - multiplies 256 times 16 x 8 x 16: 1024 clocks at the documented rate, 1625 at the share of it that is assumed for
//   mma.sync (see tensor_cores.cu), in 4 steps of a slab of 107 instructions;
// - draws 64 units for each lane, 19.4 instructions each with storing them, of which 10 are Philox's rounds;
// - and has 200 instructions besides: addresses, numbers of chains, sums set to zero.
// For both warps that is 3740 clocks of issue beside 3250 of tensor cores, for 64 x 256 units: 1140 updates/ns, if no
// scheduler ever waits; the goal, 1000, leaves it an eighth of the time to wait. Of 128 units the three products of
// bf16x3 want 2440 clocks of tensor cores beside 2330 of issue (870 updates/ns), and the float32 arithmetic of int8x3
// 2780 of issue (770). In bf16 warps have 64 units each, so that half of them or more wait
// where a layer has 128 or fewer.
#include "tensor_cores.cuh"

constexpr int GROUPS = 2, UNIT_WARPS = 4, GROUP_THREADS = 32 * UNIT_WARPS, THREADS = GROUPS * GROUP_THREADS;
constexpr int CHAINS = WARP_CHAINS * GROUPS;

// What follows from the format of the weights and how many there are.
template <class W, int PRODUCTS> struct Kind {
    using Weight = W;
    static constexpr bool digits = sizeof(Weight) == 1;
    static constexpr int products = PRODUCTS, slab_bytes = SLAB * sizeof(Weight);
    static constexpr int unit_tiles = PRODUCTS == 1 ? 8 : 4, warp_units = 8 * unit_tiles;
    using WarpSums = Sums<Weight, PRODUCTS, unit_tiles, true>;
};

// Where in its row unit e = 16 m + 4 q + 2 h + i of states or weights lies, of `size` bytes: in that order of int8, and
// of bfloat16 at 16 m + 8 h + 2 q + i.
__device__ __forceinline__ int place_in_row(int unit, int size) {
    return size == 1 ? unit : 2 * ((unit & ~15) + unit % 4 / 2 * 8 + unit % 16 / 4 * 2 + unit % 2);
}

// States of CHAINS chains in shared memory, operands of products of `size` bytes; the first byte of 1 is not 0. Rows
// are 16 bytes longer than slabs, so that of 8 rows the same 16 bytes are in different banks.
struct States {
    unsigned char* first;
    int units, size;
    __device__ __forceinline__ int slabs() const { return (units + SLAB - 1) / SLAB; }
    __device__ __forceinline__ int row_bytes() const { return SLAB * slabs() * size + 16; }
    __device__ __forceinline__ unsigned char* row(int chain) const { return first + chain * row_bytes(); }
    __device__ __forceinline__ unsigned char* end() const { return row(CHAINS); }
};

// Where in a block of rows, those of one slab and part, the 16 bytes `chunk` of a row lie: with those of the 8 rows
// that are read at a time, and differ in bits 0, 2 and 3, in different banks.
template <class Weight> __device__ __forceinline__ int place(int row, int chunk) {
    constexpr int chunks = 4 * sizeof(Weight);
    const int turn = sizeof(Weight) == 1 ? row >> 2 & 3 : (row & 1) | (row >> 1 & 6);
    return 16 * (row * chunks + (chunk ^ turn));
}

// The first `rows` rows of the parts, (PRODUCTS, part_rows, columns), to shared memory: slab by slab, part by part.
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

// From bytes that are not 0 in global memory, or from packed rows; zeros beyond the chains and the units.
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

// Which units are clamped, bits: a word of 64 for each slab of each chain.
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

// sums += given * weights, for the warp's chains and units, from `unit` on, and one slab of given units. given: the
// warp's first row. weights: the first part; forward, whose rows are units drawn, from the warp's first row on;
// BACKWARD, whose rows are units given, from the slab's first row on, in the block of the slab that has `unit`.
//
// The rows and columns that a lane brings of the weights, of 8 by 8, are such that its columns of the sums are four
// neighbours of each 16, in two tiles.
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

// Numbers of each unit of a layer to shared memory, to the end of its last slab.
__device__ __forceinline__ void load_numbers(float* to, const float* from, int units) {
    for (int i = threadIdx.x; i < (units + SLAB - 1) / SLAB * SLAB; i += THREADS) to[i] = i < units ? from[i] : 0.0f;
}

// The two groups of warps, of 32 chains each, take turns to multiply: while one does, the other draws. A group waits
// for its turn until all its warps have drawn, too. The second one, whose `last` turn ends all, gives no more.
__device__ __forceinline__ void wait_for_turn(int group) { barrier_wait(1 + group, THREADS); }
__device__ __forceinline__ void give_turn(int group, bool last) {
    if (group == 0 || !last) barrier_arrive(2 - group, THREADS);
}

// One of the two half sweeps. weights: of the two ways, or of digits of its own. clamped: a bit for each unit drawn, or
// null.
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

// to_hidden, to_visible: (PRODUCTS, rows, columns) of Weight, zero beyond the units, as they are prepared; the second
// is read for digits alone, as the scales are: float (rows,). Biases: float (units,). visible, visible_out and
// hidden_out: (chains, units) in rows of so many bytes, uint8 or `packed`. clamped: bool (chains, visible units) with
// strides, or null: what the clamped keep is still there. betas: double (chains,), or null for beta. first_step: what
// step, that of the first sweep, is counted from, or null.
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

    // Rows that the warps' tiles reach, drawn or given, and where each thing lies.
    constexpr int tile = K::digits ? K::warp_units : SLAB, bytes = PRODUCTS * (int)sizeof(Weight);
    const int rows = ((int)hidden_units + tile - 1) / tile * tile;
    const int back_rows = K::digits ? ((int)visible_units + tile - 1) / tile * tile : rows;
    unsigned char* back_weights = K::digits ? shared + rows * (int)hidden_columns * bytes : shared;
    unsigned char* end_of_weights =
        back_weights + back_rows * (int)(K::digits ? visible_columns : hidden_columns) * bytes;
    constexpr int size = sizeof(Weight);
    const States v = {end_of_weights, (int)visible_units, size}, h = {v.end(), (int)hidden_units, size};
    float* hidden_numbers = reinterpret_cast<float*>(h.end());  // biases; and of digits, scales
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
    for (i64 number = 0; number < 2 * sweeps; ++number) {
        const bool backward = number % 2 != 0;
        const States &given = backward ? h : v, &drawn = backward ? v : h;
        const float* numbers = backward ? visible_numbers : hidden_numbers;
        half_sweep<K>({given, drawn, backward ? back_weights : shared, backward && clamped ? held : nullptr,
                       backward ? back_rows : rows, backward},
                      own,
                      {numbers + drawn.slabs() * SLAB, numbers, drawn.units, seed, first_sweep + (u32)(number / 2),
                       backward ? STREAM_VISIBLE : STREAM_HIDDEN, nullptr},
                      number == 2 * sweeps - 1);
    }
    __syncthreads();
    store_states(v, visible_out + block_chain * visible_out_stride, visible_out_stride, packed != 0, left);
    store_states(h, hidden_out + block_chain * hidden_out_stride, hidden_out_stride, packed != 0, left);
}
