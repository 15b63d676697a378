// Clusters of four blocks that read values of their neighbours.
#include "device.cuh"

// In each round a block writes 10 * its number + the round to `board`. out[block] is the sum over `rounds` rounds of the
// value of the next block in the cluster. SYNC: with barriers. The first block of each cluster exits in round `leaves`.
template <bool SYNC> __global__ void CLUSTER_OF(4) ring(i32* board, i32* out, i64 rounds, i64 leaves) {
    const u32 block = blockIdx.x, next = block / 4 * 4 + (block + 1) % 4;
    i32 total = 0;
    for (i64 round = 0; round < rounds; ++round) {
        if (round >= leaves && block % 4 == 0) return;
        if (threadIdx.x == 0) board[block] = 10 * (i32)block + (i32)round;
        if (SYNC) cluster_sync<4>();
        if (threadIdx.x == 0) total += board[next];
        if (SYNC) cluster_sync<4>();
    }
    if (threadIdx.x == 0) out[block] = total;
}

__global__ void CLUSTER_OF(4) parted() {  // half of a block waits at another barrier
    if (threadIdx.x < 32) cluster_sync<4>();
    else __syncthreads();
}
