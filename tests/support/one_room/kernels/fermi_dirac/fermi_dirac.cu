// The occupation in CUDA C.
//
// Bound by memory: a level reads 4 bytes and writes 4, and computes one exponential and one division. Neighbouring
// threads have neighbouring levels, so that a warp moves 128 bytes in each access; with 2048 threads on a
// multiprocessor enough of them are in flight.
#include "device.cuh"

constexpr int THREADS = 256;

// x, y: (n,)
__global__ void __launch_bounds__(THREADS) occupation(const float* x, float* y, i64 n) {
    const i64 level = (i64)blockIdx.x * THREADS + threadIdx.x;
    if (level < n) y[level] = 1.0f / (1.0f + expf(-x[level]));
}
