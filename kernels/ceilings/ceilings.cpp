// The limits of a CPU, each driven by a kernel that does nothing else, on all threads.
//
// Bandwidth: several streams of loads for the prefetchers; stores that bypass the caches, since an ordinary one reads the line
// that it overwrites.
//
// Arithmetic: a part of the work is the same on every machine, and a thread takes one part at a time. Within a part, CHAINS
// vectors are independent of each other, enough to hide the latency of a step, and each step needs the one before. The check
// can recompute the results of any part.
#include "machines/binary_products.hpp"
#include "random.hpp"

// ---- memory: in parts of PIECE words

constexpr i64 PIECE = 1 << 18;
constexpr int LANE = LANES<u32>, IN_FLIGHT = 4;
constexpr int STREAMS = 4;  // which the caches fetch ahead, each for itself

INLINE void store_past_caches(u32* to, const U32& x) {  // to an address that is a multiple of BYTES
#if defined(BOLTZBENCH_AVX512)
    _mm512_stream_si512((__m512i*)to, (__m512i)x);
#elif defined(BOLTZBENCH_AVX2)
    _mm256_stream_si256((__m256i*)to, (__m256i)x);
#elif defined(__SSE2__)
    _mm_stream_si128((__m128i*)to, (__m128i)x);
#else
    store(to, x);
#endif
}
INLINE void finish_stores() {
#if defined(__SSE2__)
    _mm_sfence();
#endif
}

// sums: for each part the sum of its words, modulo 2^32. words: a multiple of PIECE, as in all three.
KERNEL void read(const u32* x, i64 words, u32* sums, int threads) {
    parallel(words / PIECE, 1, threads, [&](i64 first, i64 end) {
        for (i64 part = first; part < end; ++part) {
            const u32* const from = x + part * PIECE;
            U32 sum[STREAMS] = {};
            for (i64 i = 0; i < PIECE / STREAMS; i += LANE)
                for (int k = 0; k < STREAMS; ++k) sum[k] += load<U32>(from + i + k * (PIECE / STREAMS));
            sums[part] = ::sum((sum[0] + sum[1]) + (sum[2] + sum[3]));
        }
    });
}

// Word i becomes i * factor modulo 2^32.
KERNEL void write(u32* x, i64 words, i64 factor, int threads) {
    parallel(words / PIECE, 1, threads, [&](i64 first, i64 end) {
        const U32 step = all<u32>(u32(factor) * LANE);
        U32 word = (all<u32>(u32(first * PIECE)) + places<u32>()) * u32(factor);
        for (i64 i = first * PIECE; i < end * PIECE; i += LANE, word += step) store_past_caches(x + i, word);
        finish_stores();
    });
}

KERNEL void copy(const u32* x, i64 words, u32* y, int threads) {
    parallel(words / PIECE, 1, threads, [&](i64 first, i64 end) {
        for (i64 i = first * PIECE; i < end * PIECE; i += IN_FLIGHT * LANE) {
            U32 chunk[IN_FLIGHT];
            for (int k = 0; k < IN_FLIGHT; ++k) chunk[k] = load<U32>(x + i + k * LANE);
            for (int k = 0; k < IN_FLIGHT; ++k) store_past_caches(y + i + k * LANE, chunk[k]);
        }
        finish_stores();
    });
}

// ---- arithmetic: parts of REPEATS units, a unit of ELEMENTS chains

constexpr i64 REPEATS = 64;

// sums: (parts, ELEMENTS), for each chain the sum of its results in all units of the part.
template <class Step> void run_chains(i64 parts, typename Step::Real* sums, int threads) {
    using Real = typename Step::Real;
    using Vector = V<Real>;
    parallel(parts, 1, threads, [&](i64 from, i64 to) {
        for (i64 part = from; part < to; ++part)
            for (int first = 0; first < Step::ELEMENTS; first += Step::CHAINS * LANES<Real>) {
                Vector sum[Step::CHAINS] = {};
                for (i64 unit = part * REPEATS; unit < (part + 1) * REPEATS; ++unit) {
                    Vector x[Step::CHAINS];
                    for (int k = 0; k < Step::CHAINS; ++k)  // exact: 1 + a multiple of 2^-12
                        x[k] = Real(1) + Real(unit & 0xfff) / 4096 +
                               (places<Real>() + Real(first + k * LANES<Real>)) * Real(0.015625);
                    for (int step = 0; step < Step::STEPS; ++step)
                        for (int k = 0; k < Step::CHAINS; ++k) x[k] = Step::of(x[k]);
                    for (int k = 0; k < Step::CHAINS; ++k) sum[k] += x[k];
                }
                for (int k = 0; k < Step::CHAINS; ++k)
                    store(sums + part * Step::ELEMENTS + first + k * LANES<Real>, sum[k]);
            }
    });
}

// x <- x (1 - 2^-10) + 1: slow to converge, so that the check sees a step more or less.
template <class T> struct Fma {
    using Real = T;
    static constexpr int CHAINS = 10, STEPS = 1024, ELEMENTS = 640 / sizeof(Real);
    static INLINE V<Real> of(const V<Real>& x) { return fma(x, all(Real(0.9990234375)), all(Real(1))); }
};

// x <- e^-x: converges to a fixed point, hence the few steps.
struct Exp {
    using Real = float;
    static constexpr int CHAINS = 4, STEPS = 8, ELEMENTS = 64;
    static INLINE F32 of(const F32& x) { return exp(-x); }
};

KERNEL void fma_float32(i64 parts, float* sums, int threads) { run_chains<Fma<float>>(parts, sums, threads); }
KERNEL void fma_float64(i64 parts, double* sums, int threads) { run_chains<Fma<double>>(parts, sums, threads); }
KERNEL void exponentials(i64 parts, float* sums, int threads) { run_chains<Exp>(parts, sums, threads); }

// Three operations of three operands in a step, each an instruction of AVX-512 and two of others.
KERNEL void logic(i64 parts, u32* sums, int threads) {
    constexpr int CHAINS = BYTES == 64 ? 8 : 4, STEPS = 1000, ELEMENTS = 128;
    parallel(parts, 1, threads, [&](i64 from, i64 to) {
        for (i64 part = from; part < to; ++part)
            for (int first = 0; first < ELEMENTS; first += CHAINS * LANE) {
                U32 sum[CHAINS] = {};
                for (i64 unit = part * REPEATS; unit < (part + 1) * REPEATS; ++unit) {
                    U32 a[CHAINS], b[CHAINS], c[CHAINS];
                    for (int k = 0; k < CHAINS; ++k) {
                        const U32 number = all<u32>(u32(unit * ELEMENTS + first + k * LANE)) + places<u32>();
                        a[k] = number * 0x9E3779B9u, b[k] = number * 0xD2511F53u, c[k] = number * 0xCD9E8D57u;
                    }
                    for (int step = 0; step < STEPS; ++step)
                        for (int k = 0; k < CHAINS; ++k) a[k] ^= b[k] & c[k], b[k] ^= c[k] | a[k], c[k] ^= a[k] & ~b[k];
                    for (int k = 0; k < CHAINS; ++k) sum[k] += a[k] + 3 * b[k] + 5 * c[k];
                }
                for (int k = 0; k < CHAINS; ++k) store(sums + part * ELEMENTS + first + k * LANE, sum[k]);
            }
    });
}

// ---- parts of STREAM_GROUPS groups of four random words

constexpr i64 STREAM_GROUPS = 1 << 14;

// sums: for each part the exclusive or of its words.
KERNEL void philox_words(i64 parts, const Keys* keys, u32* sums, int threads) {
    constexpr int AT_ONCE = 2;
    parallel(parts, 1, threads, [&](i64 from, i64 to) {
        const Keys own = *keys;
        for (i64 part = from; part < to; ++part) {
            U64 found = {};
            for (i64 group = part * STREAM_GROUPS; group < (part + 1) * STREAM_GROUPS; group += AT_ONCE * LANES<u64>) {
                Words words[AT_ONCE];
                random_words(words, u64(group), own, 0, STREAM_NOISE);
                for (const Words& each : words) found ^= each.word[0] ^ each.word[1] ^ each.word[2] ^ each.word[3];
            }
            sums[part] = u32(reduce(found, [](u64 a, u64 b) { return a ^ b; }));
        }
    });
}

// sums: for each part the sum of the normal numbers from words i * 0x9E3779B9 modulo 2^32: a logarithm, a square root, a sine
// and a cosine for two.
KERNEL void normal_numbers(i64 parts, float* sums, int threads) {
    parallel(parts, 1, threads, [&](i64 from, i64 to) {
        for (i64 part = from; part < to; ++part) {
            F32 total[2] = {};
            Words words;
            for (int i = 0; i < 4; ++i)
                words.word[i] = ((all<u64>(part * STREAM_GROUPS) + places<u64>()) * 4 + i) * 0x9E3779B9u;
            for (i64 group = 0; group < STREAM_GROUPS; group += LANES<u64>) {
                F32 z[2];
                normals(words, 1.0f, z[0], z[1]);
                for (int i = 0; i < 4; ++i) words.word[i] += all<u64>(0x9E3779B9ull * (4 * LANES<u64>));
                total[0] += z[0], total[1] += z[1];
            }
            sums[part] = sum(total[0] + total[1]);
        }
    });
}

// ---- products of binary states with weights

// product (n, n) of states (n, n), a byte each, and weights (n, n).
KERNEL void binary_product(const u8* states, const float* weights, float* product, i64 n, int threads) {
    const Matrix<float> matrix = {weights, n, n, n, 1};
    binary_products(states, n, false, n, matrix, threads, [&](i64 first_chain, i64 chains, i64 first_unit, const float* sums) {
        const i64 units = std::min<i64>(UNITS, n - first_unit);
        for (i64 i = 0; i < chains; ++i)
            std::memcpy(product + (first_chain + i) * n + first_unit, sums + i * UNITS, units * sizeof(float));
    });
}
