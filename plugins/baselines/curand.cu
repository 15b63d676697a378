// The Langevin update of `sgld` with the normal numbers of cuRAND: one launch for each tensor, four elements at a time, a
// generator for each thread. It shows what the suite's own random stream costs or saves beside cuRAND's.
#include <curand_kernel.h>

extern "C" __global__ void __launch_bounds__(256)
    update(float4* x, const float4* g, long long quads, float drift, float noise, long long seed, long long tensor) {
    const long long threads = (long long)gridDim.x * blockDim.x, own = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    curandStatePhilox4_32_10_t state;
    curand_init((unsigned long long)seed, (unsigned long long)(tensor << 32 | own), 0, &state);
    for (long long i = own; i < quads; i += threads) {
        const float4 slope = g[i], z = curand_normal4(&state);
        float4 moved = x[i];
        moved.x += noise * z.x - drift * slope.x;
        moved.y += noise * z.y - drift * slope.y;
        moved.z += noise * z.z - drift * slope.z;
        moved.w += noise * z.w - drift * slope.w;
        x[i] = moved;
    }
}
