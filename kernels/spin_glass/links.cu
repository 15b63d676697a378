// Annealing of spin glasses with any couplings and fields in CUDA C: all sweeps of a schedule in one launch.
//
// Bound by instructions: spins stay in shared memory, and all lanes of a warp read the same links, two in a load of 16
// bytes. A spin of one walker needs
//   local field   for each link the word of its other spin, a test and an addition of integers
//   number        a quarter of a Philox call
//   probability   2**32 exp(-|dE| / T) by integers: a wide product, a shift, six upper halves of products
// On sm_90 four links of 32 walkers take 29 instructions, and the rest of a spin 68. Predicted, not measured, for an
// H200 that issues four instructions a clock on each of 132 multiprocessors at 1.98 GHz, with walkers enough to fill
// it: 340 flips/ns for up to four links, 80 for 48.
//
// Design: a warp has 32 walkers, one for each lane, and a word for each spin of these. A ballot makes the word, and all
// lanes read it at one address. Sums of integers have no rounding, so that every backend gets the same spins. Where the
// spins of a warp do not fit in shared memory, they stay in `out`.
#include "philox.cuh"

constexpr int WARPS = 8;
constexpr u32 FRACTION_BITS = 26;

// The arguments that all walkers of a launch share. A coupling 1 of the tables is `unit` = 2**-exponent.
struct Settings {
    Keys keys;
    i64 groups, first_walker;
    double unit;
    u32 sites, first_sweep, sweeps;
    i32 exponent;
};

// 2**32 2**-(t / 2**26), at most 2**32 - 1, with the coefficients of links.py.
__device__ __forceinline__ u32 power(u64 t) {
    const u32 x = (u32)t << (32 - FRACTION_BITS);
    u32 value = 468251u;
    value = 5475002u - __umulhi(value, x);
    value = 41142264u - __umulhi(value, x);
    value = 238330987u - __umulhi(value, x);
    value = 1031755804u - __umulhi(value, x);
    value = 2977043973u - __umulhi(value, x);
    value = 4294967295u - __umulhi(value, x);
    return t >> 31 ? 0u : value >> ((u32)t >> FRACTION_BITS);
}

// spins, out: (sites, groups). energies: (32 groups,). first: (sites + 1,), the first load of each spin's links. links:
// two in a load, four in a step; each holds another spin and the coupling. fields: (sites,): the local field without spins +1, and the
// spin's own. rates: (sweeps,), m and e of 2 log2(e) / T = m 2**(e - 32). A warp has a group of 32 walkers.
template <bool HEAT_BATH, bool SHARED>
__global__ void __launch_bounds__(32 * WARPS, HEAT_BATH ? 0 : 4)  // without the 4, NVRTC spills for sm_80
    anneal_links(const u32* spins, u32* out, double* energies, const i32* first, const uint4* links,
                 const uint2* fields, const uint2* rates, const __grid_constant__ Settings settings) {
    DYNAMIC_SHARED(u32, shared);
    const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32, own_bit = 1u << lane, sites = settings.sites;
    const i64 group = (i64)blockIdx.x * (blockDim.x / 32) + warp;
    if (group >= settings.groups) return;
    u32* const state = SHARED ? shared + warp * sites : out + group;
    const i64 stride = SHARED ? 1 : settings.groups;
    for (u32 i = lane; i < sites; i += 32) state[i * stride] = spins[i * settings.groups + group];
    __syncwarp();  // all spins are loaded

    const auto local_field = [&](u32 i) {
        const i32 end = first[i + 1];
        u32 sum = 0;
#pragma unroll 1
        for (i32 at = first[i]; at < end; at += 2) {
            const uint4 a = links[at], b = links[at + 1];
            if (state[a.x * stride] & own_bit) sum += a.y;
            if (state[a.z * stride] & own_bit) sum += a.w;
            if (state[b.x * stride] & own_bit) sum += b.y;
            if (state[b.z * stride] & own_bit) sum += b.w;
        }
        return (i32)(fields[i].x + 2 * sum);
    };
    const u64 walker = settings.first_walker + group * 32 + lane;
    const u32 quads = (sites + 3) / 4;
    for (u32 sweep = 0; sweep < settings.sweeps; ++sweep) {
        const uint2 rate = rates[sweep];
        const i32 wanted = 32 - (i32)FRACTION_BITS + settings.exponent - (i32)rate.y;
        const i32 shift = wanted < 0 ? 0 : wanted > 63 ? 63 : wanted;
        for (u32 quad = 0; quad < quads; ++quad) {
            const Words random =
                random_words(walker * quads + quad, settings.keys, settings.first_sweep + sweep, STREAM_GLASS_LINKS);
#pragma unroll
            for (u32 part = 0; part < 4; ++part) {
                const u32 i = 4 * quad + part, number = random.word[part];
                if (i >= sites) break;
                const i32 field = local_field(i);
                const u32 limit = power(mul_wide(field < 0 ? -field : field, rate.x) >> shift);
                bool up;
                if (HEAT_BATH) {
                    up = (field >= 0) != (number < __umulhi(limit, ~number));
                } else {
                    const bool was = state[i * stride] & own_bit;
                    const bool flips = (was ? field : -field) <= 0 || number < limit;
                    up = was != flips;
                }
                const u32 word = __ballot_sync(warp_mask, up);
                if (lane == 0) state[i * stride] = word;
                __syncwarp();  // the spin is written
            }
        }
    }
    i64 total = 0;  // twice the energy, without its sign
    for (u32 i = 0; i < sites; ++i) {
        const i64 both = (i64)local_field(i) + (i32)fields[i].y;
        const u32 word = state[i * stride];
        total += word & own_bit ? both : -both;
        if (SHARED && lane == 0) out[i * settings.groups + group] = word;
    }
    energies[group * 32 + lane] = -0.5 * settings.unit * (double)total;
}
