// One warp: a matrix product by one instruction, matrices and asynchronous copies from and to shared memory.
#include "device.cuh"

// out = c + a b. a: 16 rows of K, b: 8 columns of K, both packed into `words` words of 4 bytes per row.
template <class T> __global__ void product(const u32* a, const u32* b, const T* c, T* out, i64 lanes) {
    if (threadIdx.x >= lanes) return;
    const int g = threadIdx.x / 4, t = threadIdx.x % 4;
    const u32 own_a[4] = {a[8 * g + t], a[8 * (g + 8) + t], a[8 * g + t + 4], a[8 * (g + 8) + t + 4]};
    const u32 own_b[2] = {b[8 * g + t], b[8 * g + t + 4]};
    T sum[4];
    for (int i = 0; i < 4; ++i) sum[i] = c[(g + i / 2 * 8) * 8 + 2 * t + i % 2];
    matrix_product(sum, own_a, own_b);
    for (int i = 0; i < 4; ++i) out[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = sum[i];
}

// out = c + a b for a: 8 rows of 4, b: 8 columns of 4.
__global__ void product_of_double(const double* a, const double* b, const double* c, double* out) {
    const int g = threadIdx.x / 4, t = threadIdx.x % 4;
    double sum[2] = {c[8 * g + 2 * t], c[8 * g + 2 * t + 1]};
    matrix_product(sum, a[4 * g + t], b[4 * g + t]);
    for (int i = 0; i < 2; ++i) out[8 * g + 2 * t + i] = sum[i];
}

// Four matrices of 8 rows of 16 bytes, last row first. Rows are `row_bytes` apart.
template <bool TRANSPOSED> __global__ void matrices(const u32* in, u32* out, i64 row_bytes) {
    __shared__ __align__(16) unsigned char rows[32 * 32];
    const int lane = threadIdx.x;
    for (int i = 0; i < 4; ++i) reinterpret_cast<u32*>(rows + lane * row_bytes)[i] = in[4 * lane + i];
    __syncwarp();
    u32 words[4];
    load_matrices<TRANSPOSED>(words, rows + (31 - lane) * row_bytes);
    for (int i = 0; i < 4; ++i) out[4 * lane + i] = words[i];
}

// Two groups of 16 bytes per thread; the wait leaves GROUPS pending. Every second thread copies zeros.
template <int GROUPS> __global__ void copies(const u32* in, u32* out, i64 offset) {
    __shared__ __align__(16) u32 tile[2][32][4];
    const int thread = threadIdx.x;
    for (int group = 0; group < 2; ++group) {
        copy_async<16>(tile[group][thread], in + 4 * (32 * group + thread) + offset, thread % 2 ? 0 : 16);
        copy_async_commit();
    }
    copy_async_wait<GROUPS>();
    __syncthreads();
    for (int group = 0; group < 2; ++group)
        for (int i = 0; i < 4; ++i) out[4 * (32 * group + thread) + i] = tile[group][31 - thread][i];
}
