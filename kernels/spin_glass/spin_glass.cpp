// Annealing of spin glasses on a CPU: all sweeps of a schedule, a few words of 32 walkers at a time; see spin_glass.cu and
// links.cu for the two kernels, which draw the same spins.
//
// Bound by instructions, most of them Philox's. By bonds, a thread has WORDS words of each spin; where these are fewer than
// the lanes of a Philox call, the other lanes draw the next bits of the same words. By links, 32 walkers are the lanes of a
// few vectors. The state of a thread's walkers stays in the first caches.
#include <algorithm>
#include <vector>

#include "random.hpp"

constexpr u64 PARTS = 8;  // groups of four random words for a word of spins: 32 bits for each spin
constexpr int BITS = 32, TABLE_CLASSES = 16, MOST_PLANES = 5, COUNT_PLANES = 17;

template <int WORDS> struct WordsOf {
    typedef u32 type __attribute__((vector_size(4 * WORDS)));
};
template <> struct WordsOf<1> {
    using type = u32;
};
template <int WORDS> using Word = typename WordsOf<WORDS>::type;

INLINE bool any_bit(u32 x) { return x != 0; }
template <class W> INLINE bool any_bit(const W& x) {
    if constexpr (sizeof x == BYTES) return any(x);
    bool found = false;
    for (unsigned i = 0; i < sizeof x / 4; ++i) found |= x[i] != 0;
    return found;
}
INLINE u32 lane_of(u32 x, int) { return x; }
template <class W> INLINE u32 lane_of(const W& x, int lane) { return x[lane]; }

struct Bonds {
    const u32* pairs;       // (sites, 2 pairs): 2 neighbour + (J > 0)
    const i32* starts;      // (sites,): 2 (-1 - B / 2) + B % 2 for B bonds
    const u32* thresholds;  // (sweeps, 2, TABLE_CLASSES)
    i64 pairs_of_a_site, total;
};
struct Links {
    const i32* first;   // (sites + 1,): the first load of two links of each spin
    const i32* links;   // (links, 2): another spin and the coupling
    const i32* fields;  // (sites, 2): the local field without spins +1, and the spin's own
    const u32* rates;   // (sweeps, 2)
    i64 exponent;
    double unit;
};
struct Settings {
    Keys keys;
    i64 sites, groups, first_walker, first_sweep, sweeps;
};

// ------------------------------------------------------------------------------------------------------- by bonds

// Bit planes of a number from -1 - B / 2 to (B - 1) / 2, for B bonds at most.
template <int CLASSES> constexpr int PLANES = CLASSES <= 4 ? 3 : CLASSES == 8 ? 4 : 5;

template <int WORDS> struct Numbers {  // four bits of the spins' numbers for several parts at once
    static constexpr int LANE = LANES<u64>;
    static constexpr int LANES_USED = std::max({WORDS, std::min(4 * WORDS, 2 * LANE), LANE});
    static constexpr int AT_ONCE = LANES_USED / WORDS;
    U64 offset[LANES_USED / LANE];  // of the group of each lane
    u32 drawn[4][LANES_USED];

    explicit Numbers(i64 sites) {
        for (int call = 0; call < LANES_USED / LANE; ++call)
            for (int i = 0; i < LANE; ++i) {
                const int lane = call * LANE + i;
                offset[call][i] = u64(lane % WORDS) * u64(sites) * PARTS + lane / WORDS;
            }
    }
    INLINE void draw(u64 group, const Keys& keys, u32 step) {
        typedef u32 Half __attribute__((vector_size(BYTES / 2)));
        for (int call = 0; call < LANES_USED / LANE; ++call) {
            const Words words = random_words(offset[call] + group, keys, step, STREAM_GLASS_SITES);
            for (int i = 0; i < 4; ++i) store(drawn[i] + call * LANE, __builtin_convertvector(words.word[i], Half));
        }
    }
    INLINE Word<WORDS> bits(int word, int part) const { return load<Word<WORDS>>(drawn[word] + part * WORDS); }
};

// The bit of the threshold of each walker, selected by the planes of its class.
template <int CLASSES, class W> INLINE W picked(const u32* mask, const W* plane) {
    if constexpr (CLASSES == 1) {
        return W{} | mask[0];
    } else if constexpr (CLASSES == 3) {
        return (picked<2>(mask, plane) & ~plane[1]) | (mask[2] & plane[1]);
    } else {
        constexpr int HALF = CLASSES / 2;
        const W low = picked<HALF>(mask, plane), high = picked<HALF>(mask + HALF, plane);
        const W choice = plane[CLASSES == 2 ? 0 : CLASSES == 4 ? 1 : CLASSES == 8 ? 2 : 3];
        return (low & ~choice) | (high & choice);
    }
}

// Adds the satisfied bonds of a spin to the planes.
template <int CLASSES, class W>
INLINE void add_bonds(const u32* pairs, i64 count, const W& spin, const W* state, W* plane) {
    for (i64 k = 0; k < count; ++k) {
        const u32 first = pairs[2 * k], second = pairs[2 * k + 1];
        const W a = spin ^ state[first >> 1] ^ (0u - (first & 1)), b = spin ^ state[second >> 1] ^ (0u - (second & 1));
        W carry = (plane[0] & a) | (b & (plane[0] | a));
        plane[0] ^= a ^ b;
        for (int p = 1; p < PLANES<CLASSES>; ++p) {
            const W next = plane[p] & carry;
            plane[p] ^= carry, carry = next;
        }
    }
}

template <int CLASSES, bool HEAT_BATH, int WORDS>
void sweep_bonds(Word<WORDS>* state, u64 first, u32 step, const u32* thresholds, const Bonds& bonds, const Settings& settings,
                 Numbers<WORDS>& numbers) {
    using W = Word<WORDS>;
    const i64 pairs = CLASSES <= 3 ? 2 : bonds.pairs_of_a_site;
    u32 masks[2][BITS][CLASSES];
    for (int odd = 0; odd < 2; ++odd)
        for (int bit = 0; bit < BITS; ++bit)
            for (int kind = 0; kind < CLASSES; ++kind)
                masks[odd][bit][kind] = 0u - (thresholds[odd * TABLE_CLASSES + kind] >> (BITS - 1 - bit) & 1);
    for (i64 i = 0; i < settings.sites; ++i) {
        const W spin = state[i];
        const i32 start = bonds.starts[i];
        const u32 odd = start & 1;
        W plane[MOST_PLANES];
        for (int p = 0; p < PLANES<CLASSES>; ++p) plane[p] = W{} | (0u - (u32(start) >> (p + 1) & 1));
        add_bonds<CLASSES>(bonds.pairs + 2 * i * pairs, pairs, spin, state, plane);
        const W cheap = plane[PLANES<CLASSES> - 1];  // a negative number: the flip does not raise the energy
        W flips = HEAT_BATH ? W{} : cheap, open = ~flips;
        if (HEAT_BATH) {  // the class of |dE|: the number's complement, or for an even number of bonds one more
            W carry = odd ? W{} : ~cheap;
            for (int p = 0; p < PLANES<CLASSES> - 1; ++p) {
                const W bit = plane[p] ^ cheap;
                plane[p] = bit ^ carry;
                carry &= bit;
            }
        }
        for (u64 part = 0; part < PARTS && any_bit(open); part += Numbers<WORDS>::AT_ONCE) {
            numbers.draw(first + i * PARTS + part, settings.keys, step);
            for (int more = 0; more < Numbers<WORDS>::AT_ONCE; ++more) {
                W less = {}, equal = open;
                for (int bit = 3; bit >= 0; --bit) {
                    const W threshold = picked<CLASSES>(masks[odd][(4 * (part + more) + bit) % BITS], plane);
                    const W drawn = numbers.bits(bit, more), same = ~(threshold ^ drawn);
                    less = (threshold & ~drawn) | (less & same);
                    equal &= same;
                }
                flips |= open & less;
                open = equal;
            }
        }
        state[i] = spin ^ (HEAT_BATH ? flips ^ cheap : flips);
    }
}

template <int CLASSES, bool HEAT_BATH, int WORDS>
void anneal_words(const u32* spins, u32* out, double* energies, const Bonds& bonds, const Settings& settings, i64 first_group) {
    using W = Word<WORDS>;
    const i64 sites = settings.sites, pairs = CLASSES <= 3 ? 2 : bonds.pairs_of_a_site;
    std::vector<u32> memory(sites * WORDS + 64);
    W* const state = reinterpret_cast<W*>((reinterpret_cast<std::uintptr_t>(memory.data()) + 63) & ~std::uintptr_t(63));
    for (i64 i = 0; i < sites; ++i) std::memcpy(state + i, spins + i * settings.groups + first_group, sizeof(W));
    Numbers<WORDS> numbers(sites);
    const u64 first = u64(settings.first_walker / 32 + first_group) * u64(sites) * PARTS;
    for (i64 sweep = 0; sweep < settings.sweeps; ++sweep)
        sweep_bonds<CLASSES, HEAT_BATH, WORDS>(state, first, u32(settings.first_sweep + sweep),
                                               bonds.thresholds + sweep * 2 * TABLE_CLASSES, bonds, settings, numbers);
    W count[COUNT_PLANES] = {};  // of satisfied bonds, each counted for both of its spins
    for (i64 i = 0; i < sites; ++i) {
        std::memcpy(out + i * settings.groups + first_group, state + i, sizeof(W));
        W plane[MOST_PLANES] = {}, carry = {};
        add_bonds<CLASSES>(bonds.pairs + 2 * i * pairs, pairs, state[i], state, plane);
        for (int p = 0; p < COUNT_PLANES; ++p) {
            const W bit = p < PLANES<CLASSES> ? plane[p] : W{};
            const W next = (count[p] & bit) | (carry & (count[p] | bit));
            count[p] ^= bit ^ carry, carry = next;
        }
    }
    for (int lane = 0; lane < WORDS; ++lane)
        for (int walker = 0; walker < 32; ++walker) {
            i64 satisfied = 0;
            for (int p = 0; p < COUNT_PLANES; ++p) satisfied |= i64(lane_of(count[p], lane) >> walker & 1) << p;
            energies[(first_group + lane) * 32 + walker] = double(bonds.total - satisfied);
        }
}

// `count` groups from `first` on, in words of the widest vectors that they fill.
template <int CLASSES, bool HEAT_BATH, int WORDS>
void anneal_groups(const u32* spins, u32* out, double* energies, const Bonds& bonds, const Settings& settings, i64 first, i64 count) {
    for (; count >= WORDS; first += WORDS, count -= WORDS)
        anneal_words<CLASSES, HEAT_BATH, WORDS>(spins, out, energies, bonds, settings, first);
    if constexpr (WORDS > 1)
        if (count) anneal_groups<CLASSES, HEAT_BATH, WORDS / 2>(spins, out, energies, bonds, settings, first, count);
}

template <int CLASSES, bool HEAT_BATH>
void anneal_all(const u32* spins, u32* out, double* energies, const Bonds& bonds, const Settings& settings, int threads) {
    const i64 share = (settings.groups + threads - 1) / threads;
    parallel(settings.groups, std::min<i64>(share, LANES<u32>), threads, [&](i64 first, i64 end) {
        anneal_groups<CLASSES, HEAT_BATH, LANES<u32>>(spins, out, energies, bonds, settings, first, end - first);
    });
}

// spins, out: (sites, groups). energies: (32 groups,). classes: bonds.CLASSES of the rule.
KERNEL void anneal_bonds(const u32* spins, u32* out, double* energies, i64 classes, i64 heat_bath, const Bonds* bonds,
                         const Settings* settings, int threads) {
    const auto run = [&](auto kernel) { kernel(spins, out, energies, *bonds, *settings, threads); };
    if (heat_bath) {
        if (classes == 3) run(anneal_all<3, true>);
        else if (classes == 4) run(anneal_all<4, true>);
        else if (classes == 8) run(anneal_all<8, true>);
        else run(anneal_all<16, true>);
    } else {
        if (classes == 2) run(anneal_all<2, false>);
        else if (classes == 4) run(anneal_all<4, false>);
        else if (classes == 8) run(anneal_all<8, false>);
        else run(anneal_all<16, false>);
    }
}

// ------------------------------------------------------------------------------------------------------- by links

constexpr int VECTORS = 32 / LANES<u32>;  // of the walkers of a word

INLINE U32 high_products(const U32& a, const U32& b) {
    const U64 even = multiply_low_halves(as<U64>(a), as<U64>(b));
    const U64 odd = multiply_low_halves(as<U64>(a) >> 32, as<U64>(b) >> 32);
    return as<U32>((even >> 32) | (odd & 0xffffffff00000000u));
}

// 2**32 2**-(rate |field| 2**-shift / 2**26), at most 2**32 - 1, with the coefficients of links.py.
INLINE U32 factors(const I32& field, u32 rate, u32 shift) {
    const U32 size = as<U32>(field < 0 ? -field : field);
    const auto scaled = [&](const U64& half) {
        const U64 t = multiply_low_halves(half, all<u64>(rate)) >> shift;
        return t >> 31 != 0 ? all<u64>(1u << 31) : t;
    };
    const U64 even = scaled(as<U64>(size)), odd = scaled(as<U64>(size) >> 32);
    const U32 t = as<U32>(even | odd << 32), x = t << 6;
    U32 value = all<u32>(468251u);
    for (const u32 coefficient : {5475002u, 41142264u, 238330987u, 1031755804u, 2977043973u, 4294967295u})
        value = coefficient - high_products(value, x);
    return as<U32>(as<I32>(t) < 0) ? U32{} : value >> (t >> 26);
}

struct Field {  // of 32 walkers
    I32 of[VECTORS];
};

INLINE Field local_field(const Links& links, i64 site, const u32* state) {
    Field field;
    I32 sum[VECTORS] = {};
    for (i64 at = 2 * i64(links.first[site]); at < 2 * i64(links.first[site + 1]); ++at) {
        const u32 word = state[links.links[2 * at]];
        const i32 coupling = links.links[2 * at + 1];
        for (int v = 0; v < VECTORS; ++v) {
            const U32 bit = all<u32>(word >> v * LANES<u32>) & (all<u32>(1) << places<u32>());
            sum[v] += as<I32>(bit != 0u) & coupling;
        }
    }
    for (int v = 0; v < VECTORS; ++v) field.of[v] = links.fields[2 * site] + 2 * sum[v];
    return field;
}

INLINE u32 bits_of(const I32& mask) {  // bit i of lane i
#if defined(BOLTZBENCH_AVX512)
    return _mm512_movepi32_mask((__m512i)mask);
#elif defined(BOLTZBENCH_AVX2)
    return u32(_mm256_movemask_ps((__m256)mask));
#else
    u32 bits = 0;
    for (int i = 0; i < LANES<u32>; ++i) bits |= u32(mask[i] & 1) << i;
    return bits;
#endif
}

template <bool HEAT_BATH>
void anneal_group(const u32* spins, u32* out, double* energies, const Links& links, const Settings& settings, i64 group) {
    const i64 sites = settings.sites, quads = (sites + 3) / 4;
    std::vector<u32> state(sites);
    for (i64 i = 0; i < sites; ++i) state[i] = spins[i * settings.groups + group];
    U64 walker[2 * VECTORS];
    for (int k = 0; k < 2 * VECTORS; ++k)
        walker[k] = places<u64>() + u64(settings.first_walker + group * 32 + k * LANES<u64>);
    for (i64 sweep = 0; sweep < settings.sweeps; ++sweep) {
        const u32 rate = links.rates[2 * sweep], step = u32(settings.first_sweep + sweep);
        const i64 wanted = 6 + links.exponent - i32(links.rates[2 * sweep + 1]);
        const u32 shift = u32(std::min<i64>(std::max<i64>(wanted, 0), 63));
        for (i64 quad = 0; quad < quads; ++quad) {
            u32 drawn[4][32];
            for (int k = 0; k < 2 * VECTORS; ++k) {
                typedef u32 Half __attribute__((vector_size(BYTES / 2)));
                const Words words = random_words(walker[k] * u64(quads) + u64(quad), settings.keys, step, STREAM_GLASS_LINKS);
                for (int i = 0; i < 4; ++i) store(drawn[i] + k * LANES<u64>, __builtin_convertvector(words.word[i], Half));
            }
            for (i64 part = 0; part < 4 && 4 * quad + part < sites; ++part) {
                const i64 i = 4 * quad + part;
                const Field field = local_field(links, i, state.data());
                u32 ups = 0;
                for (int v = 0; v < VECTORS; ++v) {
                    const I32 f = field.of[v];
                    const U32 number = load<U32>(drawn[part] + v * LANES<u32>), limit = factors(f, rate, shift);
                    I32 up;
                    if (HEAT_BATH) {
                        up = as<I32>(f >= 0) ^ as<I32>(number < high_products(limit, ~number));
                    } else {
                        const U32 bit = all<u32>(state[i] >> v * LANES<u32>) & (all<u32>(1) << places<u32>());
                        const I32 was = as<I32>(bit != 0u), along = was ? f : -f;
                        up = was ^ (as<I32>(along <= 0) | as<I32>(number < limit));
                    }
                    ups |= bits_of(up) << v * LANES<u32>;
                }
                state[i] = ups;
            }
        }
    }
    i64 total[32] = {};  // twice the energy, without its sign
    for (i64 i = 0; i < sites; ++i) {
        const Field field = local_field(links, i, state.data());
        const i64 own = links.fields[2 * i + 1];
        for (int walker = 0; walker < 32; ++walker) {
            const i64 both = i64(field.of[walker / LANES<u32>][walker % LANES<u32>]) + own;
            total[walker] += state[i] >> walker & 1 ? both : -both;
        }
        out[i * settings.groups + group] = state[i];
    }
    for (int walker = 0; walker < 32; ++walker) energies[group * 32 + walker] = -0.5 * links.unit * double(total[walker]);
}

KERNEL void anneal_links(const u32* spins, u32* out, double* energies, i64 heat_bath, const Links* links, const Settings* settings,
                         int threads) {
    parallel(settings->groups, 1, threads, [&](i64 first, i64 end) {
        for (i64 group = first; group < end; ++group) {
            if (heat_bath) anneal_group<true>(spins, out, energies, *links, *settings, group);
            else anneal_group<false>(spins, out, energies, *links, *settings, group);
        }
    });
}
