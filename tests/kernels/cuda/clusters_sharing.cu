// A cluster with static shared memory, which the emulator does not support.
#include "device.cuh"

__global__ void CLUSTER_OF(4) sharing(i32* out) {
    __shared__ i32 own[32];
    own[threadIdx.x] = (i32)blockIdx.x;
    cluster_sync<4>();
    out[32 * blockIdx.x + threadIdx.x] = own[31 - threadIdx.x];
}
