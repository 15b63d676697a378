// Langevin walkers in the double well on a CPU: a chunk of walkers stays in registers for all steps of the schedule.
//
// A chunk is the walkers of two vectors of groups. Bound by instructions: Philox and the Box-Muller transform take most of
// a step.
#include "random.hpp"

struct Settings {
    Keys keys;
    i64 walkers, groups, first_group, offset;  // offset: walkers of the first group that belong to another call
    i64 first_step, steps;
    float factor, threshold;  // -2 eps; the position that a passage reaches
};

constexpr int GROUP = 4, LANE = LANES<float>, HALVES = 2, PARTS = 2 * HALVES;  // a half is a vector of groups
constexpr int GROUPS = HALVES * LANES<u64>, CHUNK = GROUP * GROUPS;

template <bool PASSAGES>
INLINE void walk_chunk(float* x, i32* passages, const float* scales, i64 group, const Settings& settings) {
    F32 at[PARTS];
    I32 passed[PARTS];
    for (int i = 0; i < PARTS; ++i) at[i] = load<F32>(x + i * LANE);
    if (PASSAGES)
        for (int i = 0; i < PARTS; ++i) passed[i] = load<I32>(passages + i * LANE);
    const F32 factor = all(settings.factor), minus_one = all(-1.0f);
    for (i64 step = 0; step < settings.steps; ++step) {
        const u32 number = u32(settings.first_step + step);
        Words words[HALVES];
        random_words(words, u64(settings.first_group + group), settings.keys, number, STREAM_WALKERS);
        F32 z[PARTS];
        for (int half = 0; half < HALVES; ++half) normals(words[half], scales[step], z[2 * half], z[2 * half + 1]);
        for (int i = 0; i < PARTS; ++i) {
            at[i] = fma(factor * at[i], fma(at[i], at[i], minus_one), at[i]) + z[i];
            if (PASSAGES) {
                const I32 first = (passed[i] < 0) & as<I32>(at[i] >= settings.threshold);
                passed[i] = first ? all(i32(number + 1)) : passed[i];
            }
        }
    }
    for (int i = 0; i < PARTS; ++i) store(x + i * LANE, at[i]);
    if (PASSAGES)
        for (int i = 0; i < PARTS; ++i) store(passages + i * LANE, passed[i]);
}

template <bool PASSAGES> void walk(float* x, i32* passages, const float* scales, const Settings& settings, int threads) {
    const i64 chunks = (settings.groups + GROUPS - 1) / GROUPS;
    parallel(chunks, 32, threads, [&](i64 from, i64 to) {
        for (i64 chunk = from; chunk < to; ++chunk) {
            const i64 group = chunk * GROUPS, first = group * GROUP - settings.offset;
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
