// Many sweeps of block Gibbs in one launch, by clusters of blocks: for few chains of a machine with weights in L2.
//
// Bound by latency: few chains leave most of the time to launches and to waits for L2. This plan saves the launches.
//
// Design: a cluster of 8 blocks advances a tile of 64 or 128 chains through all sweeps. Each block draws every eighth
// tile of the units of a layer, by the code of tensor_cores.cu; weights come from L2, and states go there. The next
// layer needs all units of the cluster's own chains and nothing from other clusters. So between two half sweeps the
// barrier of the cluster is enough: no launch, no counter, and only 8 blocks that must be resident at the same time,
// which the hardware guarantees.
//
// That barrier includes a release and an acquire at device scope (in SASS for sm_90 MEMBAR.ALL.GPU before it, and after
// it CCTL.IVALL, which invalidates the L1 cache).
//
// Prediction for an H200, nothing measured, for 64 chains of 784 x 500 units in bf16. A half sweep has 13 or 8 steps of
// a slab, of 203 instructions of a warp each (SASS for sm_90) and a wait for L2 that the two stages hide in part,
// assumed to be 500 clocks together; and 64 draws of 22 instructions for each lane: 1400 clocks. That is 2.7 to 4 us. A
// launch is assumed to cost 10 us from Python, 1 to 1.5 us in a CUDA graph. So a sweep of two launches takes 20 us, or
// 9 in a graph; here it takes 7. With many chains half sweeps are long (8192 x 1024 units at the target of 300
// updates/ns: 28 us), and launches in a graph are a twentieth of that. Then half sweeps with tiles of 128 chains are
// the better plan, because they read the weights half as often. `clusters_pay` decides accordingly.
#include "tile.cuh"

constexpr int CLUSTER = 8;  // blocks

// to_hidden, to_visible: (PRODUCTS, rows, columns) of Weight, with scales for digits. visible, visible_out and
// hidden_out: states in the layout of draw_tile. clamped: bool (chains, visible units), with strides, or null. betas:
// double (chains,), or null for beta. step: that of the first sweep. first_step: added to step, or null.
template <class Weight, int PRODUCTS, int CHAIN_WARPS, bool PACKED>
__global__ void CLUSTER_OF(CLUSTER) __launch_bounds__(Shape<Weight, PRODUCTS, CHAIN_WARPS, PACKED>::threads,
                                                      256 / Shape<Weight, PRODUCTS, CHAIN_WARPS, PACKED>::threads)
    cluster_sweeps(const unsigned char* visible, const Weight* to_hidden, const Weight* to_visible,
                   const float* hidden_scale, const float* visible_scale, const float* hidden_bias,
                   const float* visible_bias, unsigned char* visible_out, unsigned char* hidden_out,
                   const unsigned char* clamped, const double* betas, i64 chains, i64 visible_units, i64 hidden_units,
                   i64 hidden_rows, i64 hidden_columns, i64 visible_rows, i64 visible_columns, i64 visible_stride,
                   i64 visible_out_stride, i64 hidden_out_stride, i64 clamped_stride_chain, i64 clamped_stride_unit,
                   double beta, u64 seed, u32 step, const i64* first_step, i64 sweeps, i64 first_chain) {
    using S = Shape<Weight, PRODUCTS, CHAIN_WARPS, PACKED>;
    DYNAMIC_SHARED(unsigned char, shared);
    const i64 chain = (i64)(blockIdx.x / CLUSTER) * S::chains, first_unit = (i64)(blockIdx.x % CLUSTER) * S::units;
    for (i64 sweep = 0; sweep < sweeps; ++sweep, ++step) {
        for (i64 unit = first_unit; unit < hidden_units; unit += CLUSTER * S::units) {
            draw_tile<Weight, PRODUCTS, CHAIN_WARPS, PACKED>(
                shared, chain, unit, visible, to_hidden, hidden_out, nullptr, nullptr, nullptr, betas, chains,
                hidden_rows, hidden_columns, visible_stride, hidden_out_stride, 0, 0, 0, beta, first_chain,
                {hidden_scale, hidden_bias, hidden_units, seed, step, STREAM_HIDDEN, first_step});
            __syncthreads();  // the stages are free again
        }
        cluster_sync<CLUSTER>();  // all hidden states of the cluster's chains are written
        for (i64 unit = first_unit; unit < visible_units; unit += CLUSTER * S::units) {
            draw_tile<Weight, PRODUCTS, CHAIN_WARPS, PACKED>(
                shared, chain, unit, hidden_out, to_visible, visible_out, nullptr, clamped, visible, betas, chains,
                visible_rows, visible_columns, hidden_out_stride, visible_out_stride, visible_stride,
                clamped_stride_chain, clamped_stride_unit, beta, first_chain,
                {visible_scale, visible_bias, visible_units, seed, step, STREAM_VISIBLE, first_step});
            __syncthreads();
        }
        visible = visible_out, visible_stride = visible_out_stride;
        cluster_sync<CLUSTER>();  // all visible states are written
    }
}
