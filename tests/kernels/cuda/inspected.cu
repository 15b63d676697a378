// One kernel that keeps its promises, and kernels with one fault each that their machine code shows.
#include "device.cuh"

struct __align__(16) Four {
    float item[4];
};

// A sum of exponentials, by 128-bit loads.
__global__ void honest(const Four* x, float* y, int n) {
    float total = 0.0f;
#pragma unroll 1
    for (int i = threadIdx.x; i < n; i += 256) {
        const Four four = x[i];
        for (int j = 0; j < 4; ++j) total += exp2_fast(four.item[j]);
    }
    y[threadIdx.x] = total;
}

// The same by scalar loads.
__global__ void scalar(const float* x, float* y, int n) {
    float total = 0.0f;
#pragma unroll 1
    for (int i = threadIdx.x; i < n; i += 256)
        for (int j = 0; j < 4; ++j) total += exp2_fast(x[i + j * n]);
    y[threadIdx.x] = total;
}

// The same with one exponential too many per element.
__global__ void twice(const Four* x, float* y, int n) {
    float total = 0.0f;
#pragma unroll 1
    for (int i = threadIdx.x; i < n; i += 256) {
        const Four four = x[i];
        for (int j = 0; j < 4; ++j) total += exp2_fast(exp2_fast(four.item[j]));
    }
    y[threadIdx.x] = total;
}

// The same with a separate loop for the remainder, by scalars, in each of several rows.
__global__ void rows(const float* x, float* y, int n) {
    for (int row = 0; row < n; ++row) {
        float total = 0.0f;
        const float* const base = x + (i64)row * n;
        int i = threadIdx.x * 4;
#pragma unroll 1
        for (; i + 3 < n; i += 1024) {
            const Four four = *reinterpret_cast<const Four*>(base + i);
            for (int j = 0; j < 4; ++j) total += exp2_fast(four.item[j]);
        }
#pragma unroll 1
        for (; i < n; ++i) total += exp2_fast(base[i]);
        y[row * 256 + threadIdx.x] = total;
    }
}

// Too few registers: 64 live sums, 32 registers.
__global__ void __launch_bounds__(1024, 2) spills(const float* x, float* y, int n) {
    float total[64] = {};
#pragma unroll 1
    for (int i = threadIdx.x; i < n; i += 1024) {
#pragma unroll
        for (int j = 0; j < 64; ++j) total[j] = fmaf(x[i], x[n + j], total[j]);
    }
#pragma unroll
    for (int j = 0; j < 64; ++j) y[j * 1024 + threadIdx.x] = total[j];
}

// An array indexed at run time lies in local memory.
__global__ void indexed(const int* x, int* y, int n) {
    int count[16] = {};
#pragma unroll 1
    for (int i = threadIdx.x; i < n; i += 256) ++count[x[i] & 15];
    y[threadIdx.x] = count[n & 15];
}
