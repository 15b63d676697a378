// Included first by every kernel file of this project: the same names under NVRTC and under the host emulator.
//
//   fixed-width integers     i32 u32 i64 u64 (i64 and u64 are long long, for CUDA's atomics)
//   16-bit storage types     float16, bfloat16; to_float(x), from_float<T>(x) round to nearest even, NaN becomes 0x7fff
//   any storage type         Wide<T>, widen(x), narrow<T>(x): as above, and double stays double
//   single instructions      exp2_fast(x), exp2_flushed(x), mul_wide(a, b), larger_pair<T>(a, b), store_128(to, bits)
//   constants                warp_mask, infinity(), not_a_number()
//   dynamic shared memory    DYNAMIC_SHARED(float, name)   declares `float* const name`
//   tensor cores             matrix_product(sum, a, b), load_matrices<transposed>(words, row)
//                                                          one warp-wide instruction each, see below
//   clusters of blocks       CLUSTER_OF(blocks) before a kernel's name, cluster_sync<blocks>()
//   parts of a block         barrier_wait(number, threads), barrier_arrive(number, threads)
//   copies to shared memory  copy_async<16>(shared, global, bytes), copy_async_commit(), copy_async_wait<groups>()
//
// No other include is needed: NVRTC provides float4, int4, uint4, the warp functions and the math functions, and the
// emulator has its own. Alignment of a shared array: `__shared__ __align__(16) float tile[64];`.
#pragma once

#if !defined(__CUDACC_RTC__) && !defined(BOLTZBENCH_EMULATOR)
#error "compile device.cuh through boltzbench.kernels.cuda_module: by NVRTC or by the emulator"
#endif

using i32 = int;
using u32 = unsigned int;
using i64 = long long;
using u64 = unsigned long long;

static_assert(sizeof(i32) == 4 && sizeof(i64) == 8, "i32 has 32 bits and i64 has 64");

// All 32 lanes of a warp, for the mask of the *_sync functions.
constexpr u32 warp_mask = 0xffffffffu;

__device__ __forceinline__ float infinity() { return __int_as_float(0x7f800000); }
__device__ __forceinline__ float not_a_number() { return __int_as_float(0x7fffffff); }

// Storage types without arithmetic: compute in float.
struct __align__(2) float16 {
    unsigned short bits;
};
struct __align__(2) bfloat16 {
    unsigned short bits;
};

#ifdef BOLTZBENCH_EMULATOR

#define DYNAMIC_SHARED(type, name) type* const name = reinterpret_cast<type*>(emulator::dynamic_shared())

inline float exp2_fast(float x) { return exp2f(x); }
inline float exp2_flushed(float x) { return exp2f(x); }

inline void store_128(void* to, uint4 bits) { *static_cast<uint4*>(to) = bits; }

inline u64 mul_wide(u32 a, u32 b) { return static_cast<u64>(a) * b; }

inline float to_float(float16 x) {
    const u32 sign = (x.bits & 0x8000u) << 16, exponent = (x.bits >> 10) & 0x1fu, fraction = x.bits & 0x3ffu;
    if (exponent == 0x1f) return __uint_as_float(sign | 0x7f800000u | fraction << 13);
    if (exponent == 0) return copysignf(ldexpf(static_cast<float>(fraction), -24), __uint_as_float(sign));
    return __uint_as_float(sign | (exponent + 112) << 23 | fraction << 13);
}

// Rounds to nearest even in two cases. A normal half keeps 10 of the 23 fraction bits: adding just under half of the
// last kept bit, plus that bit itself, carries exactly when rounding must. A subnormal half is a multiple of 2^-24:
// adding 0.5, whose last bit is 2^-24, makes the float addition round.
inline float16 to_float16(float x) {
    const u32 bits = __float_as_uint(x), magnitude = bits & 0x7fffffffu;
    const unsigned short sign = static_cast<unsigned short>((bits ^ magnitude) >> 16);
    u32 half;
    if (magnitude > 0x7f800000u) return {0x7fff};
    else if (magnitude >= 0x47800000u) half = 0x7c00u;  // 65536 and above, infinity
    else if (magnitude < 0x38800000u) half = __float_as_uint(__uint_as_float(magnitude) + 0.5f) - 0x3f000000u;
    else half = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
    return {static_cast<unsigned short>(sign | half)};
}

inline bfloat16 to_bfloat16(float x) {
    const u32 bits = __float_as_uint(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return {0x7fff};
    return {static_cast<unsigned short>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}

#else

// 128 bytes: the strictest alignment that any copy into shared memory requires.
#define DYNAMIC_SHARED(type, name)                                      \
    extern __shared__ __align__(128) unsigned char dynamic_shared_bytes[]; \
    type* const name = reinterpret_cast<type*>(dynamic_shared_bytes)

// A MUFU, accurate to 2 ulp, and two instructions that keep subnormal results.
__device__ __forceinline__ float exp2_fast(float x) {
    float y;
    asm("ex2.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// The MUFU alone, which flushes subnormal results to zero.
__device__ __forceinline__ float exp2_flushed(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// One 128-bit store; the compiler may split an assignment into several.
__device__ __forceinline__ void store_128(void* to, uint4 bits) {
    asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(to)), "r"(bits.x),
                 "r"(bits.y), "r"(bits.z), "r"(bits.w)
                 : "memory");
}

// 32 x 32 -> 64 bits in one instruction.
__device__ __forceinline__ u64 mul_wide(u32 a, u32 b) {
    u64 product;
    asm("mul.wide.u32 %0, %1, %2;" : "=l"(product) : "r"(a), "r"(b));
    return product;
}

__device__ __forceinline__ float to_float(float16 x) {
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
    return y;
}

__device__ __forceinline__ float16 to_float16(float x) {
    float16 y;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
    return y;
}

// sm_80 and above.
__device__ __forceinline__ bfloat16 to_bfloat16(float x) {
    bfloat16 y;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
    return y;
}

#endif

// A bfloat16 is the upper half of a float.
__device__ __forceinline__ float to_float(bfloat16 x) { return __uint_as_float(static_cast<u32>(x.bits) << 16); }
__device__ __forceinline__ float to_float(float x) { return x; }

// from_float<T>: float to the storage type T.
template <class T> __device__ __forceinline__ T from_float(float x);
template <> __device__ __forceinline__ float from_float<float>(float x) { return x; }
template <> __device__ __forceinline__ float16 from_float<float16>(float x) { return to_float16(x); }
template <> __device__ __forceinline__ bfloat16 from_float<bfloat16>(float x) { return to_bfloat16(x); }

// Maximum and minimum of two pairs of 16-bit floats, half by half; a number wins over NaN.
#ifdef BOLTZBENCH_EMULATOR
template <class T, class Choose> u32 choose_in_pair(u32 a, u32 b, Choose choose) {
    u32 chosen = 0;
    for (int shift = 0; shift < 32; shift += 16) {
        const T x{static_cast<unsigned short>(a >> shift)}, y{static_cast<unsigned short>(b >> shift)};
        chosen |= static_cast<u32>(from_float<T>(choose(to_float(x), to_float(y))).bits) << shift;
    }
    return chosen;
}
template <class T> u32 larger_pair(u32 a, u32 b) {
    return choose_in_pair<T>(a, b, [](float x, float y) { return fmaxf(x, y); });
}
template <class T> u32 smaller_pair(u32 a, u32 b) {
    return choose_in_pair<T>(a, b, [](float x, float y) { return fminf(x, y); });
}
#else
template <class T> __device__ __forceinline__ u32 larger_pair(u32 a, u32 b);
template <class T> __device__ __forceinline__ u32 smaller_pair(u32 a, u32 b);
#define BOLTZBENCH_PAIR(T, name, instruction)                                     \
    template <> __device__ __forceinline__ u32 name<T>(u32 a, u32 b) {            \
        u32 c;                                                                    \
        asm(instruction " %0, %1, %2;" : "=r"(c) : "r"(a), "r"(b));               \
        return c;                                                                 \
    }
BOLTZBENCH_PAIR(float16, larger_pair, "max.f16x2")
BOLTZBENCH_PAIR(float16, smaller_pair, "min.f16x2")
BOLTZBENCH_PAIR(bfloat16, larger_pair, "max.bf16x2")
BOLTZBENCH_PAIR(bfloat16, smaller_pair, "min.bf16x2")
#endif

// The type that computations on a storage type use: double for double, float for all others.
template <class T> struct Computation {
    using type = float;
};
template <> struct Computation<double> {
    using type = double;
};
template <class T> using Wide = typename Computation<T>::type;

__device__ __forceinline__ double widen(double x) { return x; }
template <class T> __device__ __forceinline__ float widen(T x) { return to_float(x); }
template <class T> __device__ __forceinline__ T narrow(Wide<T> x) { return from_float<T>(x); }
template <> __device__ __forceinline__ double narrow<double>(double x) { return x; }

// ---- tensor cores: one warp-wide instruction computes sum += a b. Lane 4 g + t holds these fragments:
//   a, 16 x K row-major:     rows g and g + 8 (a[0], a[1]: first half of K; a[2], a[3]: second half),
//   b, K x 8:                column g (b[0]: first half of K; b[1]: second half),
//   sum, 16 x 8:             row g in sum[0] and sum[1], row g + 8 in sum[2] and sum[3], columns 2 t and 2 t + 1.
// Of each half of K a lane holds the t-th quarter, packed into a word: two of 8 bfloat16, or four of 16 signed bytes.
// The product of doubles is 8 x 4 by 4 x 8: lane 4 g + t holds row g, column t of a; row t, column g of b; and row g,
// columns 2 t and 2 t + 1 of the sum.
// Source: "Matrix Fragments for mma.m16n8k16", "mma.m16n8k32" and "mma.m8n8k4" in the PTX ISA. sm_80 and above.
//
// load_matrices loads four matrices of 8 rows of 16 bytes from shared memory. Lane 8 i + r passes the address of row r
// of matrix i, a multiple of 16. Lane 4 g + t receives in words[i] the t-th word of row g; if TRANSPOSED, the g-th
// 16-bit numbers of rows 2 t and 2 t + 1.
//
// ---- named barriers 1 to 15 of a block, for `threads` threads in whole warps. The barrier opens when that many
// threads have called; barrier_wait blocks until then, barrier_arrive does not block. Source: "bar", "ldmatrix" in the
// PTX ISA.
//
// ---- asynchronous copies of 8 or 16 bytes, aligned to their size, from device memory to shared memory. `bytes` is 0
// or the size: how many are read; the rest is zero. commit closes a group; wait<n> returns when all but the last n
// groups of the calling thread have arrived. Data that other threads copied is visible after their wait and a barrier.
#ifdef BOLTZBENCH_EMULATOR

inline void matrix_product(float (&sum)[4], const u32 (&a)[4], const u32 (&b)[2], BOLTZBENCH_WHERE) {
    emulator::matrix_product_bf16(sum, a, b, where);
}
inline void matrix_product(i32 (&sum)[4], const u32 (&a)[4], const u32 (&b)[2], BOLTZBENCH_WHERE) {
    emulator::matrix_product_s8(sum, a, b, where);
}
inline void matrix_product(double (&sum)[2], double a, double b, BOLTZBENCH_WHERE) {
    emulator::matrix_product_f64(sum, a, b, where);
}
template <bool TRANSPOSED> void load_matrices(u32 (&words)[4], const void* row, BOLTZBENCH_WHERE) {
    emulator::load_matrices(words, row, TRANSPOSED, where);
}
template <int WIDTH> void copy_async(void* shared, const void* global, u32 bytes, BOLTZBENCH_WHERE) {
    emulator::copy_async(shared, global, WIDTH, bytes, where);
}
inline void copy_async_commit() { emulator::copy_async_commit(); }
template <int GROUPS> void copy_async_wait() { emulator::copy_async_wait(GROUPS); }

#else

__device__ __forceinline__ void matrix_product(float (&sum)[4], const u32 (&a)[4], const u32 (&b)[2]) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ __forceinline__ void matrix_product(i32 (&sum)[4], const u32 (&a)[4], const u32 (&b)[2]) {
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+r"(sum[0]), "+r"(sum[1]), "+r"(sum[2]), "+r"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// A barrier for all threads of the cluster, which also makes their earlier global writes visible to all of them.
// Clusters exist from sm_90 on; kernels for clusters are not launched on older devices.
template <int BLOCKS> __device__ __forceinline__ void cluster_sync() {
#if __CUDA_ARCH__ >= 900
    asm volatile("barrier.cluster.arrive.release.aligned;\n\tbarrier.cluster.wait.acquire.aligned;" : : : "memory");
#else
    __trap();
#endif
}

__device__ __forceinline__ void matrix_product(double (&sum)[2], double a, double b) {
    asm("mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%0, %1}, {%2}, {%3}, {%0, %1};"
        : "+d"(sum[0]), "+d"(sum[1])
        : "d"(a), "d"(b));
}

template <bool TRANSPOSED> __device__ __forceinline__ void load_matrices(u32 (&words)[4], const void* row) {
    const u32 from = (u32)__cvta_generic_to_shared(row);
    if constexpr (TRANSPOSED)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                     : "r"(from)
                     : "memory");
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                     : "r"(from)
                     : "memory");
}

__device__ __forceinline__ void barrier_wait(int number, int threads) {
    asm volatile("bar.sync %0, %1;" : : "r"(number), "r"(threads) : "memory");
}

__device__ __forceinline__ void barrier_arrive(int number, int threads) {
    asm volatile("bar.arrive %0, %1;" : : "r"(number), "r"(threads) : "memory");
}

// Copies of 16 bytes bypass the L1 cache, copies of 8 cannot.
template <int WIDTH> __device__ __forceinline__ void copy_async(void* shared, const void* global, u32 bytes) {
    static_assert(WIDTH == 8 || WIDTH == 16, "copy_async copies 8 or 16 bytes");
    const u32 to = (u32)__cvta_generic_to_shared(shared);
    const u64 from = __cvta_generic_to_global(global);
    if constexpr (WIDTH == 16)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" : : "r"(to), "l"(from), "r"(bytes) : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" : : "r"(to), "l"(from), "r"(bytes) : "memory");
}

__device__ __forceinline__ void copy_async_commit() { asm volatile("cp.async.commit_group;" : : : "memory"); }

template <int GROUPS> __device__ __forceinline__ void copy_async_wait() {
    asm volatile("cp.async.wait_group %0;" : : "n"(GROUPS) : "memory");
}

#endif

#if !defined(BOLTZBENCH_EMULATOR) && __CUDA_ARCH__ >= 900
#define CLUSTER_OF(blocks) __cluster_dims__(blocks, 1, 1)
#else
#define CLUSTER_OF(blocks)
#endif
