// Correct kernels for the tests of the emulator and of CudaModule.
#include "device.cuh"

template <class T> __global__ void add(const T* __restrict__ x, const T* __restrict__ y, T* __restrict__ out, i64 n) {
    const i64 i = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i < n) out[i] = x[i] + y[i];
}

// out[z][y][x] = x + 1000 y + 1000000 z from all coordinates and sizes.
__global__ void coordinates(int* out) {
    const u32 x = blockIdx.x * blockDim.x + threadIdx.x, width = gridDim.x * blockDim.x;
    const u32 y = blockIdx.y * blockDim.y + threadIdx.y, height = gridDim.y * blockDim.y;
    const u32 z = blockIdx.z * blockDim.z + threadIdx.z;
    out[(z * height + y) * width + x] = static_cast<int>(x + 1000 * y + 1000000 * z);
}

template <class T> __device__ __forceinline__ T warp_sum(T value) {
#pragma unroll
    for (int offset = warpSize / 2; offset > 0; offset /= 2) value += __shfl_down_sync(warp_mask, value, offset);
    return value;
}

// One block per row; block size a multiple of 32. Two barriers, the second of which makes `partial` reusable.
template <class T, int threads> __global__ void __launch_bounds__(threads) row_sum(const T* x, T* out, i64 columns) {
    __shared__ T partial[threads / 32];
    T sum = 0;
    for (i64 i = threadIdx.x; i < columns; i += threads) sum += x[blockIdx.x * columns + i];
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x < 32) {
        sum = warp_sum(threadIdx.x < threads / 32 ? partial[threadIdx.x] : T(0));
        if (threadIdx.x == 0) out[blockIdx.x] = sum;
    }
    __syncthreads();
}

__global__ void reverse_rows(const float* x, float* out) {
    DYNAMIC_SHARED(float, tile);
    const i64 first = static_cast<i64>(blockIdx.x) * blockDim.x;
    tile[threadIdx.x] = x[first + threadIdx.x];
    __syncthreads();
    out[first + threadIdx.x] = tile[blockDim.x - 1 - threadIdx.x];
}

struct Affine {
    float scale;
    i64 n;
    double offset[2];
};

__global__ void affine(const float* x, float* out, const __grid_constant__ Affine map) {
    const i64 i = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i < map.n) out[i] = map.scale * x[i] + static_cast<float>(map.offset[0] + map.offset[1]);
}

__global__ void scalars(double* out, i64 a, double b, float c, u32 d, u64 e, bool f, short g, const float* null) {
    const double values[] = {static_cast<double>(a),      b,   c, static_cast<double>(d),
                             static_cast<double>(e >> 1), 1.0 * f, 1.0 * g, null == nullptr ? 1.0 : 0.0};
    for (int i = 0; i < 8; ++i) out[i] = values[i];
}

__global__ void histogram(const int* x, i64 n, int* counts, float* sum, u64* largest, u32* ticket, int* last_block) {
    const i64 i = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i < n) {
        atomicAdd(&counts[x[i]], 1);
        atomicAdd(sum, 1.0f);
        atomicMax(largest, static_cast<u64>(x[i]) << 40);
    }
    __threadfence();
    if (threadIdx.x == 0 && atomicInc(ticket, gridDim.x - 1) == gridDim.x - 1)
        *last_block = static_cast<int>(blockIdx.x);
}

// Every lane group of `width`: out[i] for up, down, xor, idx.
__global__ void shuffles(const int* x, int* out, i64 width) {
    const int w = static_cast<int>(width), n = static_cast<int>(blockDim.x), i = static_cast<int>(threadIdx.x);
    out[i] = __shfl_up_sync(warp_mask, x[i], 3, w);
    out[n + i] = __shfl_down_sync(warp_mask, x[i], 3, w);
    out[2 * n + i] = __shfl_xor_sync(warp_mask, x[i], 5, w);
    out[3 * n + i] = __shfl_sync(warp_mask, x[i], 2, w);
}

// The halves of a warp exchange under separate masks, in divergent code.
__global__ void votes(const int* x, u32* out) {
    const u32 lane = threadIdx.x % 32, half = lane < 16 ? 0x0000ffffu : 0xffff0000u;
    const int value = x[threadIdx.x];
    u32* own = out + 12 * threadIdx.x;
    own[0] = __ballot_sync(warp_mask, value > 0);
    if (lane < 16) own[1] = __ballot_sync(half, value > 0);
    else own[1] = __ballot_sync(half, value <= 0);
    own[2] = static_cast<u32>(__any_sync(half, value > 8));
    own[3] = static_cast<u32>(__all_sync(half, value > -9));
    own[4] = static_cast<u32>(__syncthreads_count(value > 0));
    own[5] = static_cast<u32>(__syncthreads_or(value > 8));
    own[6] = static_cast<u32>(__syncthreads_and(value > -9));
    __syncwarp(half);
    own[7] = static_cast<u32>(__reduce_add_sync(half, value));
    own[8] = static_cast<u32>(__reduce_min_sync(half, value));
    own[9] = static_cast<u32>(__reduce_max_sync(half, value));
    own[10] = __reduce_xor_sync(half, static_cast<u32>(value));
    own[11] = __activemask();
}

// Threads leave early; the barrier counts those that remain.
__global__ void early_exit(int* out) {
    if (threadIdx.x % 3 == 0) return;
    __shared__ int count;
    if (threadIdx.x == 1) count = 0;
    __syncthreads();
    atomicAdd(&count, 1);
    __syncthreads();
    out[threadIdx.x] = count;
}

// First value of a static and of a dynamic shared array before any write.
template <class T> __global__ void uninitialised(T* out, T leave) {
    __shared__ T fixed[64];
    DYNAMIC_SHARED(T, sized);
    out[2 * blockIdx.x] = fixed[5];
    out[2 * blockIdx.x + 1] = sized[5];
    __syncthreads();
    fixed[5] = sized[5] = leave;
}

template <class T> __global__ void widen_all(const T* x, float* out, i64 n) {
    const i64 i = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i < n) out[i] = to_float(x[i]);
}

template <class T> __global__ void narrow_all(const float* x, T* out, i64 n) {
    const i64 i = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i < n) out[i] = from_float<T>(x[i]);
}

__global__ void exchange_many(i64 rounds, int* out) {
    int value = static_cast<int>(threadIdx.x);
    for (i64 i = 0; i < rounds; ++i) value = __shfl_xor_sync(warp_mask, value, 1);
    out[threadIdx.x] = value;
}
