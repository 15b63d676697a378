// All sweeps of a Boltzmann machine by colours in one launch, in CUDA C; see reference.py for the model.
//
// Bound by the issue of instructions: states never leave shared memory, and all lanes of a warp read the same links, 8
// bytes each. On sm_90 four links of 32 chains take 22 instructions, among them two loads of links and four of the
// other units' words; four weights of a row of the matrix take 14. Each unit takes some 75 more: its share of a Philox
// call, the test, the ballot, and the search for its links. Predicted, not measured, for an H200 that issues four
// instructions a clock on each of 132 multiprocessors at 1.98 GHz, with chains enough to fill it: 340 updates/ns for up
// to four neighbours, 280 for up to eight, 8 for 1024 units that are all coupled.
//
// Design: a block has 32 chains, one for each lane. The states of a unit are the bits of a word, one for each chain
// (multi-spin coding): a ballot writes the word, and all lanes read it at one address. Units lie in the order of the
// sweep. Each warp draws four neighbouring units of a colour at a time, which share a Philox call in every lane. Where
// colours are small and lists long (if all units are coupled, each colour has one unit), the warps of a block share
// each unit instead and read its row of the matrix, four words in a load. Each warp sums its part of the row, and one
// warp for each unit adds the parts, always in the same order.
#include "philox.cuh"

constexpr int WARPS = 8;
constexpr int QUAD = 4;  // units that share a Philox call

// The same for all threads of a launch.
struct Settings {
    Keys keys;
    i64 chains, first_chain, clamped_stride_chain, clamped_stride_unit;
    double beta;
    i32 units, colours;
    u32 first_step, sweeps, low;
};

// order: (units,), the caller's number of each unit. colours: (colours + 1,), the first unit of each colour. first:
// (units + 1,), the first load of each unit's links. links: two in a load; each holds 4 times the other unit, and the
// bits of the weight. rows: the matrix, (units, units rounded up to a multiple of 4), zero beyond the last unit.
// biases: (units,).
struct Machine {
    const i64* order;
    const i32* colours;
    const i32* first;
    const uint4* links;
    const float4* rows;
    const float* biases;
};

// Adds the weight of a link if its other unit is 1 in the lane's chain. `place`: the byte offset of that unit's word.
__device__ __forceinline__ void add_link(float& sum, const u32* state, u32 place, u32 weight, u32 own_bit) {
    if (*reinterpret_cast<const u32*>(reinterpret_cast<const char*>(state) + place) & own_bit)
        sum += __uint_as_float(weight);
}

// The sum over the links of a unit, four at a time.
__device__ __forceinline__ float sum_of_links(const Machine& machine, const u32* state, int unit, u32 own_bit) {
    const int end = machine.first[unit + 1];
    float even = 0.0f, odd = 0.0f;
#pragma unroll 1
    for (int at = machine.first[unit]; at < end; at += 2) {
        const uint4 a = machine.links[at], b = machine.links[at + 1];
        add_link(even, state, a.x, a.y, own_bit);
        add_link(odd, state, a.z, a.w, own_bit);
        add_link(even, state, b.x, b.y, own_bit);
        add_link(odd, state, b.z, b.w, own_bit);
    }
    return even + odd;
}

// A warp's part of the sum over a row of the matrix: the fours of weights warp, warp + WARPS, ... below `fours`.
__device__ __forceinline__ float part_of_row(const float4* row, const u32* state, int fours, int warp, u32 own_bit) {
    const uint4* const words = reinterpret_cast<const uint4*>(state);
    float even = 0.0f, odd = 0.0f;
#pragma unroll 2
    for (int at = warp; at < fours; at += WARPS) {
        const float4 weight = row[at];
        const uint4 word = words[at];
        if (word.x & own_bit) even += weight.x;
        if (word.y & own_bit) odd += weight.y;
        if (word.z & own_bit) even += weight.z;
        if (word.w & own_bit) odd += weight.w;
    }
    return even + odd;
}

// states, out: (chains, units), bytes `low` and 1. clamped: bool (chains, units), with strides, or null. betas: double
// (chains,), or null for beta. SHARED: all warps work on every unit; otherwise each warp has its own units.
template <bool SHARED>
__global__ void __launch_bounds__(32 * WARPS, 4)
    sweeps_by_colour(const unsigned char* states, unsigned char* out, const i64* order, const i32* colours,
                     const i32* first, const uint4* links, const float4* rows, const float* biases,
                     const unsigned char* clamped, const double* betas,
                     const __grid_constant__ Settings settings) {
    DYNAMIC_SHARED(u32, state);
    __shared__ float parts[SHARED ? QUAD : 1][SHARED ? WARPS : 1][32];
    const Machine machine = {order, colours, first, links, rows, biases};
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32, units = settings.units;
    const int fours = (units + 3) / 4;
    const u32 own_bit = 1u << lane;
    const i64 chain = (i64)blockIdx.x * 32 + lane;
    const bool mine = chain < settings.chains;
    for (int unit = warp; unit < units; unit += warps) {
        const u32 word = __ballot_sync(warp_mask, mine && states[chain * units + order[unit]] == 1);
        if (lane == 0) state[unit] = word;
    }
    const float scale = (float)((betas && mine ? betas[chain] : settings.beta) * -1.4426950408889634);
    const u64 group = (u64)(settings.first_chain + chain) * fours;  // of the first four units

    const bool holds = clamped && mine;
    const unsigned char* held = clamped + chain * settings.clamped_stride_chain;

    // Draws a unit in all 32 chains, from the sum of its links and a random word: u (1 + exp(-x)) < 1, times 2**24.
    const auto draw = [&](int unit, float sum, u32 random) {
        bool up = (float)(random >> 8) * (1.0f + exp2_flushed(scale * (biases[unit] + sum))) < 16777216.0f;
        if (holds && held[order[unit] * settings.clamped_stride_unit]) up = state[unit] & own_bit;
        const u32 word = __ballot_sync(warp_mask, up);
        if (lane == 0) state[unit] = word;
    };
    __syncthreads();  // all states are loaded
    for (u32 sweep = 0; sweep < settings.sweeps; ++sweep) {
        const u32 step = settings.first_step + sweep;
        for (int colour = 0; colour < settings.colours; ++colour) {
            const int begin = colours[colour], end = colours[colour + 1];
            if constexpr (!SHARED) {
                for (int quad = begin / QUAD + warp; quad * QUAD < end; quad += warps) {
                    const Words random = random_words(group + quad, settings.keys, step, STREAM_BOLTZMANN_UNITS);
#pragma unroll
                    for (int i = 0; i < QUAD; ++i) {
                        const int unit = quad * QUAD + i;
                        if (unit >= begin && unit < end)
                            draw(unit, sum_of_links(machine, state, unit, own_bit), random.word[i]);
                    }
                }
                __syncthreads();  // all of a colour is drawn before the next
            } else {
                for (int quad = begin / QUAD; quad * QUAD < end; ++quad) {
#pragma unroll
                    for (int i = 0; i < QUAD; ++i) {
                        const int unit = quad * QUAD + i;
                        if (unit >= begin && unit < end)
                            parts[i][warp][lane] =
                                part_of_row(machine.rows + (i64)unit * fours, state, fours, warp, own_bit);
                    }
                    __syncthreads();  // all parts are written
                    const int unit = quad * QUAD + warp;
                    if (warp < QUAD && unit >= begin && unit < end) {
                        const Words random = random_words(group + quad, settings.keys, step, STREAM_BOLTZMANN_UNITS);
                        const u32 lower = warp & 1 ? random.word[1] : random.word[0];
                        const u32 upper = warp & 1 ? random.word[3] : random.word[2];
                        float sum = 0.0f;
#pragma unroll
                        for (int part = 0; part < WARPS; ++part) sum += parts[warp][part][lane];
                        draw(unit, sum, warp & 2 ? upper : lower);
                    }
                    __syncthreads();  // all units are drawn, so that the parts may be overwritten
                }
            }
        }
    }
    for (int unit = warp; unit < units; unit += warps)
        if (mine) out[chain * units + order[unit]] = state[unit] & own_bit ? 1 : (unsigned char)settings.low;
}
