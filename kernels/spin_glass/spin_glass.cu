// Annealing of spin glasses of few bonds in CUDA C, 32 walkers at a time: all sweeps of a schedule in one launch.
//
// Bound by instructions: spins stay in shared memory if they fit, and one spin of 32 walkers needs
//   neighbours   for two bonds a full adder and two half adders, which add words with signs to bit planes
//   numbers      Philox-10: 20 wide products and 20 LOP3 for 4 bits of all 32 walkers
//   comparison   of each random number with the threshold of its cost, from the most significant bit on, until all
//                numbers are decided, as in ising.cu. The planes select the bit of the threshold.
// On sm_90 and by the heat bath a group of four bits of 32 walkers takes 68 instructions, and the rest of a spin of 4
// bonds 78. The mean over warps is 3.22 groups; some 169 of the 297 instructions use the alu pipe. Predicted, not
// measured, for an H200 with 3.2 million walkers, enough for 24 warps on each multiprocessor: at best 3170 flips/ns by
// that pipe; expected 2440 (2070 to 2870). Metropolis: 62, 77, 159 of 277; 3360 and 2610 (2220 to 3080). To beat: 250
// flips/ns on an A100 (arXiv 2402.03920).
//
// By the heat bath a spin ends along its field, unless its number is less than the threshold of |dE|: one threshold
// serves a flip and its reverse, so that there are as many as for Metropolis, and one more for dE = 0.
//
// Design: a thread has 32 walkers of its own, so that threads wait only for the masks of a temperature. Word i of a
// thread lies beside those of its neighbours, so that a warp's accesses have no bank conflicts. All threads update the
// same spin at the same time, so that bonds and masks are broadcast. Satisfied bonds are counted in bit planes, too.
#include "machines/spins.cuh"

// Bit planes of a number from -1 - B / 2 to (B - 1) / 2 in two's complement. B, the most bonds of a spin, is 4 for 2
// or 3 classes and 2 CLASSES - 1 otherwise.
template <int CLASSES> constexpr int PLANES = CLASSES <= 4 ? 3 : CLASSES == 8 ? 4 : 5;
// Bit planes of the satisfied bonds of a glass, each counted for both of its spins: see bonds.MOST_BONDS.
constexpr int COUNT_PLANES = 17;
// Of a spin in the memory of a thread.
template <bool SHARED> struct PlaceOf {
    using type = u32;
};
template <> struct PlaceOf<false> {
    using type = i64;
};
template <bool SHARED> using Place = typename PlaceOf<SHARED>::type;
constexpr u32 TABLE_CLASSES = 16;  // of a row of the table
// Padded for vector loads.
template <int CLASSES> struct __align__(CLASSES == 2 ? 8 : 16) Masks {
    u32 of[CLASSES == 3 ? 4 : CLASSES];
};
struct __align__(8) Pair {
    u32 first, second;  // 2 neighbour + (J > 0)
};

// The arguments that all walkers of a launch share.
struct Settings {
    Keys keys;
    i64 groups, first_group;
    u32 sites, pairs;  // pairs of bonds of each site
    u32 first_sweep, sweeps;
    u32 bonds;
};

// The bit of the threshold of each of 32 walkers, selected by the planes of its class.
template <int CLASSES> __device__ __forceinline__ u32 picked(const u32* mask, const u32* plane) {
    if constexpr (CLASSES == 1) {
        return mask[0];
    } else if constexpr (CLASSES == 3) {
        return (picked<2>(mask, plane) & ~plane[1]) | (mask[2] & plane[1]);
    } else {
        constexpr int HALF = CLASSES / 2;
        const u32 low = picked<HALF>(mask, plane), high = picked<HALF>(mask + HALF, plane);
        const u32 choice = plane[CLASSES == 2 ? 0 : CLASSES == 4 ? 1 : CLASSES == 8 ? 2 : 3];
        return (low & ~choice) | (high & choice);
    }
}

// spins, out: (sites, groups). energies: (32 groups,). pairs: (sites, pairs). starts: (sites,). table: (sweeps, 2,
// TABLE_CLASSES). A thread has a group. In shared memory: the masks of a temperature, and if SHARED the pairs, the
// starts, and the spins of a block; otherwise these are read where they are, and the spins are those of `out`.
template <int CLASSES, bool HEAT_BATH, bool SHARED>
__global__ void __launch_bounds__(128, SHARED ? 0 : 8)  // without the 8, NVRTC spills to save registers
    anneal_bonds(const u32* spins, u32* out, double* energies, const u32* pairs, const u32* starts, const u32* table,
                 const __grid_constant__ Settings settings) {
    const u32 threads = blockDim.x, pairs_of_a_site = CLASSES <= 3 ? 2 : settings.pairs;
    DYNAMIC_SHARED(Masks<CLASSES>, masks);
    Pair* const own_bonds = reinterpret_cast<Pair*>(masks + 2 * BITS);
    u32* const own_starts = reinterpret_cast<u32*>(own_bonds + settings.sites * pairs_of_a_site);
    const i64 group = (i64)blockIdx.x * threads + threadIdx.x;
    const bool mine = group < settings.groups;
    const Place<SHARED> stride = SHARED ? threads : settings.groups;  // from a spin to the next
    u32* const own = SHARED ? own_starts + settings.sites + threadIdx.x : out + group;
    const Pair* const bonds = SHARED ? own_bonds : reinterpret_cast<const Pair*>(pairs);
    const u32* const begin = SHARED ? own_starts : starts;
    for (u32 i = threadIdx.x; SHARED && i < 2 * settings.sites * pairs_of_a_site; i += threads)
        reinterpret_cast<u32*>(own_bonds)[i] = pairs[i];
    for (u32 i = threadIdx.x; SHARED && i < settings.sites; i += threads) own_starts[i] = starts[i];
#pragma unroll 1
    for (u32 i = 0; (SHARED || mine) && i < settings.sites; ++i)
        own[i * stride] = mine ? spins[i * settings.groups + group] : 0;

    // Adds the satisfied bonds among the k-th pair of a spin to the planes.
    const auto add_pair = [&](u32 i, u32 k, u32 spin, u32 (&plane)[5]) {
        const Pair pair = bonds[i * pairs_of_a_site + k];
        const u32 a = spin ^ own[(pair.first >> 1) * stride] ^ (0u - (pair.first & 1));
        const u32 b = spin ^ own[(pair.second >> 1) * stride] ^ (0u - (pair.second & 1));
        u32 carry = majority(plane[0], a, b);
        plane[0] ^= a ^ b;
#pragma unroll
        for (int p = 1; p < PLANES<CLASSES>; ++p) {
            const u32 next = plane[p] & carry;
            plane[p] ^= carry;
            carry = next;
        }
    };
    const u64 first = (u64)(settings.first_group + group) * settings.sites * PARTS;
    for (u32 sweep = 0; sweep < settings.sweeps; ++sweep) {
        __syncthreads();
        for (u32 i = threadIdx.x; i < 2 * BITS * CLASSES; i += threads) {
            const u32 kind = i % CLASSES, odd = i / CLASSES % 2, bit = i / (2 * CLASSES);
            const u32 threshold = table[((u64)sweep * 2 + odd) * TABLE_CLASSES + kind];
            masks[odd * BITS + bit].of[kind] = 0u - (threshold >> (BITS - 1 - bit) & 1);
        }
        __syncthreads();
        for (u32 i = 0; mine && i < settings.sites; ++i) {
            const u32 spin = own[i * stride];
            const u32 start = begin[i];  // the lowest bit: whether the number of bonds is odd
            u32 plane[5];
#pragma unroll
            for (int p = 0; p < PLANES<CLASSES>; ++p) plane[p] = 0u - (start >> (p + 1) & 1);
#pragma unroll
            for (u32 k = 0; k < pairs_of_a_site; ++k) add_pair(i, k, spin, plane);
            const u32 cheap = plane[PLANES<CLASSES> - 1];  // a negative number: the flip does not raise the energy
            u32 flips = HEAT_BATH ? 0u : cheap, decided = flips;
            if (HEAT_BATH) {  // the class of |dE|: the number's complement, or for an even number of bonds one more
                u32 carry = (start & 1) ? 0u : ~cheap;
#pragma unroll
                for (int p = 0; p < PLANES<CLASSES> - 1; ++p) {
                    const u32 bit = plane[p] ^ cheap;
                    plane[p] = bit ^ carry;
                    carry &= bit;
                }
            }
            const Masks<CLASSES>* const of = masks + (start & 1) * BITS;
            for (u32 part = 0; part < PARTS && ~decided; ++part) {
                const Words random = random_words(first + i * PARTS + part, settings.keys, settings.first_sweep + sweep,
                                                  STREAM_GLASS_SITES);
                u32 threshold[4];
#pragma unroll
                for (int bit = 0; bit < 4; ++bit) {
                    const Masks<CLASSES> mask = of[4 * part + bit];
                    threshold[bit] = picked<CLASSES>(mask.of, plane);
                }
                compare(flips, decided, random, threshold);
            }
            flips &= decided;
            own[i * stride] = spin ^ (HEAT_BATH ? flips ^ cheap : flips);
        }
    }
    if (!mine) return;
    u32 count[COUNT_PLANES] = {};
#pragma unroll 1
    for (u32 i = 0; i < settings.sites; ++i) {
        const u32 spin = own[i * stride];
        if (SHARED) out[i * settings.groups + group] = spin;
        u32 plane[5] = {}, carry = 0;
#pragma unroll 1
        for (u32 k = 0; k < pairs_of_a_site; ++k) add_pair(i, k, spin, plane);
#pragma unroll
        for (int p = 0; p < COUNT_PLANES; ++p) {
            const u32 bit = p < PLANES<CLASSES> ? plane[p] : 0, next = majority(count[p], bit, carry);
            count[p] ^= bit ^ carry;
            carry = next;
        }
    }
#pragma unroll
    for (u32 walker = 0; walker < 32; ++walker) {
        u32 satisfied = 0;
#pragma unroll
        for (int p = 0; p < COUNT_PLANES; ++p) satisfied |= (count[p] >> walker & 1) << p;
        energies[group * 32 + walker] = (double)((i32)settings.bonds - (i32)satisfied);
    }
}
