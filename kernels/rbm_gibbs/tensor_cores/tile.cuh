// A tile of half a sweep on tensor cores: a block's share of one layer, from products to states in global memory.
#pragma once
#include "tensor_cores.cuh"

constexpr int UNIT_WARPS = 2;

// The sizes of a block's tile, from the format of the weights, the number of products, and the warps along the chains.
// PACKED: given and drawn states are bits.
template <class Weight, int PRODUCTS, int CHAIN_WARPS, bool PACKED> struct Shape {
    static constexpr int unit_tiles = PRODUCTS == 1 ? 8 : 4;  // of 8 units, for a warp
    static constexpr int chains = WARP_CHAINS * CHAIN_WARPS, units = 8 * unit_tiles * UNIT_WARPS;
    static constexpr int threads = 32 * CHAIN_WARPS * UNIT_WARPS;
    static constexpr int subs = sizeof(Weight);  // rows of 64 bytes for the weights of a unit in one step
    static constexpr int given_row = PACKED ? 8 : ROW_BYTES;
    static constexpr int given_bytes = chains * given_row;
    static constexpr int stage_bytes = given_bytes + PRODUCTS * subs * units * ROW_BYTES;
    static constexpr int stages = CHAIN_WARPS < 4 || stage_bytes > 24 * 1024 ? 2 : 3;
};

// The asynchronous copies of a block's tiles, step after step: the sources and places of a thread's next copies.
template <class Weight, int PRODUCTS, int CHAIN_WARPS, bool PACKED> struct Copies {
    using S = Shape<Weight, PRODUCTS, CHAIN_WARPS, PACKED>;
    static constexpr int chunks = 4 * S::subs;         // of 16 bytes, in a step of one row of weights
    static constexpr int width = PACKED ? 8 : 16;        // of a copy of states
    static constexpr int pieces = S::given_row / width;  // copies of states, in a step of one chain
    static constexpr int given_copies = S::chains * pieces / S::threads;
    static constexpr int weight_copies = S::units * chunks / S::threads;

    const unsigned char *given, *weights;
    i64 given_hop, weight_hop, part_hop;  // bytes from one of the thread's rows to its next, and to the next part
    int columns, rows;                    // bytes of states left in the thread's first row; chains left from it on
    u32 given_place, weight_place;        // in a stage

    __device__ __forceinline__ Copies(const unsigned char* all_given, i64 given_stride, i64 chains_left,
                                      const Weight* parts, i64 part_rows, i64 part_columns) {
        const int thread = threadIdx.x, row = thread / chunks, chunk = thread % chunks;
        given = all_given + thread / pieces * given_stride + width * (thread % pieces);
        given_hop = S::threads / pieces * given_stride;
        given_place = thread * width;
        rows = (int)(chains_left < S::chains ? chains_left : S::chains) - thread / pieces;
        columns = (int)given_stride - width * (thread % pieces);
        const i64 row_bytes = part_columns * (i64)sizeof(Weight);
        weights = reinterpret_cast<const unsigned char*>(parts) + row * row_bytes + 16 * chunk;
        weight_hop = S::threads / chunks * row_bytes;
        part_hop = part_rows * row_bytes;
        // The first 8 of a lane's 16 weights in bfloat16 are in one row of 64 bytes, the others in another.
        weight_place = S::given_bytes + (chunk % S::subs * S::units + row) * ROW_BYTES + 16 * (chunk / S::subs);
    }

    // Starts to copy the next step's tiles to `stage`.
    __device__ __forceinline__ void start(unsigned char* stage) {
        if constexpr (PACKED) {
            if (threadIdx.x < S::chains) copy_async<8>(stage + given_place, given, rows > 0 ? 8 : 0);
        } else {
#pragma unroll
            for (int i = 0; i < given_copies; ++i) {
                const bool inside = columns > 0 && rows > i * (S::threads / 4);
                copy_async<16>(stage + given_place + i * S::threads * 16, given + i * given_hop, inside ? 16 : 0);
            }
            columns -= SLAB;
        }
#pragma unroll
        for (int part = 0; part < PRODUCTS; ++part)
#pragma unroll
            for (int i = 0; i < weight_copies; ++i) {
                const int row = part * S::subs * S::units + i * (S::threads / chunks);
                copy_async<16>(stage + weight_place + row * ROW_BYTES, weights + part * part_hop + i * weight_hop, 16);
            }
        given += S::given_row;
        weights += SLAB * sizeof(Weight);
    }
};

// Draws a block's tile from tile_chain and tile_unit on, with `shared` for its stages. given: (chains, given units) in
// rows of given_stride bytes, zero beyond the units: uint8 in rows of a multiple of 16 bytes, or PACKED in words of 64
// units. parts: (PRODUCTS, part_rows, part_columns) of Weight. layer.scale: float (part_rows,), for digits. layer.bias:
// float (units,). states: (chains, units), in the format of given, written up to out_stride bytes in each row; or
// probabilities: float (chains, units). Exactly one of these two is not null. clamped: bool (chains, units), with
// strides, or null. previous: the states that clamped units keep, like states, in rows of previous_stride. betas:
// double (chains,), or null for beta.
template <class Weight, int PRODUCTS, int CHAIN_WARPS, bool PACKED>
__device__ __forceinline__ void draw_tile(unsigned char* shared, i64 tile_chain, i64 tile_unit,
                                          const unsigned char* given, const Weight* parts, unsigned char* states,
                                          float* probabilities, const unsigned char* clamped,
                                          const unsigned char* previous, const double* betas, i64 chains,
                                          i64 part_rows, i64 part_columns, i64 given_stride, i64 out_stride,
                                          i64 previous_stride, i64 clamped_stride_chain, i64 clamped_stride_unit,
                                          double beta, i64 first_chain, const Layer& layer) {
    using S = Shape<Weight, PRODUCTS, CHAIN_WARPS, PACKED>;
    const i64 units = layer.units;
    using WarpSums = Sums<Weight, PRODUCTS, S::unit_tiles>;
    constexpr int own_units = WarpSums::own_units;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, row_of_8 = lane / 4, quarter = lane % 4;
    const int warp_chain = warp / UNIT_WARPS * WARP_CHAINS, warp_unit = warp % UNIT_WARPS * (8 * S::unit_tiles);
    WarpSums sums;

    const int steps = (int)(part_columns / SLAB);
    Copies<Weight, PRODUCTS, CHAIN_WARPS, PACKED> copies(given + tile_chain * given_stride, given_stride,
                                                         chains - tile_chain, parts + tile_unit * part_columns,
                                                         part_rows, part_columns);
    int filled = 0, next = 0;  // the next stage to copy to, and the next to compute from
#pragma unroll
    for (; filled < S::stages - 1; ++filled) {
        if (filled < steps) copies.start(shared + filled * S::stage_bytes);
        copy_async_commit();
    }
    for (int number = 0; number < steps; ++number) {
        copy_async_wait<S::stages - 2>();
        __syncthreads();  // this step's tiles have arrived, and no warp reads those that are overwritten now
        if (number + S::stages - 1 < steps) copies.start(shared + filled * S::stage_bytes);
        copy_async_commit();  // also an empty group, so that every step has the same number of groups in flight
        const unsigned char* stage = shared + next * S::stage_bytes;
        filled = filled == S::stages - 1 ? 0 : filled + 1;
        next = next == S::stages - 1 ? 0 : next + 1;
        const unsigned char* given_rows =
            stage + (warp_chain + row_of_8) * S::given_row + (PACKED ? 2 : 16) * quarter;
        const unsigned char* weight_rows =
            stage + S::given_bytes + (warp_unit + row_of_8 / 2 * own_units + row_of_8 % 2) * ROW_BYTES + 16 * quarter;
        uint4 state[CHAIN_TILES][2];  // if packed, only x is used
#pragma unroll
        for (int tile = 0; tile < CHAIN_TILES; ++tile)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const unsigned char* place = given_rows + (16 * tile + 8 * half) * S::given_row;
                if constexpr (PACKED)
                    state[tile][half].x = *reinterpret_cast<const unsigned short*>(place);
                else
                    state[tile][half] = *reinterpret_cast<const uint4*>(place);
            }
#pragma unroll
        for (int sub = 0; sub < S::subs; ++sub) {
            u32 a[CHAIN_TILES][2][4];  // the second index: the first or second product of the lane's given units
#pragma unroll
            for (int tile = 0; tile < CHAIN_TILES; ++tile)
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    const uint4 q = state[tile][half];
                    if constexpr (PACKED && WarpSums::digits) {
                        fragments_of_bits(q.x, a[tile], half);
                    } else if constexpr (PACKED) {
                        wide_fragments_of_bits(q.x, 8 * sub, a[tile], half);
                    } else if constexpr (WarpSums::digits) {
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
                            matrix_product(sums.of[WarpSums::digits ? part : 0][tile][j], a[tile][product], b[product]);
                }
        }
    }

    // A lane now holds own_units neighbouring units of rows row_of_8 and row_of_8 + 8 of each tile.
    const i64 first_unit = tile_unit + warp_unit + quarter * own_units;
    if (first_unit >= (probabilities ? units : PACKED ? 8 * out_stride : out_stride)) return;
    const i64 own_chain = tile_chain + warp_chain + row_of_8;
    if (probabilities) {
#pragma unroll
        for (int row = 0; row < 2 * CHAIN_TILES; ++row) {
            const i64 chain = own_chain + 8 * row;
            if (chain < chains)
                store_probabilities(sums, row, betas ? betas[chain] : beta, first_unit, layer,
                                    probabilities + chain * units);
        }
        return;
    }
    const LaneChains own((u64)(first_chain + own_chain), betas ? betas + own_chain : nullptr, chains - own_chain, beta);
    u32 draws[2 * CHAIN_TILES][1];
    draw_units(sums, own, first_unit, layer, draws);
#pragma unroll
    for (int row = 0; row < 2 * CHAIN_TILES; ++row) {
        const i64 chain = own_chain + 8 * row;
        if (chain >= chains) continue;
        u32 drawn = draws[row][0];
        if (clamped) {
            u32 kept = 0;
            const unsigned char* row_kept = previous + chain * previous_stride;
            if constexpr (PACKED && own_units == 16)
                kept = *reinterpret_cast<const unsigned short*>(row_kept + first_unit / 8);
            else if constexpr (PACKED)
                kept = row_kept[first_unit / 8];
            else
#pragma unroll
                for (int e = 0; e < own_units; ++e)
                    if (first_unit + e < units) kept |= (u32)row_kept[first_unit + e] << e;
            drawn = clamp_units<WarpSums>(drawn, kept, clamped + chain * clamped_stride_chain, clamped_stride_unit,
                                          first_unit, units);
        }
        unsigned char* place = states + chain * out_stride + (PACKED ? first_unit / 8 : first_unit);
        if constexpr (PACKED && own_units == 16)
            *reinterpret_cast<unsigned short*>(place) = (unsigned short)drawn;
        else if constexpr (PACKED)
            *place = (unsigned char)drawn;
        else if constexpr (own_units == 16)
            *reinterpret_cast<uint4*>(place) = make_uint4(bytes_of_bits(drawn), bytes_of_bits(drawn >> 4),
                                                          bytes_of_bits(drawn >> 8), bytes_of_bits(drawn >> 12));
        else
            *reinterpret_cast<uint2*>(place) = make_uint2(bytes_of_bits(drawn), bytes_of_bits(drawn >> 4));
    }
}
