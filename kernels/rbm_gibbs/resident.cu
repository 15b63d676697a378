// Many sweeps of block Gibbs in one launch, for machines whose weights fit the shared memory of a multiprocessor.
//
// A block takes 64 chains through all sweeps: weights are loaded once, states never leave shared memory, where they are
// bits, and nothing else is read or written but the biases. Between two half sweeps is one barrier. The fragments, sums
// and draws are those of tensor_cores.cu.
//
// Digits of int8 differ between the two half sweeps, whose units drawn have scales of their own: both matrices are
// there, 6 bytes for each weight. Of bfloat16 there is one, 2 or 6 bytes for each weight, that is read both ways. Rows
// are hidden units; 16 bytes of a row are 8 visible ones. Forward they are 8 of the units given, as tensor cores want
// them. Backward they are 8 units drawn, of 8 tiles one each, and two rows make pairs of units given by a byte
// permutation for each register. The 16 bytes change places within a pair of rows (see `place`), so that both ways 8
// lanes read 128 bytes from different banks.
//
// Prediction for 256 x 256 units in bf16 and 132 blocks on an H200 (1.98 GHz; one unit for each clock of a
// multiprocessor is 261 updates/ns). Nothing here was measured. Of a multiprocessor's four schedulers each has two
// warps, and in a half sweep
// - 512 products of 16 x 8 x 16: 2048 clocks at the documented rate, 3250 at the share of it that is assumed for
//   mma.sync (see tensor_cores.cu);
// - 8 steps of a slab, 220 instructions each forward and 328 backward (SASS for sm_90, products among them): 2190 clocks
//   of issue on average;
// - the draws, 128 for each lane of the two warps together, 22 instructions each: 2800 clocks of issue, beside which the
//   products of the other warp can run.
// With 200 for the barrier that is 5200 clocks for 64 x 256 units where issue is the limit, 6250 where products and
// draws follow each other: 680 to 820 updates/ns (the goal is 1000). 10 of the 22 instructions are Philox's rounds.
#include "tensor_cores.cuh"

constexpr int CHAIN_WARPS = 2, UNIT_WARPS = 4, THREADS = 32 * CHAIN_WARPS * UNIT_WARPS;
constexpr int CHAINS = WARP_CHAINS * CHAIN_WARPS;

// One of the two half sweeps; BACKWARD: from hidden to visible units, by the matrix that the other one reads too.
template <class Weight, int PRODUCTS, bool BACKWARD> struct Half {
    static constexpr bool digits = sizeof(Weight) == 1, backward = BACKWARD;
    static constexpr int subs = sizeof(Weight), products = PRODUCTS;
    static constexpr int unit_tiles = digits ? 4 : 8, warp_units = 8 * unit_tiles;
    using WarpSums = Sums<Weight, PRODUCTS, unit_tiles, BACKWARD>;
};

// What holds a lane's bits of a row.
template <int UNITS> struct BitsOf {
    using type = unsigned char;
};
template <> struct BitsOf<16> {
    using type = unsigned short;
};

// States of CHAINS chains in shared memory: bits in rows of an odd number of words, so that rows begin at other banks.
struct States {
    unsigned char* first;
    int units;
    __device__ __forceinline__ int words() const { return (units + SLAB - 1) / SLAB; }
    __device__ __forceinline__ int row_bytes() const { return 8 * (words() | 1); }
    __device__ __forceinline__ unsigned char* row(int chain) const { return first + chain * row_bytes(); }
    __device__ __forceinline__ unsigned char* end() const { return row(CHAINS); }
};

// Where in a block of rows, of one slab, part and sub-row of 64 bytes, the 16 bytes `quarter` of a row lie.
template <bool DIGITS> __device__ __forceinline__ int place(int row, int quarter, int sub) {
    if constexpr (DIGITS) return row * ROW_BYTES + 16 * quarter;
    return row / 2 * (2 * ROW_BYTES) + 16 * ((row % 2 * 4 + quarter) ^ (row / 2 % 4 | sub << 2));
}

// The first `rows` rows of the parts, (PRODUCTS, part_rows, columns), to shared memory: slab by slab, part by part.
template <class Weight, int PRODUCTS>
__device__ __forceinline__ void load_weights(unsigned char* to, const Weight* parts, int rows, i64 part_rows,
                                             i64 columns) {
    constexpr int subs = sizeof(Weight), chunks = 4 * subs;
    const int slabs = (int)(columns / SLAB), copies = rows * chunks;
    for (int slab = 0; slab < slabs; ++slab)
        for (int part = 0; part < PRODUCTS; ++part)
            for (int i = threadIdx.x; i < copies; i += THREADS) {
                const int row = i / chunks, chunk = i % chunks, sub = chunk % subs;
                unsigned char* block = to + ((slab * PRODUCTS + part) * subs + sub) * rows * ROW_BYTES;
                const Weight* from = parts + (part * part_rows + row) * columns + slab * SLAB;
                copy_async<16>(block + place<subs == 1>(row, chunk / subs, sub),
                               reinterpret_cast<const unsigned char*>(from) + 16 * chunk, 16);
            }
}

// Bits from bytes of 0 and not 0 in global memory, or from packed rows.
__device__ __forceinline__ void load_states(const States& to, const unsigned char* from, i64 stride, i64 unit_stride,
                                            bool packed, i64 chains) {
    const int pieces = 4 * to.words();  // of 16 units
    for (int i = threadIdx.x; i < CHAINS * pieces; i += THREADS) {
        const int chain = i / pieces, piece = i % pieces;
        u32 bits = 0;
        if (chain < chains && packed)
            bits = *reinterpret_cast<const unsigned short*>(from + chain * stride + 2 * piece);
        else if (chain < chains)
            for (int e = 0; e < 16 && 16 * piece + e < to.units; ++e)
                bits |= (u32)(from[chain * stride + (16 * piece + e) * unit_stride] != 0) << e;
        *reinterpret_cast<unsigned short*>(to.row(chain) + 2 * piece) = (unsigned short)bits;
    }
}

__device__ __forceinline__ void store_states(const States& from, unsigned char* to, i64 stride, bool packed,
                                             i64 chains) {
    const int columns = packed ? 8 * from.words() : from.units;
    const int rows = (int)(chains < CHAINS ? chains : CHAINS);
    for (int i = threadIdx.x; i < rows * columns; i += THREADS) {
        const int chain = i / columns, column = i % columns;
        const unsigned char* row = from.row(chain);
        to[chain * stride + column] = packed ? row[column] : row[column / 8] >> column % 8 & 1;
    }
}

// sums += given * weights, for the warp's chains and units and one slab of given units. weights: the slab's first part,
// in blocks of `rows` rows, from the warp's first row on.
template <class H>
__device__ __forceinline__ void multiply_forward(typename H::WarpSums& sums, const unsigned char* given, int row_bytes,
                                                 const unsigned char* weights, int rows) {
    const int lane = threadIdx.x % 32, row_of_8 = lane / 4, quarter = lane % 4;
    const int lane_row = row_of_8 / 2 * H::WarpSums::own_units + row_of_8 % 2;
    u32 state[CHAIN_TILES][2];
#pragma unroll
    for (int tile = 0; tile < CHAIN_TILES; ++tile)
#pragma unroll
        for (int half = 0; half < 2; ++half)
            state[tile][half] = *reinterpret_cast<const unsigned short*>(
                given + (16 * tile + 8 * half + row_of_8) * row_bytes + 2 * quarter);
#pragma unroll
    for (int sub = 0; sub < H::subs; ++sub) {
        u32 a[CHAIN_TILES][2][4];
#pragma unroll
        for (int tile = 0; tile < CHAIN_TILES; ++tile)
#pragma unroll
            for (int half = 0; half < 2; ++half)
                if constexpr (H::digits)
                    fragments_of_bits(state[tile][half], a[tile], half);
                else
                    wide_fragments_of_bits(state[tile][half], 8 * sub, a[tile], half);
#pragma unroll
        for (int part = 0; part < H::products; ++part)
#pragma unroll
            for (int j = 0; j < H::unit_tiles; ++j) {
                const uint4 w = *reinterpret_cast<const uint4*>(weights + (part * H::subs + sub) * rows * ROW_BYTES +
                                                                place<H::digits>(lane_row + 2 * j, quarter, sub));
                const u32 b[2][2] = {{w.x, w.y}, {w.z, w.w}};
#pragma unroll
                for (int product = 0; product < 2; ++product)
#pragma unroll
                    for (int tile = 0; tile < CHAIN_TILES; ++tile)
                        matrix_product(sums.of[H::digits ? part : 0][tile][j], a[tile][product], b[product]);
            }
    }
}

// The same where the slab's given units are 64 rows of weights, from the first on that `weights` points to, and the
// units drawn are what lies along them. A lane has of its column 8 units, of the 8 tiles one each.
template <class H>
__device__ __forceinline__ void multiply_backward(typename H::WarpSums& sums, const unsigned char* given, int row_bytes,
                                                  const unsigned char* weights, int rows) {
    const int lane = threadIdx.x % 32, row_of_8 = lane / 4, quarter = lane % 4;
    uint2 state[CHAIN_TILES][2];
#pragma unroll
    for (int tile = 0; tile < CHAIN_TILES; ++tile)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const uint2 word =
                *reinterpret_cast<const uint2*>(given + (16 * tile + 8 * half + row_of_8) * row_bytes);
            state[tile][half] = make_uint2(word.x >> 2 * quarter, word.y >> 2 * quarter);
        }
#pragma unroll
    for (int product = 0; product < 4; ++product) {  // of 16 given units; the lane has pairs of them, 8 apart
        u32 a[CHAIN_TILES][4];
#pragma unroll
        for (int tile = 0; tile < CHAIN_TILES; ++tile)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const uint2 word = state[tile][half];
                const u32 own = (product < 2 ? word.x : word.y) >> product % 2 * 16 & 0x303u, pairs = own | own << 15;
                a[tile][half] = (pairs & 0x00010001u) * 0x3f80u;
                a[tile][2 + half] = (pairs >> 8 & 0x00010001u) * 0x3f80u;
            }
#pragma unroll
        for (int part = 0; part < H::products; ++part) {
            u32 b[H::unit_tiles][2];
            const unsigned char* block = weights + (part * H::subs + row_of_8 % 2) * rows * ROW_BYTES;
#pragma unroll
            for (int pair = 0; pair < 2; ++pair) {
                const int row = 16 * product + 8 * pair + 2 * quarter;
                const uint4 first =
                    *reinterpret_cast<const uint4*>(block + place<false>(row, row_of_8 / 2, row_of_8 % 2));
                const uint4 second =
                    *reinterpret_cast<const uint4*>(block + place<false>(row + 1, row_of_8 / 2, row_of_8 % 2));
                const u32 x[4] = {first.x, first.y, first.z, first.w}, y[4] = {second.x, second.y, second.z, second.w};
#pragma unroll
                for (int j = 0; j < H::unit_tiles; ++j)
                    b[j][pair] = __byte_perm(x[j / 2], y[j / 2], j % 2 ? 0x7632 : 0x5410);
            }
#pragma unroll
            for (int j = 0; j < H::unit_tiles; ++j)
#pragma unroll
                for (int tile = 0; tile < CHAIN_TILES; ++tile) matrix_product(sums.of[0][tile][j], a[tile], b[j]);
        }
    }
}

// What the chains of a block have: how many of them there are, where the first lies in the stream, and their beta.
struct Chains {
    i64 left;
    u64 first;
    const double* betas;
    double beta;
};

// Draws one layer. held: bits of the units that keep their state, or null.
template <class H>
__device__ __forceinline__ void half_sweep(const States& given, const States& drawn, const unsigned char* held,
                                           const unsigned char* weights, int rows, const Chains& chains,
                                           const Layer& layer) {
    constexpr int own_units = H::WarpSums::own_units;
    const int warp = threadIdx.x / 32, row_of_8 = threadIdx.x % 32 / 4, quarter = threadIdx.x % 4;
    const int warp_chain = warp / UNIT_WARPS * WARP_CHAINS, slab_bytes = H::products * H::subs * rows * ROW_BYTES;
    const unsigned char* given_rows = given.row(warp_chain);
    LaneChains own;
#pragma unroll
    for (int row = 0; row < 2 * CHAIN_TILES; ++row) {
        const int chain = warp_chain + 8 * row + row_of_8;
        own.number[row] = chains.first + (u64)chain;
        own.beta[row] = chains.betas && chain < chains.left ? chains.betas[chain] : chains.beta;
    }
    for (int tile = warp % UNIT_WARPS; tile * H::warp_units < drawn.units; tile += UNIT_WARPS) {
        typename H::WarpSums sums;
        for (int slab = 0; slab < given.words(); ++slab) {
            if constexpr (H::backward)
                multiply_backward<H>(sums, given_rows + 8 * slab, given.row_bytes(),
                                     weights + tile * slab_bytes + slab * SLAB * ROW_BYTES, rows);
            else
                multiply_forward<H>(sums, given_rows + 8 * slab, given.row_bytes(),
                                    weights + slab * slab_bytes + tile * H::warp_units * ROW_BYTES, rows);
        }
        const int first_unit = tile * H::warp_units + quarter * own_units;
        u32 draws[2 * CHAIN_TILES];
        draw_units(sums, own, first_unit, layer, draws);
#pragma unroll
        for (int row = 0; row < 2 * CHAIN_TILES; ++row) {
            const int chain = warp_chain + 8 * row + row_of_8;
            if (chain >= chains.left) continue;
            u32 bits = draws[row];
            using Bits = typename BitsOf<own_units>::type;
            Bits* own = reinterpret_cast<Bits*>(drawn.row(chain) + first_unit / 8);
            if (held) {
                const i64 offset = drawn.row(chain) - drawn.first + first_unit / 8;
                const u32 keep = *reinterpret_cast<const Bits*>(held + offset);
                bits = (bits & ~keep) | (*own & keep);
            }
            *own = (Bits)bits;
        }
    }
}

// to_hidden, to_visible: (PRODUCTS, rows, columns) of Weight, zero beyond the units, as they are prepared; the second
// is read for digits alone, as the scales are: float (rows,). Biases: float (units,). visible, visible_out and
// hidden_out: (chains, units) in rows of so many bytes, uint8 or `packed`. clamped: bool (chains, visible units) with
// strides, or null: what the clamped keep is still there. betas: double (chains,), or null for beta. first_step: what step, that of the first sweep, is counted from, or null.
template <class Weight, int PRODUCTS>
__global__ void __launch_bounds__(THREADS, 1)
    resident_sweeps(const unsigned char* visible, const Weight* to_hidden, const Weight* to_visible,
                    const float* hidden_scale, const float* visible_scale, const float* hidden_bias,
                    const float* visible_bias, unsigned char* visible_out, unsigned char* hidden_out,
                    const unsigned char* clamped, const double* betas, i64 chains, i64 visible_units, i64 hidden_units,
                    i64 hidden_rows, i64 hidden_columns, i64 visible_rows, i64 visible_columns, i64 visible_stride,
                    i64 visible_out_stride, i64 hidden_out_stride, i64 clamped_stride_chain, i64 clamped_stride_unit,
                    double beta, u64 seed, u32 step, const i64* first_step, i64 sweeps, i64 first_chain, i64 packed) {
    constexpr bool digits = sizeof(Weight) == 1;
    using ToHidden = Half<Weight, PRODUCTS, false>;
    using ToVisible = Half<Weight, PRODUCTS, !digits>;
    DYNAMIC_SHARED(unsigned char, shared);
    const i64 block_chain = (i64)blockIdx.x * CHAINS;
    const Chains own = {chains - block_chain, (u64)(first_chain + block_chain), betas ? betas + block_chain : nullptr,
                        beta};

    // Rows that the warps' tiles reach, and where each thing lies.
    constexpr int tile = ToHidden::warp_units;
    const int rows = ((int)hidden_units + tile - 1) / tile * tile;
    const int back_rows = ((int)visible_units + tile - 1) / tile * tile;
    constexpr int bytes = PRODUCTS * (int)sizeof(Weight);
    unsigned char* back_weights = shared + rows * (int)hidden_columns * bytes;
    unsigned char* end_of_weights = digits ? back_weights + back_rows * (int)visible_columns * bytes : back_weights;
    const States v = {end_of_weights, (int)visible_units}, h = {v.end(), (int)hidden_units};
    const States held = {h.end(), (int)visible_units};

    load_weights<Weight, PRODUCTS>(shared, to_hidden, rows, hidden_rows, hidden_columns);
    if constexpr (digits)
        load_weights<Weight, PRODUCTS>(back_weights, to_visible, back_rows, visible_rows, visible_columns);
    copy_async_commit();
    load_states(v, visible + block_chain * visible_stride, visible_stride, 1, packed != 0, own.left);
    load_states(h, nullptr, 0, 0, false, 0);
    if (clamped)
        load_states(held, clamped + block_chain * clamped_stride_chain, clamped_stride_chain, clamped_stride_unit,
                    false, own.left);
    copy_async_wait<0>();
    __syncthreads();
    for (i64 sweep = 0; sweep < sweeps; ++sweep) {
        const u32 number = step + (u32)sweep;
        half_sweep<ToHidden>(v, h, nullptr, shared, rows, own,
                             {hidden_scale, hidden_bias, hidden_units, seed, number, STREAM_HIDDEN, first_step});
        __syncthreads();  // all hidden states are drawn
        half_sweep<ToVisible>(h, v, clamped ? held.first : nullptr, digits ? back_weights : shared,
                              digits ? back_rows : rows, own,
                              {visible_scale, visible_bias, visible_units, seed, number, STREAM_VISIBLE, first_step});
        __syncthreads();  // all visible ones
    }
    store_states(v, visible_out + block_chain * visible_out_stride, visible_out_stride, packed != 0, own.left);
    store_states(h, hidden_out + block_chain * hidden_out_stride, hidden_out_stride, packed != 0, own.left);
}
