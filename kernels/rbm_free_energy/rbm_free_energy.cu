// The free energy of each chain in CUDA C: product, bias, softplus and sum in one kernel; fields are never stored.
//
// Arithmetic bounds the speed: 2 * visible units operations for each hidden unit of a chain, on tensor cores (two times
// that for float16 and three times for float32 weights), against one byte for each state. After the product each hidden
// unit takes one ex2: softplus in base 2 is max(z, 0) + log2(1 + 2^-|z|), and one lg2 of the product of their terms,
// which lie in [1, 2], serves 32 units.
//
// Design: tiles as in binary_product.cuh. 8 lanes hold and sum a row of 64 hidden units. If hidden units span several
// tiles, the block that finishes last adds the parts in the order of the units.
#include "binary_product.cuh"

// visible: uint8 (chains, visible_units), contiguous. weights: (visible_units, hidden_units) with weight_stride_*.
// betas: double (chains,), or null, then beta is that of all chains. out: float (chains,). parts: (gridDim.y, chains)
// and counters: (gridDim.x,), 0 before and after; both null if there is one tile of hidden units.
template <class T>
__global__ void __launch_bounds__(THREADS, 2)
    free_energy(const unsigned char* visible, const T* weights, const T* visible_bias, const T* hidden_bias,
                const double* betas, float* out, float* parts, u32* counters, i64 chains, i64 visible_units,
                i64 hidden_units, i64 weight_stride_visible, i64 weight_stride_hidden, double beta) {
    __shared__ Tiles tiles;
    __shared__ float row_sum[3][ROWS];  // left half of the columns, right half, visible bias
    const i64 tile_chain = (i64)blockIdx.x * ROWS, tile_unit = (i64)blockIdx.y * COLUMNS;
    Sum fields = {};
    add_product(fields, tiles, States<true>(visible, chains, visible_units),
                Values<T>{weights, hidden_units, weight_stride_visible, weight_stride_hidden}, tile_chain, tile_unit, 0,
                visible_units);
#pragma unroll
    for (int i = 0; i < 2; ++i)
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            const int row = own_row() + 16 * i + 8 * r;
            const i64 chain = tile_chain + row;
            const double inverse_temperature = betas ? (chain < chains ? betas[chain] : 1.0) : beta;
            const float scale = (float)(inverse_temperature * 1.4426950408889634);
            float total = 0, product = 1;
#pragma unroll
            for (int j = 0; j < 4; ++j)
#pragma unroll
                for (int c = 0; c < 2; ++c) {
                    const i64 unit = tile_unit + own_column() + 8 * j + c;
                    if (unit >= hidden_units) continue;
                    const float z = scale * (fields.sum[i][j][2 * r + c] + to_float(hidden_bias[unit]));
                    total += fmaxf(z, 0.0f);
                    product *= 1.0f + exp2_flushed(-fabsf(z));
                }
#pragma unroll
            for (int lanes = 1; lanes < 4; lanes *= 2) {
                total += __shfl_xor_sync(warp_mask, total, lanes);
                product *= __shfl_xor_sync(warp_mask, product, lanes);
            }
            if (threadIdx.x % 4 == 0) {
                const float unscale = (float)(-0.6931471805599453 / inverse_temperature);
                row_sum[threadIdx.x / 32 % 2][row] = unscale * (total + log2f(product));
            }
        }
    // A warp takes one chain at a time, so that its lanes read neighbouring states.
    for (int row = threadIdx.x / 32; row < ROWS; row += THREADS / 32) {
        float total = 0;
        if (blockIdx.y == 0 && tile_chain + row < chains)
            for (i64 i = threadIdx.x % 32; i < visible_units; i += 32)
                if (visible[(tile_chain + row) * visible_units + i]) total -= to_float(visible_bias[i]);
        for (int lanes = 1; lanes < 32; lanes *= 2) total += __shfl_xor_sync(warp_mask, total, lanes);
        if (threadIdx.x % 32 == 0) row_sum[2][row] = total;
    }
    __syncthreads();
    const i64 chain = tile_chain + threadIdx.x;
    const bool mine = threadIdx.x < ROWS && chain < chains;
    float share = mine ? row_sum[0][threadIdx.x] + row_sum[1][threadIdx.x] + row_sum[2][threadIdx.x] : 0.0f;
    if (parts) {
        if (mine) parts[blockIdx.y * chains + chain] = share;
        if (!is_last(counters + blockIdx.x, gridDim.y)) return;
        share = 0;
        for (i64 part = 0; part < gridDim.y && mine; ++part) share += __ldcg(parts + part * chains + chain);
    }
    if (mine) out[chain] = share;
}
