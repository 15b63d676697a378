// Named barriers.
#include "device.cuh"

// Two warps pass a number back and forth and add to it. Without WAITS they arrive where they should wait.
template <bool WAITS> __global__ void turns(i32* out, i64 rounds) {
    __shared__ i32 number;
    const int warp = threadIdx.x / 32;
    if (threadIdx.x == 0) number = 0;
    __syncthreads();
    if (warp == 1) barrier_arrive(1, 64);
    for (int round = 0; round < rounds; ++round) {
        if (WAITS)
            barrier_wait(1 + warp, 64);
        else
            barrier_arrive(1 + warp, 64);
        if (threadIdx.x % 32 == 0) number = 3 * number + warp + 1;
        if (warp == 0 || round < rounds - 1) barrier_arrive(2 - warp, 64);
    }
    __syncthreads();
    if (threadIdx.x == 0) *out = number;
}

// For the first `lanes` threads; `count` and `number` may be invalid.
__global__ void alone(i64 waits, i64 number, i64 count, i64 lanes) {
    if (threadIdx.x >= lanes) return;
    if (waits)
        barrier_wait((int)number, (int)count);
    else
        barrier_arrive((int)number, (int)count);
}

__global__ void parted() { barrier_wait(1, threadIdx.x < 32 ? 64 : 32); }

__global__ void split() { barrier_wait(1 + threadIdx.x % 2, 64); }

__global__ void twice() {
    if (threadIdx.x >= 32) return;
    barrier_arrive(1, 64);
    barrier_arrive(1, 64);
}
