// The random stream on vectors: Philox4x32-10, and normal numbers from it. philox.py explains the counter.
//
// A counter has a lane of 64 bits, in whose low half a word is kept: one multiplication gives both halves of a product
// where the next round wants them. A round is two multiplications, two shifts and two exclusive ors of three operands.
#pragma once
#include "functions.hpp"

struct Keys {  // of the ten rounds, as philox.round_keys gives them
    u32 low[10], high[10];
};

struct Words {  // of LANES<u64> groups: word w of each, in the low halves
    U64 word[4];
};

// Replaces counters by their words. A round waits for the one before; those of several counters overlap.
template <int COUNT> INLINE void philox(Words (&counters)[COUNT], const Keys& keys) {
    for (int round = 0; round < 10; ++round) {
        U64 product0[COUNT], product1[COUNT];
        for (int i = 0; i < COUNT; ++i) {
            product0[i] = multiply_low_halves(counters[i].word[0], all<u64>(0xD2511F53u));
            product1[i] = multiply_low_halves(counters[i].word[2], all<u64>(0xCD9E8D57u));
        }
        for (int i = 0; i < COUNT; ++i) {
            U64* const c = counters[i].word;
            c[0] = (product1[i] >> 32) ^ c[1] ^ all<u64>(keys.low[round]);
            c[1] = product1[i];
            c[2] = (product0[i] >> 32) ^ c[3] ^ all<u64>(keys.high[round]);
            c[3] = product0[i];
        }
    }
}

INLINE Words counter_of(U64 group, u32 step, u32 stream, u32 tensor) {
    return {{group, group >> 32, all<u64>(step), all<u64>(stream | tensor << 8)}};
}

// The words of LANES<u64> groups.
INLINE Words random_words(U64 group, const Keys& keys, u32 step, u32 stream, u32 tensor = 0) {
    Words words[] = {counter_of(group, step, stream, tensor)};
    philox(words, keys);
    return words[0];
}

// The words of several vectors of groups; quicker than one vector after the other.
template <int COUNT>
INLINE void random_words(Words (&words)[COUNT], const U64 (&groups)[COUNT], const Keys& keys, u32 step, u32 stream,
                         u32 tensor = 0) {
    for (int i = 0; i < COUNT; ++i) words[i] = counter_of(groups[i], step, stream, tensor);
    philox(words, keys);
}
// The same of COUNT * LANES<u64> groups in sequence.
template <int COUNT>
INLINE void random_words(Words (&words)[COUNT], u64 first_group, const Keys& keys, u32 step, u32 stream, u32 tensor = 0) {
    U64 groups[COUNT];
    for (int i = 0; i < COUNT; ++i) groups[i] = all<u64>(first_group + i * LANES<u64>) + places<u64>();
    random_words(words, groups, keys, step, stream, tensor);
}

// Two vectors of words as one of 32 bits: a0 b0 a1 b1 ...
INLINE U32 paired(const U64& a, const U64& b) { return as<U32>((a & 0xffffffffu) | (b << 32)); }

// The words of one vector of groups in their order: those of group 0, of group 1, ...; two vectors.
INLINE void in_order(const Words& words, U32& low, U32& high) {
    const U64 front = as<U64>(paired(words.word[0], words.word[1])), back = as<U64>(paired(words.word[2], words.word[3]));
#if defined(BOLTZBENCH_AVX512)
    const __m512i first = _mm512_setr_epi64(0, 8, 1, 9, 2, 10, 3, 11), second = _mm512_setr_epi64(4, 12, 5, 13, 6, 14, 7, 15);
    low = (U32)_mm512_permutex2var_epi64((__m512i)front, first, (__m512i)back);
    high = (U32)_mm512_permutex2var_epi64((__m512i)front, second, (__m512i)back);
#else
    u64 part[2 * LANES<u64>];
    for (int i = 0; i < LANES<u64>; ++i) part[2 * i] = front[i], part[2 * i + 1] = back[i];
    low = load<U32>(part), high = load<U32>(part + LANES<u64>);
#endif
}

// The numbers in [0, 1) for the test `u < p`: the upper 24 bits.
INLINE F32 uniform_of(U32 word) { return __builtin_convertvector(as<I32>(word >> 8), F32) * 5.9604644775390625e-08f; }

// sqrt(-2 log f) for the uniform number f = (word + 1/2) / 2^32. `log2` is exact to a few units of 2^-24 of its result near
// 1 as well, since f - 1 is exact there.
INLINE F32 radius_of(U32 word) {
    const F32 f = fma(__builtin_convertvector(word, F32), all(2.3283064365386963e-10f), all(1.1641532182693481e-10f));
    return square_root(-1.3862943611f * log2(f));
}
INLINE F64 radius_of(F64 word) {
    return square_root(-2.0 * each(fma(word, all(2.3283064365386963e-10), all(1.1641532182693481e-10)),
                                   [](double f) { return std::log(f); }));
}

// sin(pi t) / t and cos(pi t) for |t| <= 1/2, as polynomials of t^2.
INLINE F32 sine_of_half_turns(F32 t2) {
    return polynomial(t2, 3.14159258057, -5.16770690021, 2.55003164095, -0.598046450795, 0.0772222496608);
}
INLINE F32 cosine_of_half_turns(F32 t2) {
    return polynomial(t2, 1.0, -4.93480215625, 4.058709605, -1.33521616097, 0.234954171213, -0.0244210786439);
}
INLINE F64 sine_of_half_turns(F64 t2) {
    return polynomial(t2, 3.14159265358979323, -5.16771278004996856, 2.55016403987724191, -0.599264529317470772,
                      0.0821458865534378935, -0.00737043035711239479, 0.000466299174984444486,
                      -0.0000219020311213810894, 7.6840271058548026e-7);
}
INLINE F64 cosine_of_half_turns(F64 t2) {
    return polynomial(t2, 1.0, -4.93480220054467931, 4.05871212641676767, -1.33526276885455909, 0.235330630358067704,
                      -0.0258068913773418004, 0.00192957419193048453, -0.000104637433938787578,
                      4.30075860721754515e-6, -1.34381261063257999e-7);
}

// The normal numbers of LANES<u64> groups, times `scale`, in the order of the elements: 4 LANES<u64> of them, by Box and
// Muller from words 0 and 1, and 2 and 3. The angle is 2 pi (word + 1/2) / 2^32: see philox.cuh.
INLINE void normals(const Words& words, float scale, F32& low, F32& high) {
    const U32 radii = paired(words.word[0], words.word[2]), angles = paired(words.word[1], words.word[3]);
    const U32 doubled = angles << 1;
    const F32 radius = as<F32>(as<U32>(scale * radius_of(radii)) ^ ((angles ^ doubled) & 0x80000000u));
    const F32 half = all(2.3283064365386963e-10f);
    const F32 t = fma(__builtin_convertvector(as<I32>(doubled), F32), half, half), t2 = t * t;
    interleave(radius * cosine_of_half_turns(t2), radius * (t * sine_of_half_turns(t2)), low, high);
}

// The same in double, as four vectors.
INLINE void normals(const Words& words, double scale, F64* z) {
    F64 both[4];
    for (int pair = 0; pair < 2; ++pair) {
        const U64 radii = words.word[2 * pair] & 0xffffffffu, angles = words.word[2 * pair + 1] & 0xffffffffu;
        const U64 flip = ((angles ^ angles << 1) & 0x80000000u) << 32;
        const F64 word = __builtin_convertvector(radii, F64);
        const F64 radius = as<F64>(as<U64>(scale * radius_of(word)) ^ flip);
        const F64 doubled = __builtin_convertvector(as<I64>(angles << 33) >> 32, F64), half = all(2.3283064365386963e-10);
        const F64 t = fma(doubled, half, half), t2 = t * t;
        both[2 * pair] = radius * cosine_of_half_turns(t2), both[2 * pair + 1] = radius * (t * sine_of_half_turns(t2));
    }
    double part[4 * LANES<double>];
    for (int i = 0; i < LANES<double>; ++i)
        for (int k = 0; k < 4; ++k) part[4 * i + k] = both[k][i];
    for (int k = 0; k < 4; ++k) z[k] = load<F64>(part + k * LANES<double>);
}
