// The one random stream in CUDA C: Philox4x32-10. See philox.py for what the counter holds.
// Per group of four elements: 20 wide multiplications (32 x 32 -> 64) and 40 exclusive-ors that pair into 20 LOP3.
#pragma once
#include "device.cuh"

enum Stream : u32 { STREAM_HIDDEN = 1, STREAM_VISIBLE = 2, STREAM_NOISE = 3 };

struct Words {
    u32 word[4];
};

__device__ __forceinline__ Words philox4x32(u32 c0, u32 c1, u32 c2, u32 c3, u64 seed) {
    u32 k0 = (u32)seed, k1 = (u32)(seed >> 32);
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        const u64 product0 = mul_wide(0xD2511F53u, c0);
        const u64 product1 = mul_wide(0xCD9E8D57u, c2);
        c0 = (u32)(product1 >> 32) ^ c1 ^ k0;
        c1 = (u32)product1;
        c2 = (u32)(product0 >> 32) ^ c3 ^ k1;
        c3 = (u32)product0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return {{c0, c1, c2, c3}};
}

// The words of one group of four elements.
__device__ __forceinline__ Words random_words(u64 group, u64 seed, u32 step, u32 stream, u32 tensor = 0) {
    return philox4x32((u32)group, (u32)(group >> 32), step, stream | tensor << 8, seed);
}

// Uniform in [0, 1) for the test u < p: the top 24 bits.
__device__ __forceinline__ float uniform(u32 word) { return (float)(word >> 8) * 5.9604644775390625e-08f; }

// Two normal numbers from two words by Box and Muller; |z| <= 6.76. The accurate logarithm: near 1 the fast one
// would lose every digit of the radius.
__device__ __forceinline__ void normal_pair(u32 word0, u32 word1, float* z) {
    const float radius = sqrtf(-2.0f * logf((float)word0 * 2.3283064365386963e-10f + 1.1641532182693481e-10f));
    float sine, cosine;
    sincospif(2.0f * ((float)word1 * 2.3283064365386963e-10f + 1.1641532182693481e-10f), &sine, &cosine);
    z[0] = radius * cosine;
    z[1] = radius * sine;
}

__device__ __forceinline__ void normal_pair(u32 word0, u32 word1, double* z) {
    const double radius = sqrt(-2.0 * log((double)word0 * 2.3283064365386963e-10 + 1.1641532182693481e-10));
    double sine, cosine;
    sincospi(2.0 * ((double)word1 * 2.3283064365386963e-10 + 1.1641532182693481e-10), &sine, &cosine);
    z[0] = radius * cosine;
    z[1] = radius * sine;
}

template <typename Real>
__device__ __forceinline__ void normals(const Words& words, Real* z) {
    normal_pair(words.word[0], words.word[1], z);
    normal_pair(words.word[2], words.word[3], z + 2);
}
