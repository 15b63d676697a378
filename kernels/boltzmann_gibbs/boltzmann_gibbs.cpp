// All sweeps of a Boltzmann machine on a CPU, a vector of chains at a time; see reference.py for the model.
//
// A sweep draws the units one by one, in the order of the machine: those of a colour are not coupled, so they may as well be
// drawn at once. A block of chains stays in the caches for all sweeps.
//
// Few bonds: states are floats 0 and 1, and a link is one fused multiply-add of a vector of chains. Bound by instructions, most
// of them the draw's: half a Philox call of LANES<u64> groups, and an exponential.
// Many bonds: the tables of machines/binary_products.hpp sum over the units outside of a block of 32, a quarter of an addition
// for each coupling and chain; multiply-adds sum over those in the block, which change while it is drawn.
#include "machines/binary_products.hpp"
#include "random.hpp"

// See prepared.py and request.py. `rows`: weights, (units, row_stride). `bytes`: of either state of a unit.
struct Settings {
    const u8* states;
    u8* out;
    const u8* clamped;
    const double* betas;
    const i64* order;
    const i32* first;
    const i32* links;
    const float* rows;
    const float* biases;
    i64 chains, units, row_stride, clamped_strides[2], first_chain, sweeps;
    double beta;
    Keys keys;
    u32 first_step;
    u8 bytes[2];
};

constexpr int LANE = LANES<float>;
constexpr int MOST_PARTS = 4;  // vectors of chains of a block, where bonds are few

// What the draws of a vector of chains need, the first of which is number `chain`.
struct Draws {
    const Settings& settings;
    U64 even, odd;  // the first group of chains 0, 2, ... and 1, 3, ...
    F32 minus_beta;
    std::vector<u32> held;  // for each unit a bit for each chain that keeps its state; empty if none does

    Draws(const Settings& settings, i64 chain) : settings(settings) {
        const i64 some = std::min<i64>(LANE, settings.chains - chain);
        const u64 groups = u64(settings.units + 3) / 4;
        for (int i = 0; i < LANES<u64>; ++i) {
            even[i] = u64(settings.first_chain + chain + 2 * i) * groups;
            odd[i] = even[i] + groups;
        }
        for (int i = 0; i < LANE; ++i)
            minus_beta[i] = -float(settings.betas ? settings.betas[chain + std::min<i64>(i, some - 1)] : settings.beta);
        if (!settings.clamped) return;
        held.resize(settings.units);
        for (i64 unit = 0; unit < settings.units; ++unit)
            for (i64 i = 0; i < some; ++i)
                held[unit] |= u32(settings.clamped[(chain + i) * settings.clamped_strides[0] +
                                                   settings.order[unit] * settings.clamped_strides[1]]) << i;
    }
    // The numbers in [0, 1) of four units.
    INLINE void uniforms(i64 quad, u32 step, F32* u) const {
        Words half[2];
        random_words(half, {even + u64(quad), odd + u64(quad)}, settings.keys, step, STREAM_BOLTZMANN_UNITS);
        for (int i = 0; i < 4; ++i) u[i] = uniform_of(paired(half[0].word[i], half[1].word[i]));
    }
    // The new states of a unit from the sums over its links.
    INLINE F32 draw(i64 unit, const F32& sum, const F32& u, const F32& old) const {
        const F32 odds = 1.0f + exp(minus_beta * (settings.biases[unit] + sum));
        const F32 drawn = u * odds < 1.0f ? all(1.0f) : all(0.0f);
        if (held.empty()) return drawn;
        return ((all(held[unit]) >> places<u32>()) & 1u) != 0u ? old : drawn;
    }
};

// f(chain, unit, its place in the caller's tensors) for all units of `count` chains. A few units of all chains at a time, so
// that neither side leaves the cache.
template <class F> INLINE void each_state(const Settings& settings, i64 first, i64 count, F f) {
    for (i64 begin = 0; begin < settings.units; begin += 64)
        for (i64 chain = 0; chain < count; ++chain)
            for (i64 unit = begin; unit < std::min(begin + 64, settings.units); ++unit)
                f(chain, unit, (first + chain) * settings.units + settings.order[unit]);
}

// All sweeps of chains [first, first + count), at most PARTS vectors of them.
template <int PARTS> void advance_by_links(const Settings& settings, i64 first, i64 count) {
    const i64 units = settings.units;
    std::vector<F32> state(units * PARTS);  // [unit][part]
    std::vector<Draws> draws;
    for (int k = 0; k < PARTS; ++k) draws.emplace_back(settings, std::min(first + k * LANE, settings.chains - 1));
    float* const numbers = reinterpret_cast<float*>(state.data());
    const float number_of[2] = {0, 1};  // states are random: a table takes less time than a branch
    each_state(settings, first, count, [&](i64 chain, i64 unit, i64 place) {
        numbers[unit * (PARTS * LANE) + chain] = number_of[settings.states[place] == 1];
    });
    for (i64 sweep = 0; sweep < settings.sweeps; ++sweep)
        for (i64 quad = 0; 4 * quad < units; ++quad) {
            F32 u[PARTS][4];
            for (int k = 0; k < PARTS; ++k) draws[k].uniforms(quad, u32(settings.first_step + sweep), u[k]);
            for (int i = 0; i < 4 && 4 * quad + i < units; ++i) {
                const i64 unit = 4 * quad + i;
                F32 sum[PARTS] = {};
                for (i64 at = 2 * i64(settings.first[unit]); at < 2 * i64(settings.first[unit + 1]); ++at) {
                    const F32* const other = state.data() + i64(settings.links[2 * at] / 4) * PARTS;
                    const F32 weight = all(as<float>(settings.links[2 * at + 1]));
                    for (int k = 0; k < PARTS; ++k) sum[k] = fma(weight, other[k], sum[k]);
                }
                for (int k = 0; k < PARTS; ++k) {
                    F32& own = state[unit * PARTS + k];
                    own = draws[k].draw(unit, sum[k], u[k][i], own);
                }
            }
        }
    each_state(settings, first, count, [&](i64 chain, i64 unit, i64 place) {
        settings.out[place] = settings.bytes[int(numbers[unit * (PARTS * LANE) + chain])];
    });
}

// All sweeps of chains [first, first + count), at most CHAINS of them.
void advance_by_tables(const Settings& settings, i64 first, i64 count) {
    const i64 units = settings.units, parts = (count + LANE - 1) / LANE;
    const Matrix<float> matrix = {settings.rows, units, units, settings.row_stride, 1};
    Subsets subsets(count, units);
    std::vector<Draws> draws;
    for (i64 k = 0; k < parts; ++k) draws.emplace_back(settings, first + k * LANE);
    each_state(settings, first, count, [&](i64 chain, i64 unit, i64 place) {
        subsets.at(chain)[unit / BITS] |= u8((settings.states[place] == 1) << unit % BITS);
    });
    std::vector<float> sums(parts * LANE * UNITS);
    for (i64 sweep = 0; sweep < settings.sweeps; ++sweep)
        for (i64 begin = 0; begin < units; begin += UNITS) {
            const i64 own_units = std::min<i64>(UNITS, units - begin), group = begin / BITS;
            const i64 own_groups = (own_units + BITS - 1) / BITS;
            u8 own[CHAINS][UNITS / BITS] = {};
            for (i64 i = 0; i < count; ++i) {
                std::memcpy(own[i], subsets.at(i) + group, own_groups);
                std::memset(subsets.at(i) + group, 0, own_groups);
            }
            sum_block(subsets.at(0), subsets.padded, subsets.groups, count, matrix, begin, sums.data());
            for (i64 k = 0; k < parts; ++k) {
                F32 state[UNITS] = {};
                for (i64 i = k * LANE; i < std::min(count, (k + 1) * LANE); ++i)
                    for (i64 unit = 0; unit < own_units; ++unit)
                        state[unit][i % LANE] = own[i][unit / BITS] >> unit % BITS & 1;
                for (i64 quad = 0; quad < own_groups; ++quad) {
                    F32 u[4];
                    U32 word = {};
                    draws[k].uniforms(group + quad, u32(settings.first_step + sweep), u);
                    for (i64 i = 0; i < 4 && 4 * quad + i < own_units; ++i) {
                        const i64 unit = 4 * quad + i;
                        const float* const row = settings.rows + (begin + unit) * settings.row_stride + begin;
                        F32 sum;
                        for (int lane = 0; lane < LANE; ++lane) sum[lane] = sums[(k * LANE + lane) * UNITS + unit];
                        for (i64 other = 0; other < own_units; ++other) sum = fma(all(row[other]), state[other], sum);
                        state[unit] = draws[k].draw(begin + unit, sum, u[i], state[unit]);
                        word |= as<U32>(state[unit] != 0.0f) & u32(1 << i);
                    }
                    for (i64 i = k * LANE; i < std::min(count, (k + 1) * LANE); ++i)
                        subsets.at(i)[group + quad] = u8(word[i % LANE]);
                }
            }
        }
    each_state(settings, first, count, [&](i64 chain, i64 unit, i64 place) {
        settings.out[place] = settings.bytes[subsets.at(chain)[unit / BITS] >> unit % BITS & 1];
    });
}

KERNEL void advance(const Settings* settings, i64 by_tables, int threads) {
    const i64 vectors = (settings->chains + LANE - 1) / LANE, share = (vectors + threads - 1) / threads;
    const auto split = [&](i64 parts, const auto& run) {
        parallel(settings->chains, parts * LANE, threads, [&](i64 first, i64 end) {
            for (i64 at = first; at < end; at += parts * LANE) run(*settings, at, std::min<i64>(parts * LANE, end - at));
        });
    };
    if (by_tables) split(std::min<i64>(share, CHAINS / LANE), advance_by_tables);
    else if (share > 2) split(MOST_PARTS, advance_by_links<MOST_PARTS>);
    else if (share > 1) split(2, advance_by_links<2>);
    else split(1, advance_by_links<1>);
}
