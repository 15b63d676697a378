// Multi-spin coding: 32 spins to a word, and the comparison of their random numbers with their thresholds bit by bit.
#pragma once

#include "philox.cuh"

constexpr u32 PARTS = 8;  // groups of four random words for a word of spins: 32 bits for each spin
constexpr int BITS = 32;

__device__ __forceinline__ u32 chosen(u32 mask, u32 a, u32 b) { return (mask & a) | (~mask & b); }
__device__ __forceinline__ u32 rotated(u32 word, u32 places) { return __funnelshift_r(word, word, places); }
__device__ __forceinline__ u32 majority(u32 a, u32 b, u32 c) { return (a & b) | (c & (a | b)); }

// Compares four bits of the numbers of the undecided spins with those of their thresholds. A spin flips if its number
// is less: the first bit that differs decides, and if it is the threshold's that is set, the spin flips. While a spin
// is undecided, its bit of `flips` means nothing.
__device__ __forceinline__ void compare(u32& flips, u32& decided, const Words& random, const u32 (&threshold)[4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {  // one LOP3 for either word
        flips = chosen(decided, flips, threshold[i]);
        decided |= threshold[i] ^ random.word[i];
    }
}
