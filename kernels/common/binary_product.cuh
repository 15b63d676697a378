// Products of 0/1 states with real numbers on tensor cores, for kernels of Boltzmann machines.  States are exact in
// bfloat16. Other numbers are exact sums of bfloat16 parts of 8 bits: one part for bfloat16, two for float16, three for
// float32. Sums are float32.  A block of 8 warps computes a tile of 128 rows x 64 columns, each warp 32 x 32 of it,
// from tiles of 32 terms in shared memory, where two neighbouring terms share a word, as matrix_product requires.
#pragma once
#include "device.cuh"

constexpr int THREADS = 256;
constexpr int ROWS = 128, COLUMNS = 64, TERMS = 32;
constexpr int WORDS = TERMS / 2 + 4;  // + 4: the fragments of a warp then lie in different banks

template <class T> constexpr int PARTS = 1;
template <> constexpr int PARTS<float> = 3;
template <> constexpr int PARTS<float16> = 2;

__device__ __forceinline__ float value_of(unsigned char x) { return (float)x; }
template <class T> __device__ __forceinline__ float value_of(T x) { return to_float(x); }

// States of chains: uint8, contiguous. A tile takes rows and terms from (row, term) on.
// CHAINS_ARE_ROWS: rows are chains and terms are units; otherwise rows are units and terms are chains.
template <bool CHAINS_ARE_ROWS> struct States {
    const unsigned char* all;
    i64 chains, units;
    bool whole_words;  // four neighbours are one aligned load

    __device__ States(const unsigned char* all, i64 chains, i64 units)
        : all(all), chains(chains), units(units), whole_words(units % 4 == 0 && ((u64)all & 3) == 0) {}

    // Four neighbouring units of a chain, one byte each; 0 beyond the edge.
    __device__ __forceinline__ u32 four(i64 chain, i64 unit, i64 last_chain) const {
        if (chain >= last_chain || unit >= units) return 0;
        const unsigned char* const first = all + chain * units + unit;
        if (whole_words) return *reinterpret_cast<const u32*>(first);
        u32 bytes = 0;
        for (int i = 0; i < 4 && unit + i < units; ++i) bytes |= (u32)first[i] << 8 * i;
        return bytes;
    }
};

// values[term * term_stride + column * column_stride], with `columns` of them.
template <class T> struct Values {
    const T* all;
    i64 columns, term_stride, column_stride;
};

struct Tiles {
    u32 states[ROWS][WORDS];
    u32 values[3][COLUMNS][WORDS];
};

// Two states as two bfloat16 numbers in one word: 1 is 0x3f80.
__device__ __forceinline__ u32 two_states(u32 low, u32 high) { return (low | high << 16) * 0x3f80u; }

template <bool CHAINS_ARE_ROWS>
__device__ __forceinline__ void load_states(Tiles& tiles, States<CHAINS_ARE_ROWS> states, i64 row, i64 term, i64 end) {
    if (CHAINS_ARE_ROWS) {
#pragma unroll
        for (int i = threadIdx.x; i < ROWS * TERMS / 4; i += THREADS) {
            const int r = i / (TERMS / 4), t = i % (TERMS / 4) * 4;
            const u32 bytes = states.four(row + r, term + t, states.chains);
            tiles.states[r][t / 2] = two_states(bytes & 0xff, bytes >> 8 & 0xff);
            tiles.states[r][t / 2 + 1] = two_states(bytes >> 16 & 0xff, bytes >> 24);
        }
    } else {
#pragma unroll
        for (int i = threadIdx.x; i < ROWS * TERMS / 8; i += THREADS) {
            const int r = i % (ROWS / 4) * 4, t = i / (ROWS / 4) * 2;
            const u32 low = states.four(term + t, row + r, end), high = states.four(term + t + 1, row + r, end);
#pragma unroll
            for (int j = 0; j < 4; ++j)
                tiles.states[r + j][t / 2] = two_states(low >> 8 * j & 0xff, high >> 8 * j & 0xff);
        }
    }
}

template <class T>
__device__ __forceinline__ void load_values(Tiles& tiles, Values<T> values, i64 column, i64 term, i64 end) {
    const bool columns_closer = values.column_stride == 1;  // coalesced: neighbouring threads read neighbours
#pragma unroll
    for (int i = threadIdx.x; i < COLUMNS * TERMS / 2; i += THREADS) {
        const int c = columns_closer ? i % COLUMNS : i / (TERMS / 2), t = columns_closer ? i / COLUMNS : i % (TERMS / 2);
        const bool inside = column + c < values.columns;
        const T* const first = values.all + (term + 2 * t) * values.term_stride + (column + c) * values.column_stride;
        float low = inside && term + 2 * t < end ? value_of(*first) : 0.0f;
        float high = inside && term + 2 * t + 1 < end ? value_of(first[values.term_stride]) : 0.0f;
#pragma unroll
        for (int part = 0; part < PARTS<T>; ++part) {
            const u32 low_bits = __float_as_uint(low), high_bits = __float_as_uint(high);
            tiles.values[part][c][t] = low_bits >> 16 | (high_bits & 0xffff0000u);
            low -= __uint_as_float(low_bits & 0xffff0000u);
            high -= __uint_as_float(high_bits & 0xffff0000u);
        }
    }
}

// A lane holds rows own_row + 16 i + 8 r and columns own_column + 8 j + c in sum[i][j][2 r + c].
struct Sum {
    float sum[2][4][4];
};
__device__ __forceinline__ int own_row() { return threadIdx.x / 64 * 32 + threadIdx.x % 32 / 4; }
__device__ __forceinline__ int own_column() { return threadIdx.x / 32 % 2 * 32 + threadIdx.x % 4 * 2; }

// Adds the products of the terms from begin to end, for rows from `row` on and columns from `column` on.
template <bool CHAINS_ARE_ROWS, class T>
__device__ __forceinline__ void add_product(Sum& all, Tiles& tiles, States<CHAINS_ARE_ROWS> states, Values<T> values,
                                            i64 row, i64 column, i64 begin, i64 end) {
    const int group = threadIdx.x % 32 / 4, quarter = threadIdx.x % 4;
    const int first_row = own_row(), first_column = threadIdx.x / 32 % 2 * 32 + group;
    for (i64 term = begin; term < end; term += TERMS) {
        load_states(tiles, states, row, term, end);
        load_values(tiles, values, column, term, end);
        __syncthreads();
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int word = half * 8 + quarter;
            u32 a[2][4];
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                const u32(*const rows)[WORDS] = tiles.states + first_row + 16 * i;
                a[i][0] = rows[0][word], a[i][1] = rows[8][word], a[i][2] = rows[0][word + 4], a[i][3] = rows[8][word + 4];
            }
#pragma unroll
            for (int part = 0; part < PARTS<T>; ++part)
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    const u32* const column_words = tiles.values[part][first_column + 8 * j];
                    const u32 b[2] = {column_words[word], column_words[word + 4]};
#pragma unroll
                    for (int i = 0; i < 2; ++i) matrix_product(all.sum[i][j], a[i], b);
                }
        }
        __syncthreads();
    }
}

// Counts this block as finished; true if it was the last of `parts` blocks. All threads call it.
__device__ __forceinline__ bool is_last(u32* counter, u32 parts) {
    __shared__ u32 finished_before;
    __threadfence();  // publish the part before the count
    __syncthreads();
    if (threadIdx.x == 0) finished_before = atomicAdd(counter, 1u);
    __syncthreads();
    if (finished_before != parts - 1) return false;
    __threadfence();  // read the other parts after the count
    if (threadIdx.x == 0) *counter = 0;
    return true;
}
