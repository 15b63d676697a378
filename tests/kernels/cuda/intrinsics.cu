// One thread per element: CUDA functions on bits, integers and floats, and conversions.
#include "device.cuh"

__global__ void integers(const u32* a, const u32* b, u64* out, i64 n) {
    const i64 i = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= n) return;
    const u32 x = a[i], y = b[i];
    const u64 wide = mul_wide(x, y), other = static_cast<u64>(y) << 32 | x;
    const u64 values[16] = {
        wide,
        __umulhi(x, y),
        __umul64hi(wide, other),
        static_cast<u64>(__popc(x)),
        static_cast<u64>(__popcll(other)),
        static_cast<u64>(__clz(static_cast<int>(x))),
        static_cast<u64>(__ffs(static_cast<int>(x))),
        __brev(x),
        __funnelshift_l(x, y, y),
        __funnelshift_r(x, y, y),
        __funnelshift_rc(x, y, y % 64),
        static_cast<u64>(min(x, y)),
        static_cast<u64>(max(static_cast<int>(x), static_cast<int>(y))),
        __byte_perm(x, y, 0x5140),
        static_cast<u64>(static_cast<i64>(__float2int_rn(__uint_as_float(x)))),
        __float2uint_rz(__uint_as_float(y)),
    };
    for (int k = 0; k < 16; ++k) out[16 * i + k] = values[k];
}

__global__ void floats(const float* a, float* out, i64 n) {
    const i64 i = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= n) return;
    const float x = a[i];
    float sine, cosine;
    sincospif(x, &sine, &cosine);
    const float values[16] = {
        exp2_fast(x),      __expf(x),         log1pf(fabsf(x)), rsqrtf(fabsf(x)),      sine,
        cosine,            sinpif(x),         cospif(x),        fmaf(x, x, -1.0f),     tanhf(x),
        fminf(x, 0.25f),   max(x, 0.25f),     __saturatef(x),   __fsqrt_rn(fabsf(x)),  fmaxf(x, -infinity()),
        __fdividef(x, 3.0f),
    };
    for (int k = 0; k < 16; ++k) out[16 * i + k] = values[k];
}

// Vector types: four floats at once through 16-byte loads.
__global__ void scale4(const float4* __restrict__ x, float4* __restrict__ out, float factor, i64 n) {
    const i64 i = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= n) return;
    const float4 v = __ldcs(&x[i]);
    __stcs(&out[i], make_float4(factor * v.x, factor * v.y, factor * v.z, factor * v.w));
}
