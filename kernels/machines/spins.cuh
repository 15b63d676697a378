// Multi-spin coding: 32 spins to a word, and the comparison of their random numbers with their thresholds bit by bit.
#pragma once

#include "philox.cuh"

constexpr u32 PARTS = 8;  // groups of four random words for a word of spins: 32 bits for each spin
constexpr int BITS = 32;

__device__ __forceinline__ u32 majority(u32 a, u32 b, u32 c) { return (a & b) | (c & (a | b)); }

// Compares four bits of the numbers of the open spins with those of their thresholds. A spin flips if its number is
// less, and stays open if the bits are equal. `threshold_bit(i)` returns bit i of the four, for all spins of the word.
template <class ThresholdBit>
__device__ __forceinline__ void compare(u32& flips, u32& open, const Words& random, const ThresholdBit& threshold_bit) {
    u32 less = 0, equal = open;
#pragma unroll
    for (int i = 3; i >= 0; --i) {  // from the least significant bit, so that each step is one LOP3 for either word
        const u32 threshold = threshold_bit(i), drawn = random.word[i];
        less = (threshold & ~drawn) | (less & ~(threshold ^ drawn));
        equal &= ~(threshold ^ drawn);
    }
    flips |= open & less;
    open = equal;
}
