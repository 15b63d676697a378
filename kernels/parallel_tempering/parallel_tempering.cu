// A round of replica exchange on all ladders in CUDA C; see reference.py for the rule.
//
// Bound by memory, or by the launch: a rung reads the numbers of two replicas, two energies and two betas, and writes 8
// bytes; some 24 bytes of these are not in a cache already. A thread has one rung. It decides with the same random
// number as the thread of its partner, so that the two need not communicate.
#include "philox.cuh"

constexpr int THREADS = 256;

// replica_at, new_replica_at, accepted: (ladders, rungs); energies: (ladders, rungs), by replica; betas: (rungs).
__global__ void __launch_bounds__(THREADS)
    swap(const i32* replica_at, const double* energies, const double* betas, i32* new_replica_at, i32* accepted,
         i64 total, i64 rungs, i64 first_ladder, u64 seed, u32 step) {
    const i64 place = (i64)blockIdx.x * THREADS + threadIdx.x;
    if (place >= total) return;
    const i64 ladder = place / rungs, rung = place - ladder * rungs;
    const i64 lower = rung - ((rung ^ step) & 1);  // the lower rung of the pair
    i32 replica = replica_at[place];
    bool exchanged = false;
    if (lower >= 0 && lower + 1 < rungs) {
        const i32* const pair = replica_at + ladder * rungs + lower;
        const double* const energy = energies + ladder * rungs;
        const double log_ratio = (betas[lower] - betas[lower + 1]) * (energy[pair[0]] - energy[pair[1]]);
        const u64 number = (u64)((first_ladder + ladder) * rungs + lower);
        const Words words = random_words(number >> 2, seed, step, STREAM_SWAP);
        const u32 word = number & 2 ? (number & 1 ? words.word[3] : words.word[2])
                                    : (number & 1 ? words.word[1] : words.word[0]);
        exchanged = (double)uniform(word) < exp(log_ratio > 0.0 ? 0.0 : log_ratio);
        if (exchanged) replica = pair[rung == lower];
    }
    new_replica_at[place] = replica;
    accepted[place] = exchanged && rung == lower;
}
