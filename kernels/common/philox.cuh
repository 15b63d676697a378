// The random stream in CUDA C, Philox4x32-10. philox.py explains the counter.  A word costs at most 5 wide
// multiplications (32 x 32 -> 64) and 5 LOP3 (the key is one of three operands): the round keys, and the part of the
// first two rounds that depends on constant words of the counter, are the same for a whole block. A normal number costs
// another 10 fused multiply-adds, 5 integer operations, a conversion, and half a logarithm and half a square root of
// the special function unit. There is no branch, no table, no slow path.
#pragma once
#include "device.cuh"

#ifndef STREAM_NOISE
#error "the compile command defines STREAM_<NAME> for each member of philox.Stream"
#endif

struct Words {
    u32 word[4];
};

// The keys of the ten rounds. As part of a kernel's argument they lie in constant memory, which a LOP3 reads for free.
struct Keys {
    u32 low[10], high[10];
};

__device__ __forceinline__ Keys keys_of(u64 seed) {
    Keys keys;
#pragma unroll
    for (u32 round = 0; round < 10; ++round) {
        keys.low[round] = (u32)seed + round * 0x9E3779B9u;
        keys.high[round] = (u32)(seed >> 32) + round * 0xBB67AE85u;
    }
    return keys;
}

__device__ __forceinline__ Words philox4x32(u32 c0, u32 c1, u32 c2, u32 c3, const Keys& keys) {
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        const u64 product0 = mul_wide(0xD2511F53u, c0);
        const u64 product1 = mul_wide(0xCD9E8D57u, c2);
        c0 = (u32)(product1 >> 32) ^ c1 ^ keys.low[round];
        c1 = (u32)product1;
        c2 = (u32)(product0 >> 32) ^ c3 ^ keys.high[round];
        c3 = (u32)product0;
    }
    return {{c0, c1, c2, c3}};
}

// The words of one group of elements.
__device__ __forceinline__ Words random_words(u64 group, const Keys& keys, u32 step, u32 stream, u32 tensor = 0) {
    return philox4x32((u32)group, (u32)(group >> 32), step, stream | tensor << 8, keys);
}
__device__ __forceinline__ Words random_words(u64 group, u64 seed, u32 step, u32 stream, u32 tensor = 0) {
    return random_words(group, keys_of(seed), step, stream, tensor);
}

// Uniform in [0, 1) for the test u < p: the top 24 bits.
__device__ __forceinline__ float uniform(u32 word) { return (float)(word >> 8) * 5.9604644775390625e-08f; }

#ifdef BOLTZBENCH_EMULATOR
inline float log2_approximate(float x) { return log2f(x); }
inline float sqrt_approximate(float x) { return sqrtf(x); }
#else
// One MUFU instruction each. Errors by the PTX ISA: log2 2^-22 absolute in (1/2, 2), else relative; sqrt 2^-23
// relative.
__device__ __forceinline__ float log2_approximate(float x) {
    float y;
    asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
__device__ __forceinline__ float sqrt_approximate(float x) {
    float y;
    asm("sqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
#endif

// c0 + c1 x + c2 x^2 + ...
template <class Real> __device__ __forceinline__ Real polynomial(Real, Real c) { return c; }
template <class Real, class... More>
__device__ __forceinline__ Real polynomial(Real x, Real c0, Real c1, More... more) {
    return fma(x, polynomial(x, c1, more...), c0);
}

// sqrt(-2 log f) for the uniform f of a word, with a relative error of 9 u (u = 2^-24). Above 3/4 the error of the
// special function unit would exceed that, so -log2 f is computed as (1 - f) times a polynomial; 1 - f is exact there.
// The 9 u: log2 has 2^-22 of at least log2(4/3), which the root halves to 4.8; the product adds 0.9, the root 2;
// rounded up. Sine or cosine adds 2 u and the last product 1 u: the error of a normal number is at most 12 u times the
// radius.
__device__ __forceinline__ float radius_of(u32 word, float) {
    const float f = fma((float)word, 2.3283064365386963e-10f, 1.1641532182693481e-10f), rest = 1.0f - f;
    const float near = rest * polynomial(rest, 1.442694987f, 0.7213626719f, 0.4802106442f, 0.3719259494f,
                                         0.207625575f, 0.4902241794f);
    return sqrt_approximate(1.3862943611f * (f > 0.75f ? near : -log2_approximate(f)));
}
__device__ __forceinline__ double radius_of(u32 word, double) {
    return sqrt(-2.0 * log(fma((double)word, 2.3283064365386963e-10, 1.1641532182693481e-10)));
}

// sin(pi t) / t and cos(pi t) for |t| <= 1/2 as minimax polynomials of t^2: errors 0.06 u and 0.004 u before rounding,
// in double below 0.002 u.
__device__ __forceinline__ float sine_of_half_turns(float t2) {
    return polynomial(t2, 3.14159258057f, -5.16770690021f, 2.55003164095f, -0.598046450795f, 0.0772222496608f);
}
__device__ __forceinline__ float cosine_of_half_turns(float t2) {
    return polynomial(t2, 1.0f, -4.93480215625f, 4.058709605f, -1.33521616097f, 0.234954171213f, -0.0244210786439f);
}
__device__ __forceinline__ double sine_of_half_turns(double t2) {
    return polynomial(t2, 3.14159265358979323, -5.16771278004996856, 2.55016403987724191, -0.599264529317470772,
                      0.0821458865534378935, -0.00737043035711239479, 0.000466299174984444486,
                      -0.0000219020311213810894, 7.6840271058548026e-7);
}
__device__ __forceinline__ double cosine_of_half_turns(double t2) {
    return polynomial(t2, 1.0, -4.93480220054467931, 4.05871212641676767, -1.33526276885455909, 0.235330630358067704,
                      -0.0258068913773418004, 0.00192957419193048453, -0.000104637433938787578,
                      4.30075860721754515e-6, -1.34381261063257999e-7);
}

__device__ __forceinline__ float with_sign_flipped_by(float x, u32 bit31) {
    return __uint_as_float(__float_as_uint(x) ^ (bit31 & 0x80000000u));
}
__device__ __forceinline__ double with_sign_flipped_by(double x, u32 bit31) {
    return __longlong_as_double(__double_as_longlong(x) ^ (i64)((u64)(bit31 & 0x80000000u) << 32));
}

// Two normal numbers, times `scale`, from two words by Box and Muller; |z| <= 6.76 scale.  The angle is 2 pi (word1 +
// 1/2) / 2^32. A shift gives all but its top bit exactly, as a signed number t of half turns in [-1/2, 1/2). An odd
// number of remaining half turns negates both results, hence the radius.
template <class Real> __device__ __forceinline__ void normal_pair(u32 word0, u32 word1, Real scale, Real* z) {
    const u32 doubled = word1 << 1;
    const Real radius = with_sign_flipped_by(scale * radius_of(word0, Real()), word1 ^ doubled);
    const Real t = fma((Real)(i32)doubled, (Real)2.3283064365386963e-10, (Real)2.3283064365386963e-10), t2 = t * t;
    z[0] = radius * cosine_of_half_turns(t2);
    z[1] = radius * (t * sine_of_half_turns(t2));
}

// Four normal numbers, times `scale`, from the four words of a group.
template <class Real> __device__ __forceinline__ void normals(const Words& words, Real scale, Real* z) {
    normal_pair(words.word[0], words.word[1], scale, z);
    normal_pair(words.word[2], words.word[3], scale, z + 2);
}
