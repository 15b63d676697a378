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
template <class Real> constexpr int GROUPS = 48 / sizeof(Real);  // of four units, whose tables are in the cache at a time

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
            for (i64 unit = 0; unit < units; ++unit) {
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

// The tables of `groups` groups of four given units, for a block of units. Entry 0 is zero. `alone`: only the entries of
// single units.
template <class Real>
void fill_tables(Real (*table)[SUBSETS][UNITS], i64 first_group, i64 groups, const Matrix<Real>& matrix, i64 first_unit,
                 bool alone) {
    using Vector = V<Real>;
    const i64 own_units = std::min<i64>(UNITS, matrix.units - first_unit);
    for (i64 group = 0; group < groups; ++group) {
        std::fill(table[group][0], table[group][0] + UNITS, Real(0));
        for (int bit = 0; bit < BITS; ++bit) {
            const i64 row = (first_group + group) * BITS + bit;
            Real* const single = table[group][1 << bit];
            std::fill(single, single + UNITS, Real(0));
            if (row >= matrix.given_units) continue;
            const Real* const source = matrix.at + row * matrix.given_stride + first_unit * matrix.unit_stride;
            for (i64 unit = 0; unit < own_units; ++unit) single[unit] = source[unit * matrix.unit_stride];
        }
        for (int subset = 3; subset < SUBSETS && !alone; ++subset)
            if (const int rest = subset & (subset - 1))
                for (int k = 0; k < UNITS; k += LANES<Real>)
                    store(table[group][subset] + k,
                          load<Vector>(table[group][rest] + k) + load<Vector>(table[group][subset - rest] + k));
    }
}

template <class Real, bool MANY>
void sum_block_of(const u8* subsets, i64 padded, i64 groups, i64 chains, const Matrix<Real>& matrix, i64 first_unit,
                  Real* sums) {
    using Vector = V<Real>;
    constexpr int PARTS = UNITS / LANES<Real>;
    alignas(64) Real table[GROUPS<Real>][SUBSETS][UNITS];
    std::fill(sums, sums + chains * UNITS, Real(0));
    for (i64 first_group = 0; first_group < groups; first_group += GROUPS<Real>) {
        const i64 own_groups = std::min<i64>(GROUPS<Real>, groups - first_group);
        fill_tables(table, first_group, own_groups, matrix, first_unit, !MANY);
        for (i64 chain = 0; chain < chains; ++chain) {
            const u8* const own = subsets + chain * padded + first_group;
            Real* const at = sums + chain * UNITS;
            Vector sum[PARTS];
            for (int k = 0; k < PARTS; ++k) sum[k] = load<Vector>(at + k * LANES<Real>);
            for (i64 group = 0; group < own_groups; ++group) {
                const int subset = own[group];
                for (int k = 0; k < PARTS; ++k) {
                    const auto entry = [&](int which) { return load<Vector>(table[group][which] + k * LANES<Real>); };
                    if (MANY) sum[k] += entry(subset);
                    else sum[k] += entry(subset & 8) + entry(subset & 4) + entry(subset & 2) + entry(subset & 1);
                }
            }
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
