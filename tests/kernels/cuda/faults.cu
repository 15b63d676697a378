// Wrong kernels. The emulator must find the mistake in each comment.
#include "device.cuh"

// The barrier between writer and readers is missing: the two schedules disagree.
template <bool with_barrier> __global__ void hand_over(const int* x, int* out) {
    __shared__ int from_first_warp[32];
    if (threadIdx.x < 32) from_first_warp[threadIdx.x] = x[threadIdx.x];
    if (with_barrier) __syncthreads();
    out[threadIdx.x] = from_first_warp[threadIdx.x % 32];
}

// Error: lane 7 has exited.
__global__ void absent_lane(int* out) {
    if (threadIdx.x == 7) return;
    out[threadIdx.x] = __shfl_down_sync(warp_mask, out[threadIdx.x], 1);
}

// Error: lane 7 exits after (forward) or before (reverse) others begin to wait for it.
__global__ void leaving_lane(int* out) {
    if (threadIdx.x != 31) __syncwarp();
    out[threadIdx.x] = 1;
}

// Error: the caller is not in its own mask.
__global__ void not_in_mask(int* out) { out[threadIdx.x] = __shfl_sync(0x0000ffffu, out[threadIdx.x], 0); }

// Error: even and odd lanes name each other under different masks.
__global__ void different_masks(int* out) {
    out[threadIdx.x] = static_cast<int>(__ballot_sync(threadIdx.x % 2 ? 0xffffffffu : 0x7fffffffu, 1));
}

// Error: the same mask in different functions.
__global__ void different_functions(int* out) {
    if (threadIdx.x % 2) out[threadIdx.x] = __any_sync(warp_mask, 1);
    else out[threadIdx.x] = __all_sync(warp_mask, 1);
}

// Error: lane 3 reads from a lane outside the mask.
__global__ void source_outside_mask(int* out) {
    if (threadIdx.x < 4) out[threadIdx.x] = __shfl_down_sync(0xfu, out[threadIdx.x], 1);
}

// Deadlock: warp 1 waits at the barrier, lanes 0 to 15 of warp 0 for lanes that wait at the barrier too.
__global__ void deadlock(int* out) {
    if (threadIdx.x < 16) __syncwarp();
    __syncthreads();
    out[threadIdx.x] = 1;
}

// Error: the halves of the block wait at different barriers.
__global__ void divergent_barrier(int* out) {
    if (threadIdx.x < 32) {
        __syncthreads();
    } else {
        out[threadIdx.x] = 1;
        __syncthreads();
    }
}

__global__ void trap(int* out) {
    if (out[threadIdx.x] < 0) __trap();
}

// Deadlock if `wait`, with an array on every stack.
template <int n> __global__ void local_array(int* out, bool wait) {
    int local[n];
    for (int i = 0; i < n; ++i) local[i] = out[i % 32];
    if (wait && threadIdx.x < 16) __syncwarp();
    if (wait) __syncthreads();
    out[threadIdx.x] = local[(out[0] + threadIdx.x) % n];
}

// For the sanitizers: x has n elements.
__global__ void write_past_end(float* x, i64 n) {
    if (static_cast<i64>(threadIdx.x) <= n) x[threadIdx.x] = 1.0f;
}

__device__ __noinline__ float read_at(const float* array, i64 i) { return array[i]; }

__global__ void static_shared_past_end(float* x, i64 i) {
    __shared__ float tile[32];
    tile[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    x[threadIdx.x] = read_at(tile, threadIdx.x + i);
}

__global__ void dynamic_shared_past_end(float* x, i64 i) {
    DYNAMIC_SHARED(float, tile);
    tile[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    x[threadIdx.x] = read_at(tile, threadIdx.x + i);
}

// 65536 rows of 65536 columns: the product overflows int.
__global__ void index_overflow(float* x, int rows, int columns) {
    const int i = rows * columns;
    x[threadIdx.x] = static_cast<float>(i);
}

__global__ void misaligned(float* x) {
    float4* vectors = reinterpret_cast<float4*>(x + 1);
    vectors[threadIdx.x].x = 1.0f;
}
