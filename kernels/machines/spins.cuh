// Multi-spin coding: 32 spins to a word, and the comparison of their random numbers with their thresholds bit by bit.
#pragma once

#include "philox.cuh"

constexpr u32 PARTS = 8;  // groups of four random words for a word of spins: 32 bits for each spin
constexpr int BITS = 32;

__device__ __forceinline__ u32 majority(u32 a, u32 b, u32 c) { return (a & b) | (c & (a | b)); }

// Compares the next four bits of the numbers that are still open. A number that is less than its threshold makes its
// spin flip; one that is equal so far stays open. `threshold_bit(i)` is bit i of each spin's threshold, of the four.
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
