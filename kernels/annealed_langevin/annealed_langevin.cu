// Langevin walkers in the double well E = (x^2 - 1)^2 in CUDA C: all steps of a schedule in one launch.
//
// Bound by instructions: a walker is read and written once, and each step needs
//   noise    Philox, 5 wide products and 5 LOP3, and the Box-Muller transform, some 17: see philox.cuh
//   drift    x - 2 eps x (x^2 - 1): a product and two fused multiply-adds; and a sum for the noise
// On sm_90 the loop has 130 instructions for four walkers, 142 with passages. Predicted, not measured, for an H200 that
// issues 128 of them per clock on each of 132 multiprocessors at 1.98 GHz: at best 1.03e12 walker-steps/s, expected
// 0.89e12 (0.76e12 to 1.05e12); with passages 0.94e12 and 0.83e12 (0.70e12 to 0.97e12).
//
// Design: a thread keeps the four walkers of a group in registers, and one Philox call gives their noise of a step. The
// scale of the noise, sqrt(eps T), is the same for all threads: the L1 cache serves one load for four walkers.
#include "philox.cuh"

constexpr int THREADS = 256;
constexpr int GROUP = 4;

// The arguments that all walkers share.
struct Settings {
    Keys keys;
    i64 walkers, groups, first_group;
    u32 offset;  // walkers of the first group that belong to another call
    u32 first_step, steps;
    float factor, threshold;  // -2 eps; the position that a passage reaches
};

// start, x: (walkers,). earlier, passages: (walkers,), used if PASSAGES; earlier is null if there were none. scales:
// (steps,).
template <bool PASSAGES>
__global__ void __launch_bounds__(THREADS)
    walk(const float* start, const i32* earlier, float* x, i32* passages, const float* scales,
         const __grid_constant__ Settings settings) {
    const i64 group = (i64)blockIdx.x * THREADS + threadIdx.x;
    if (group >= settings.groups) return;
    const i64 first = group * GROUP - settings.offset;
    float at[GROUP];
    i32 passed[GROUP];
#pragma unroll
    for (int i = 0; i < GROUP; ++i) {
        const bool inside = first + i >= 0 && first + i < settings.walkers;
        at[i] = inside ? start[first + i] : 0;
        if (PASSAGES) passed[i] = inside && earlier ? earlier[first + i] : -1;
    }
    for (u32 step = 0; step < settings.steps; ++step) {
        const u32 number = settings.first_step + step;
        float z[GROUP];
        const Words words = random_words((u64)(settings.first_group + group), settings.keys, number, STREAM_WALKERS);
        normals(words, scales[step], z);
#pragma unroll
        for (int i = 0; i < GROUP; ++i) {
            const float slope = fmaf(at[i], at[i], -1.0f);
            at[i] = fmaf(settings.factor * at[i], slope, at[i]) + z[i];
            if (PASSAGES && passed[i] < 0 && at[i] >= settings.threshold) passed[i] = (i32)number + 1;
        }
    }
#pragma unroll
    for (int i = 0; i < GROUP; ++i)
        if (first + i >= 0 && first + i < settings.walkers) {
            x[first + i] = at[i];
            if (PASSAGES) passages[first + i] = passed[i];
        }
}
