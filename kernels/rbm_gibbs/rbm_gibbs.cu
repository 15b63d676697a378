// Half a sweep of block Gibbs in CUDA C: product, bias, sigmoid and draw in one kernel.
//
// Bound by arithmetic: 2 * given units operations for each drawn unit, against one byte of state. Logits, probabilities
// and uniforms stay in registers; the kernel writes only states. Each drawn unit costs a quarter of a Philox call and
// one ex2.
//
// Real-valued units use the same products, and a normal number (Box-Muller) in place of the test.
//
// Design: a block computes 64 chains x 64 units from tiles of states and weights in shared memory. A thread owns 4
// chains x 4 neighbouring units, so that one Philox call serves the four units of a chain.
#include "philox.cuh"

constexpr int THREADS = 256;
constexpr int TILE = 64;        // chains and units of a block
constexpr int TILE_GIVEN = 16;  // given units in one step
constexpr int OWN = 4;          // chains and units of a thread

template <bool REAL> struct Unit {
    using type = unsigned char;
};
template <> struct Unit<true> {
    using type = float;
};

// given: (chains, given_units). states: (chains, units), or probabilities: float (chains, units); exactly one of the
// two is not null. States are uint8 for binary units and float for real-valued ones, whose scale is sigma. weights:
// (given_units, units), with strides. clamped: bool (chains, units), with strides, or null. previous: the states that
// clamped units keep, like states. betas: double (chains,), or null for beta. first_step: added to step, or null.
template <class T, bool REAL_GIVEN = false, bool REAL_DRAWN = false>
__global__ void __launch_bounds__(THREADS, 2)  // without the 2, NVRTC 13.0 spills for sm_80 to save registers
    half_sweep(const typename Unit<REAL_GIVEN>::type* given, const T* weights, const T* bias,
               typename Unit<REAL_DRAWN>::type* states, float* probabilities, const unsigned char* clamped,
               const typename Unit<REAL_DRAWN>::type* previous, const float* sigma, const double* betas, i64 chains,
               i64 given_units, i64 units, i64 weight_stride_given, i64 weight_stride_unit, i64 clamped_stride_chain,
               i64 clamped_stride_unit, double beta, u64 seed, u32 step, const i64* first_step, u32 stream,
               i64 first_chain) {
    __shared__ float given_tile[TILE_GIVEN][TILE + 1];  // + 1: transposed stores then hit different banks
    __shared__ float weight_tile[TILE_GIVEN][TILE + 1];
    const i64 tile_chain = (i64)blockIdx.x * TILE, tile_unit = (i64)blockIdx.y * TILE;
    const int own_chain = threadIdx.x / (TILE / OWN) * OWN, own_unit = threadIdx.x % (TILE / OWN) * OWN;
    float logit[OWN][OWN] = {};
    for (i64 start = 0; start < given_units; start += TILE_GIVEN) {
        for (int i = threadIdx.x; i < TILE * TILE_GIVEN; i += THREADS) {
            {
                const int k = i % TILE_GIVEN, c = i / TILE_GIVEN;
                const bool inside = start + k < given_units && tile_chain + c < chains;
                float x = inside ? (float)given[(tile_chain + c) * given_units + start + k] : 0.0f;
                if (REAL_GIVEN && inside) x /= sigma[start + k];
                given_tile[k][c] = x;
            }
            // Coalesced access in either memory order: neighbouring threads read neighbouring weights.
            const bool along_units = weight_stride_unit == 1;
            const int k = along_units ? i / TILE : i % TILE_GIVEN, u = along_units ? i % TILE : i / TILE_GIVEN;
            const bool inside = start + k < given_units && tile_unit + u < units;
            const i64 at = (start + k) * weight_stride_given + (tile_unit + u) * weight_stride_unit;
            weight_tile[k][u] = inside ? to_float(weights[at]) : 0.0f;
        }
        __syncthreads();
#pragma unroll
        for (int k = 0; k < TILE_GIVEN; ++k)
#pragma unroll
            for (int c = 0; c < OWN; ++c)
#pragma unroll
                for (int u = 0; u < OWN; ++u)
                    logit[c][u] = fmaf(given_tile[k][own_chain + c], weight_tile[k][own_unit + u], logit[c][u]);
        __syncthreads();
    }
    const i64 first_unit = tile_unit + own_unit;
    if (first_unit >= units) return;
    if (first_step) step += (u32)*first_step;
#pragma unroll  // registers cannot be indexed at run time
    for (int c = 0; c < OWN; ++c) {
        const i64 chain = tile_chain + own_chain + c;
        if (chain >= chains) continue;
        const float scale = (float)((betas ? betas[chain] : beta) * -1.4426950408889634);
        Words words = {};
        const i64 group = (first_chain + chain) * ((units + 3) / 4) + first_unit / 4;
        if (states) words = random_words(group, seed, step, stream);
        float z[OWN];
        if constexpr (REAL_DRAWN) normals(words, (float)(1.0 / sqrt(betas ? betas[chain] : beta)), z);
#pragma unroll
        for (int u = 0; u < OWN; ++u) {
            const i64 unit = first_unit + u;
            if (unit >= units) continue;
            if constexpr (REAL_DRAWN) {
                const bool held = clamped && clamped[chain * clamped_stride_chain + unit * clamped_stride_unit];
                const float drawn = fmaf(sigma[unit], logit[c][u] + z[u], to_float(bias[unit]));
                states[chain * units + unit] = held ? previous[chain * units + unit] : drawn;
                continue;
            }
            const float p = 1.0f / (1.0f + exp2_fast(scale * (logit[c][u] + to_float(bias[unit]))));
            if (probabilities) {
                probabilities[chain * units + unit] = p;
            } else {
                const bool held = clamped && clamped[chain * clamped_stride_chain + unit * clamped_stride_unit];
                states[chain * units + unit] = held ? previous[chain * units + unit] : uniform(words.word[u]) < p;
            }
        }
    }
}
