// Half a sweep of block Gibbs in CUDA C on tensor cores: prepared weights, products by mma.sync, then the draw.
//
// Bound by the matrix rate from a few hundred given units on. Bytes: for each unit of each chain one state read and one
// written, of 1 byte or (packed) 1 bit, and weights of 1 or 2 bytes for each of 1 or 3 products. Every column of blocks
// reads the states once, from L2. Operations: 2 * products * given units for each drawn unit, then a quarter of a
// Philox call (10 rounds of 2 wide multiplications), one ex2, and for digits of int8 two conversions.
//
// Design. A warp computes 32 chains x 32 or 64 units. The assignment of given units to the k of a fragment is free, as
// long as states and weights agree; so is that of units to columns. Hence a lane takes 16 neighbouring given units,
// which fill both of its fragments with one 128-bit load from shared memory; rows of 64 bytes lie there without gaps,
// and 8 lanes read 128 consecutive bytes. The columns of a lane are 8 or 16 neighbouring units, so that each Philox
// call serves four units, and one store writes 8 or 16 bytes (packed: bits) of states. Copies to shared memory are
// asynchronous, one or two steps ahead, and write zeros beyond the last chain. Prepared weights are padded with zeros.
//
// The test u (1 + exp(-x)) < 1 is u < p without a division. As one fused multiplication it is off by 2 * 2**-24 of its
// two sides, within the 4 * 2**-24 that the bound of a draw allows. p = 0 never draws 1: 1 + exp(-x) is infinite, and
// 0 * infinity is NaN, which is not below 1. p = 1 always draws 1, since u < 1. Digits of int8 add up exactly in any
// order, and the state is the result of the test in float64, which the kernel computes where float32 cannot decide. So
// seed and weights determine every state, on any tiling.
//
// Prediction for n = 1024 units in both layers and many chains on an H200 (132 multiprocessors, 1.98 GHz: one unit for
// each clock of a multiprocessor is 261 updates/ns). Nothing here was measured.
// - Matrix units: 2 * 1024 * products operations at the documented 4096 dense bf16 or 8192 int8 ones per clock are 0.5
//   (bf16), 1.5 (bf16x3), 0.75 (int8x3) clocks. mma.sync is said not to reach that rate on Hopper, where wgmma does.
//   The assumption here, to be measured, is 0.63 of it: 0.8, 2.4, 1.2 clocks.
// - Issue, from SASS for sm_90: one step of a warp in the loop takes 203 instructions with 64 products (bf16, 2048
//   units), 255 with 96 (bf16x3, 1024 units), 225 with 48 (int8x3, 1024 units; most are moves that assemble the
//   fragments of the states). That is 0.4, 1.0, 0.9 clocks, beside the products. With packed states, where shifts make
//   the fragments, it is 233, 275, 165: 0.45, 1.1, 0.65 clocks. The draw takes some 22 for each unit (bf16), among them
//   5 wide multiplications and 5 LOP3 of Philox and one MUFU: 0.2 clocks, hidden in part.
// - So between 260 and 330 (bf16), 100 and 110 (bf16x3), 160 and 220 (int8x3) updates/ns, if L2 delivers 24, 64 and 40
//   bytes for each unit, packed 17, 50 and 26. Next to try: a tile of more chains.
#include "tile.cuh"

// The arguments of `draw_tile`. first_step: added to step, or null.
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
