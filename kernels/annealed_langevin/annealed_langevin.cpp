// Langevin walkers in the double well on a CPU: a chunk of walkers stays in registers for all steps of the schedule.
//
// A chunk is the walkers of one vector of groups. Bound by instructions: Philox and the Box-Muller transform take most of
// a step.
#include "random.hpp"

struct Settings {
    Keys keys;
    i64 walkers, groups, first_group, offset;  // offset: walkers of the first group that belong to another call
    i64 first_step, steps;
    float factor, threshold;  // -2 eps; the position that a passage reaches
};

constexpr int GROUP = 4, CHUNK = GROUP * LANES<u64>, LANE = LANES<float>;

template <bool PASSAGES>
INLINE void walk_chunk(float* x, i32* passages, const float* scales, i64 group, const Settings& settings) {
    F32 at[2] = {load<F32>(x), load<F32>(x + LANE)};
    I32 passed[2] = {};
    if (PASSAGES) passed[0] = load<I32>(passages), passed[1] = load<I32>(passages + LANE);
    const U64 groups = all<u64>(settings.first_group + group) + places<u64>();
    const F32 factor = all(settings.factor), minus_one = all(-1.0f);
    for (i64 step = 0; step < settings.steps; ++step) {
        const u32 number = u32(settings.first_step + step);
        F32 z[2];
        normals(random_words(groups, settings.keys, number, STREAM_WALKERS), scales[step], z[0], z[1]);
        for (int i = 0; i < 2; ++i) {
            at[i] = fma(factor * at[i], fma(at[i], at[i], minus_one), at[i]) + z[i];
            if (PASSAGES) {
                const I32 first = (passed[i] < 0) & as<I32>(at[i] >= settings.threshold);
                passed[i] = first ? all(i32(number + 1)) : passed[i];
            }
        }
    }
    store(x, at[0]), store(x + LANE, at[1]);
    if (PASSAGES) store(passages, passed[0]), store(passages + LANE, passed[1]);
}

template <bool PASSAGES> void walk(float* x, i32* passages, const float* scales, const Settings& settings, int threads) {
    const i64 chunks = (settings.groups + LANES<u64> - 1) / LANES<u64>;
    parallel(chunks, 32, threads, [&](i64 from, i64 to) {
        for (i64 chunk = from; chunk < to; ++chunk) {
            const i64 group = chunk * LANES<u64>, first = group * GROUP - settings.offset;
            if (first >= 0 && first + CHUNK <= settings.walkers) {
                walk_chunk<PASSAGES>(x + first, PASSAGES ? passages + first : nullptr, scales, group, settings);
                continue;
            }
            float some[CHUNK] = {};
            i32 passed[CHUNK] = {};
            const i64 begin = first < 0 ? -first : 0;
            const i64 end = settings.walkers - first < CHUNK ? settings.walkers - first : CHUNK;
            for (i64 i = begin; i < end; ++i) some[i] = x[first + i], passed[i] = PASSAGES ? passages[first + i] : 0;
            walk_chunk<PASSAGES>(some, passed, scales, group, settings);
            for (i64 i = begin; i < end; ++i) {
                x[first + i] = some[i];
                if (PASSAGES) passages[first + i] = passed[i];
            }
        }
    });
}

// x: (walkers,), in place. passages: (walkers,), in place, or null. scales: (steps,).
KERNEL void walk_all(float* x, i32* passages, const float* scales, const Settings* settings, int threads) {
    if (passages) walk<true>(x, passages, scales, *settings, threads);
    else walk<false>(x, passages, scales, *settings, threads);
}
