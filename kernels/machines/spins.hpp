// Multi-spin coding on vectors: 32 spins to a word, and the comparison of their random numbers with thresholds bit by bit.
#pragma once
#include "random.hpp"

constexpr u32 PARTS = 8;  // groups of four random words for a word of spins: 32 bits for each spin
constexpr int BITS = 32;

INLINE U32 majority(const U32& a, const U32& b, const U32& c) { return (a & b) | (c & (a | b)); }

// Four random words for each of LANES<u32> words of spins, from the groups of the even and of the odd ones.
INLINE void random_bits(U64 even, U64 odd, const Keys& keys, u32 step, u32 stream, U32* words) {
    Words half[2];
    random_words(half, {even, odd}, keys, step, stream);
    for (int i = 0; i < 4; ++i) words[i] = paired(half[0].word[i], half[1].word[i]);
}

// Compares four bits of the numbers of the open spins with those of their thresholds. A spin flips if its number is
// less, and stays open if the bits are equal. `threshold_bit(i)` returns bit i of the four, for all spins of the words.
template <class ThresholdBit>
INLINE void compare(U32& flips, U32& open, const U32* random, const ThresholdBit& threshold_bit) {
    U32 less = {}, equal = open;
    for (int i = 3; i >= 0; --i) {
        const U32 threshold = threshold_bit(i), same = ~(threshold ^ random[i]);
        less = (threshold & ~random[i]) | (less & same);
        equal &= same;
    }
    flips |= open & less;
    open = equal;
}
