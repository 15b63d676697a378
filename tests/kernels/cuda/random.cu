// Words, uniforms and normals of `philox.cuh`, for the tests.
#include "philox.cuh"

__global__ void words(const i64* groups, i64* out, i64 n, u64 seed, u32 step, u32 stream, u32 tensor) {
    const i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    const Words drawn = random_words((u64)groups[i], seed, step, stream, tensor);
    for (int j = 0; j < 4; ++j) out[4 * i + j] = drawn.word[j];
}

__global__ void uniforms(const i64* words, float* out, i64 n) {
    const i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) out[i] = uniform((u32)words[i]);
}

// n: groups of four words.
template <class Real> __global__ void normals_of(const i64* words, Real* out, i64 n) {
    const i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    Words given;
    for (int j = 0; j < 4; ++j) given.word[j] = (u32)words[4 * i + j];
    normals(given, (Real)1, out + 4 * i);
}
