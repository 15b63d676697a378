// A round of replica exchange on all ladders on a CPU; see reference.py for the rule.
//
// Bound by instructions: a rung takes a quarter of a Philox call, and a pair an exponential, both in vectors. Energies are
// read through the replicas' numbers, one by one.
#include <algorithm>

#include "random.hpp"

constexpr int PLACES = 4 * LANES<u64>;  // rungs whose random numbers a vector of groups holds

// replica_at, new_replica_at, accepted: (ladders, rungs); energies: (ladders, rungs), by replica; betas: (rungs).
KERNEL void swap(const i32* replica_at, const double* energies, const double* betas, i32* new_replica_at, i32* accepted,
                 i64 total, i64 rungs, i64 first_ladder, const Keys* keys, i64 step, int threads) {
    const i64 first_number = first_ladder * rungs, first_group = first_number / 4;
    const i64 chunks = (first_number % 4 + total + PLACES - 1) / PLACES;
    parallel(chunks, 64, threads, [&](i64 from, i64 to) {
        for (i64 chunk = from; chunk < to; ++chunk) {
            const i64 group = first_group + chunk * LANES<u64>;
            const i64 first = std::max<i64>(0, 4 * group - first_number);
            const i64 end = std::min(total, 4 * group - first_number + PLACES);
            U32 words[2];
            in_order(random_words(all(u64(group)) + places<u64>(), *keys, u32(step), STREAM_SWAP), words[0], words[1]);
            float u[PLACES];
            for (int i = 0; i < 2; ++i)
                store(u + i * LANES<u32>, uniform_of(words[i]));
            double probability[PLACES] = {};
            const auto word_of = [&](i64 place) { return first_number + place - 4 * group; };
            const auto is_lower = [&](i64 rung) { return (rung ^ step) % 2 == 0 && rung + 1 < rungs; };
            for (i64 place = first, rung = first % rungs; place < end; ++place, rung = rung + 1 < rungs ? rung + 1 : 0)
                if (is_lower(rung)) {
                    const double* const energy = energies + (place - rung);
                    const double log_ratio =
                        (betas[rung] - betas[rung + 1]) * (energy[replica_at[place]] - energy[replica_at[place + 1]]);
                    probability[word_of(place)] = log_ratio > 0 ? 0 : log_ratio;
                }
            for (int k = 0; k < PLACES; k += LANES<double>) store(probability + k, exp(load<F64>(probability + k)));
            for (i64 place = first, rung = first % rungs; place < end; ++place, rung = rung + 1 < rungs ? rung + 1 : 0)
                if (is_lower(rung)) {
                    const bool exchanged = u[word_of(place)] < probability[word_of(place)];
                    new_replica_at[place] = replica_at[place + exchanged];
                    new_replica_at[place + 1] = replica_at[place + !exchanged];
                    accepted[place] = exchanged, accepted[place + 1] = 0;
                } else if (rung == 0 || !is_lower(rung - 1)) {
                    new_replica_at[place] = replica_at[place];
                    accepted[place] = 0;
                }
        }
    });
}
