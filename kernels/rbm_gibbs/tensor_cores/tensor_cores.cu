// Half a sweep of block Gibbs in CUDA C on tensor cores: prepared weights, products by mma.sync, the draw behind them.
//
// Bytes: a state of 1 byte or, packed, 1 bit read and one written for each unit of each chain, and weights of 1 or 2
// bytes for each of 1 or 3 products; a block reads its states once for every column of blocks, from L2. Operations: 2 *
// products * given units for each unit drawn, and behind them a quarter of a Philox call (10 rounds of 2 wide
// multiplications), one ex2, and for digits of int8 two conversions. Bound by the matrix rate from a few hundred given
// units on.
//
// Design. A warp computes 32 chains x 32 or 64 units. Which given unit is which k of a fragment is free, as long as
// states and weights agree, and which unit is which column too. So a lane takes 16 neighbouring given units, which are
// both of its fragments: one 128-bit load of shared memory, where rows of 64 bytes lie without gaps and 8 lanes read
// 128 bytes in a row. And its columns are 8 or 16 neighbouring units, so that each Philox call serves four of them and
// states are stored 8 or 16 bytes at a time, or 8 or 16 bits. Copies to shared memory are asynchronous, one or two
// steps ahead; they fill with zeros what lies beyond the last chain. The weights were padded with zeros when they were
// prepared.
//
// The test u (1 + exp(-x)) < 1 is u < p without a division. It differs from it where rounding does, by 2 * 2**-24 of
// the two sides (it is one fused multiplication), within the 4 * 2**-24 that the bound of a draw allows. p = 0 never
// draws 1: 1 + exp(-x) is infinite, and 0 * infinity is no number and not below 1. p = 1 always does: u < 1. Digits of
// int8 add up exactly, whatever the order, and the state is what the test gives in float64: where float32 cannot tell,
// float64 is computed. So seed and weights settle every state, on any tiling.
//
// Prediction for n = 1024 units in both layers and many chains on an H200 (132 multiprocessors, 1.98 GHz: one unit for
// each clock of a multiprocessor is 261 updates/ns). Nothing here was measured.
// - Matrix units: 2 * 1024 * products operations at the documented 4096 dense bf16 or 8192 int8 ones per clock are 0.5
//   (bf16), 1.5 (bf16x3), 0.75 (int8x3) clocks. mma.sync is said not to reach that on Hopper, where wgmma does; 0.63 of
//   it is assumed here, to be measured: 0.8, 2.4, 1.2 clocks.
// - Issue, from SASS for sm_90: a step of a warp in its loop is 203 instructions with 64 products (bf16, 2048 units),
//   255 with 96 (bf16x3, 1024 units), 225 with 48 (int8x3, 1024 units, where most are moves that put the fragments of
//   the states together); that is 0.4, 1.0, 0.9 clocks, beside the products. With packed states, of which fragments are
//   made by shifts, it is 233, 277, 165: 0.45, 1.1, 0.65 clocks. Behind them some 22 for each unit (bf16), of which 5
//   wide multiplications and 5 LOP3 are Philox's and one is a MUFU: 0.2 clocks, hidden in part.
// - So between 260 and 330 (bf16), 100 and 110 (bf16x3), 160 and 220 (int8x3) updates/ns, if L2 delivers: for each unit
//   24, 64 and 40 bytes, packed 17, 50 and 26. A tile of more chains is the next thing to try.
#include "tile.cuh"

// The arguments of `draw_tile`. first_step: what step is counted from, or null.
template <class Weight, int PRODUCTS, int CHAIN_WARPS, bool PACKED>
__global__ void __launch_bounds__(Shape<Weight, PRODUCTS, CHAIN_WARPS, PACKED>::threads,
                                  384 / Shape<Weight, PRODUCTS, CHAIN_WARPS, PACKED>::threads)
    matrix_half_sweep(const unsigned char* given, const Weight* parts, const float* scale, const float* bias,
                      unsigned char* states, float* probabilities, const unsigned char* clamped,
                      const unsigned char* previous, const double* betas, i64 chains, i64 units, i64 part_rows,
                      i64 part_columns, i64 given_stride, i64 out_stride, i64 previous_stride,
                      i64 clamped_stride_chain, i64 clamped_stride_unit, double beta, u64 seed, u32 step,
                      const i64* first_step, u32 stream, i64 first_chain) {
    using S = Shape<Weight, PRODUCTS, CHAIN_WARPS, PACKED>;
    DYNAMIC_SHARED(unsigned char, shared);
    draw_tile<Weight, PRODUCTS, CHAIN_WARPS, PACKED>(
        shared, (i64)blockIdx.x * S::chains, (i64)blockIdx.y * S::units, given, parts, states, probabilities, clamped,
        previous, betas, chains, part_rows, part_columns, given_stride, out_stride, previous_stride,
        clamped_stride_chain, clamped_stride_unit, beta, first_chain,
        {scale, bias, units, seed, step, stream, first_step});
}
