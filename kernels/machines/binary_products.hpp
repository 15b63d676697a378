// Products of binary states with a matrix on a CPU, by tables.
//
// Four units in a row have 16 states. For four rows of the matrix, the sums of all 16 subsets go into a table that fits in
// the first cache, and each chain adds one entry for its four units: a quarter of the additions of a matrix product, and no
// multiplications. Few chains do not pay for tables: they add the same terms in the same order, so that a sum does not
// depend on the number of chains.
#pragma once
#include <algorithm>
#include <vector>

#include "vectors.hpp"

constexpr int UNITS = 32;    // units of a block
constexpr int CHAINS = 256;  // chains of a block, which share its tables
constexpr i64 FEW = 16;      // chains that tables do not pay for
constexpr int BITS = 4, SUBSETS = 1 << BITS;
template <class Real> constexpr int GROUPS = 32 / sizeof(Real);  // of four units, whose tables are in the cache at a time

// The states of all chains, four units to a byte: `at(chain)` has `groups` of them, padded with zeros.
struct Subsets {
    i64 groups, padded;
    std::vector<u8> of;

    Subsets(i64 chains, i64 units) : groups((units + BITS - 1) / BITS), padded((groups + 7) / 8 * 8), of(chains * padded) {}
    u8* at(i64 chain) { return of.data() + chain * padded; }
    const u8* at(i64 chain) const { return of.data() + chain * padded; }
};

// `given`: a byte or, if packed, a bit for each unit; rows lie `stride` bytes apart.
inline Subsets subsets_of(const u8* given, i64 stride, bool packed, i64 chains, i64 units, int threads) {
    Subsets subsets(chains, units);
    parallel(chains, 64, threads, [&](i64 first, i64 end) {
        for (i64 chain = first; chain < end; ++chain) {
            const u8* const from = given + chain * stride;
            u8* const to = subsets.at(chain);
            i64 unit = 0;
            for (; !packed && unit + 8 <= units; unit += 8) {  // eight bytes of 0 or 1 at a time
                u64 bits;
                std::memcpy(&bits, from + unit, sizeof bits);
                bits |= bits >> 7, bits &= 0x0003000300030003u;
                bits |= bits >> 14, bits &= 0x0000000f0000000fu;
                to[unit / BITS] = u8(bits), to[unit / BITS + 1] = u8(bits >> 32);
            }
            for (; unit < units; ++unit) {
                const int state = packed ? from[unit / 8] >> unit % 8 & 1 : from[unit];
                to[unit / BITS] |= u8(state << unit % BITS);
            }
        }
    });
    return subsets;
}

template <class Real> struct Matrix {  // element (given unit, unit)
    const Real* at;
    i64 given_units, units, given_stride, unit_stride;
};

// For each of GROUPS groups of four given units, the sums over the 16 subsets. Entries of LINE units have 128 bytes, so that
// the address of one is a shift and an addition of constants.
template <class Real> constexpr int LINE = 128 / sizeof(Real);
template <class Real> using Table = Real[GROUPS<Real>][UNITS / LINE<Real>][SUBSETS][LINE<Real>];

// Vector `k` of an entry. `subset`: times 128, the place of the entry among its like.
template <class Real> INLINE V<Real> entry(const Table<Real>& table, int group, int k, u64 subset) {
    constexpr int PER_LINE = LINE<Real> / LANES<Real>;
    const char* const lines = reinterpret_cast<const char*>(table[group][k / PER_LINE]);
    return load<V<Real>>(lines + (subset << 7) + k % PER_LINE * BYTES);
}

// The rows of the given units from `first_given`, for a block of units; zero beyond the last unit of either kind.
template <class Real>
void copy_rows(Real (*rows)[UNITS], i64 first_given, const Matrix<Real>& matrix, i64 first_unit) {
    using Vector = V<Real>;
    const i64 givens = matrix.given_units - first_given, units = matrix.units - first_unit;
    const Real* const source = matrix.at + first_given * matrix.given_stride + first_unit * matrix.unit_stride;
    if (matrix.given_stride != 1) {
        for (i64 given = 0; given < GROUPS<Real> * BITS; ++given)
            for (i64 unit = 0; unit < UNITS; ++unit)
                rows[given][unit] =
                    given < givens && unit < units ? source[given * matrix.given_stride + unit * matrix.unit_stride] : Real(0);
        return;
    }
    for (int given = 0; given < GROUPS<Real> * BITS; given += LANES<Real>)  // a transposed matrix, by square blocks
        for (int unit = 0; unit < UNITS; unit += LANES<Real>) {
            Vector block[LANES<Real>];
            for (int i = 0; i < LANES<Real>; ++i) {
                const i64 count = unit + i < units ? std::clamp<i64>(givens - given, 0, LANES<Real>) : 0;
                const Real* const from = source + (unit + i) * matrix.unit_stride + given;
                block[i] = count == LANES<Real> ? load<Vector>(from) : load_first<Vector>(from, count);
            }
            transpose(block);
            for (int i = 0; i < LANES<Real>; ++i) store(rows[given + i] + unit, block[i]);
        }
}

// The table of the groups from `first_group`, for a block of units. ALONE: only entry 0, which is zero, and those of single
// units.
template <class Real, bool ALONE>
void fill_table(Table<Real>& table, i64 first_group, const Matrix<Real>& matrix, i64 first_unit) {
    const i64 first_given = first_group * BITS, ahead = GROUPS<Real> * BITS * matrix.given_stride;
    const bool in_place = matrix.unit_stride == 1 && first_unit + UNITS <= matrix.units &&
                          first_given + GROUPS<Real> * BITS <= matrix.given_units;
    Real rows[GROUPS<Real> * BITS][UNITS];
    if (!in_place) copy_rows(rows, first_given, matrix, first_unit);
    for (int group = 0; group < GROUPS<Real>; ++group) {
        const Real* row[BITS];
        for (int bit = 0; bit < BITS; ++bit) {
            const int given = group * BITS + bit;
            row[bit] = in_place ? matrix.at + (first_given + given) * matrix.given_stride + first_unit : rows[given];
            const char* const next = reinterpret_cast<const char*>(row[bit] + ahead);  // row of the next table
            if (in_place)
                for (unsigned line = 0; line <= sizeof rows[0]; line += 64) __builtin_prefetch(next + line);
        }
        for (int k = 0; k < UNITS; k += LANES<Real>) {
            V<Real> sums[SUBSETS] = {};
#pragma GCC unroll 4
            for (int bit = 0; bit < BITS; ++bit) sums[1 << bit] = load<V<Real>>(row[bit] + k);
#pragma GCC unroll 16
            for (int subset = 0; subset < SUBSETS; ++subset) {
                const int rest = subset & (subset - 1);
                if (rest && ALONE) continue;
                if (rest) sums[subset] = sums[rest] + sums[subset - rest];
                store(table[group][k / LINE<Real>][subset] + k % LINE<Real>, sums[subset]);
            }
        }
    }
}

template <class Real, bool MANY>
void sum_block_of(const u8* subsets, i64 padded, i64 groups, i64 chains, const Matrix<Real>& matrix, i64 first_unit,
                  Real* sums) {
    using Vector = V<Real>;
    constexpr int PARTS = UNITS / LANES<Real>;
    alignas(64) Table<Real> table;
    std::fill(sums, sums + chains * UNITS, Real(0));
    for (i64 first_group = 0; first_group < groups; first_group += GROUPS<Real>) {
        const i64 own_groups = std::min<i64>(GROUPS<Real>, groups - first_group);
        fill_table<Real, !MANY>(table, first_group, matrix, first_unit);
        for (i64 chain = 0; chain < chains; ++chain) {
            const u8* const own = subsets + chain * padded + first_group;
            Real* const at = sums + chain * UNITS;
            Vector sum[PARTS];
            for (int k = 0; k < PARTS; ++k) sum[k] = load<Vector>(at + k * LANES<Real>);
            const auto add = [&](int group) {
                const u64 subset = own[group];
                for (int k = 0; k < PARTS; ++k) {
                    const auto of = [&](u64 which) { return entry<Real>(table, group, k, which); };
                    if (MANY) sum[k] += of(subset);
                    else sum[k] += of(subset & 8) + of(subset & 4) + of(subset & 2) + of(subset & 1);
                }
            };
            if (MANY && own_groups == GROUPS<Real>) {
#pragma GCC unroll 16
                for (int group = 0; group < GROUPS<Real>; ++group) add(group);
            } else
                for (i64 group = 0; group < own_groups; ++group) add(int(group));
            for (int k = 0; k < PARTS; ++k) store(at + k * LANES<Real>, sum[k]);
        }
    }
}

// sums[chain][unit] for a block of units, of the matrix over the units that are 1. `subsets`: those of the first chain.
template <class Real>
void sum_block(const u8* subsets, i64 padded, i64 groups, i64 chains, const Matrix<Real>& matrix, i64 first_unit,
               Real* sums) {
    if (chains > FEW) sum_block_of<Real, true>(subsets, padded, groups, chains, matrix, first_unit, sums);
    else sum_block_of<Real, false>(subsets, padded, groups, chains, matrix, first_unit, sums);
}

// finish(first chain, chains, first unit, sums) for each block: sums[chain][unit] of the matrix over the units that are 1,
// which it may overwrite.
template <class Real, class Finish>
void binary_products(const Subsets& subsets, i64 chains, const Matrix<Real>& matrix, int threads, const Finish& finish) {
    const i64 unit_blocks = (matrix.units + UNITS - 1) / UNITS, chain_blocks = (chains + CHAINS - 1) / CHAINS;
    parallel(unit_blocks * chain_blocks, 1, threads, [&](i64 from, i64 to) {
        std::vector<Real> sums(CHAINS * UNITS);
        for (i64 item = from; item < to; ++item) {
            const i64 first_unit = item % unit_blocks * UNITS, first_chain = item / unit_blocks * CHAINS;
            const i64 own_chains = std::min<i64>(CHAINS, chains - first_chain);
            sum_block(subsets.at(first_chain), subsets.padded, subsets.groups, own_chains, matrix, first_unit, sums.data());
            finish(first_chain, own_chains, first_unit, sums.data());
        }
    });
}

template <class Real, class Finish>
void binary_products(const u8* given, i64 stride, bool packed, i64 chains, const Matrix<Real>& matrix, int threads,
                     const Finish& finish) {
    const Subsets subsets = subsets_of(given, stride, packed, chains, matrix.given_units, threads);
    binary_products(subsets, chains, matrix, threads, finish);
}
