// Products of binary states with a matrix on a CPU, by tables.
//
// Four units in a row have 16 states. For four rows of the matrix, the sums of all 16 subsets go into a table that fits in
// the first cache, and each chain adds one entry for its four units: a quarter of the additions of a matrix product, and no
// multiplications. Few chains do not pay for the tables of 16: they add one row for each unit that is 1.
#pragma once
#include <algorithm>
#include <vector>

#include "vectors.hpp"

constexpr int UNITS = 32;    // units of a block
constexpr int CHAINS = 256;  // chains of a block, which share its tables
constexpr i64 FEW = 16;      // chains that tables of 16 do not pay for

// The states of all chains, BITS to a byte: `at(chain)` has `groups` of them, padded with zeros.
template <int BITS> struct Subsets {
    i64 groups, padded;
    std::vector<u8> of;

    // `given`: a byte or, if packed, a bit for each unit; rows lie `stride` bytes apart.
    Subsets(const u8* given, i64 stride, bool packed, i64 chains, i64 units, i64 multiple, int threads)
        : groups((units + BITS - 1) / BITS), padded((groups + multiple - 1) / multiple * multiple), of(chains * padded) {
        parallel(chains, 64, threads, [&](i64 first, i64 end) {
            for (i64 chain = first; chain < end; ++chain) {
                const u8* const from = given + chain * stride;
                u8* const to = of.data() + chain * padded;
                for (i64 unit = 0; unit < units; ++unit) {
                    const int state = packed ? from[unit / 8] >> unit % 8 & 1 : from[unit];
                    to[unit / BITS] |= u8(state << unit % BITS);
                }
            }
        });
    }
    const u8* at(i64 chain) const { return of.data() + chain * padded; }
};

template <class Real> struct Matrix {  // element (given unit, unit)
    const Real* at;
    i64 given_units, units, given_stride, unit_stride;
};

// finish(first chain, chains, first unit, sums) for each block: sums[chain][unit] of the matrix over the units that are 1.
template <class Real, int BITS, class Finish>
void sum_blocks(const u8* given, i64 stride, bool packed, i64 chains, const Matrix<Real>& matrix, int threads,
                const Finish& finish) {
    using Vector = V<Real>;
    constexpr int SUBSETS = 1 << BITS, PARTS = UNITS / LANES<Real>, GROUPS = (sizeof(Real) == 4 ? 12 : 6) * 4 / BITS;
    const Subsets<BITS> subsets(given, stride, packed, chains, matrix.given_units, GROUPS, threads);
    const i64 unit_blocks = (matrix.units + UNITS - 1) / UNITS, chain_blocks = (chains + CHAINS - 1) / CHAINS;
    parallel(unit_blocks * chain_blocks, 1, threads, [&](i64 from, i64 to) {
        std::vector<Real> sums(CHAINS * UNITS);
        alignas(64) Real table[GROUPS][SUBSETS][UNITS];
        for (i64 item = from; item < to; ++item) {
            const i64 first_unit = item % unit_blocks * UNITS, first_chain = item / unit_blocks * CHAINS;
            const i64 own_units = std::min<i64>(UNITS, matrix.units - first_unit);
            const i64 own_chains = std::min<i64>(CHAINS, chains - first_chain);
            std::fill(sums.begin(), sums.end(), Real(0));
            for (i64 first_group = 0; first_group < subsets.groups; first_group += GROUPS) {
                for (int group = 0; group < GROUPS; ++group) {  // beyond the last unit all sums are 0
                    std::memset(table[group][0], 0, sizeof table[group][0]);
                    for (int bit = 0; bit < BITS; ++bit) {
                        const i64 row = (first_group + group) * BITS + bit;
                        Real* const alone = table[group][1 << bit];
                        if (row < matrix.given_units && own_units == UNITS) {
                            const Real* const source =
                                matrix.at + row * matrix.given_stride + first_unit * matrix.unit_stride;
                            if (matrix.unit_stride == 1)
                                for (int k = 0; k < PARTS; ++k)
                                    store(alone + k * LANES<Real>, load<Vector>(source + k * LANES<Real>));
                            else
                                for (int unit = 0; unit < UNITS; ++unit) alone[unit] = source[unit * matrix.unit_stride];
                            continue;
                        }
                        std::memset(alone, 0, sizeof table[group][0]);
                        for (i64 unit = 0; row < matrix.given_units && unit < own_units; ++unit)
                            alone[unit] = matrix.at[row * matrix.given_stride + (first_unit + unit) * matrix.unit_stride];
                    }
                    for (int subset = 3; subset < SUBSETS; ++subset)
                        if (const int rest = subset & (subset - 1))
                            for (int k = 0; k < PARTS; ++k)
                                store(table[group][subset] + k * LANES<Real>,
                                      load<Vector>(table[group][rest] + k * LANES<Real>) +
                                          load<Vector>(table[group][subset - rest] + k * LANES<Real>));
                }
                for (i64 chain = 0; chain < own_chains; ++chain) {
                    const u8* const own = subsets.at(first_chain + chain) + first_group;
                    Real* const at = sums.data() + chain * UNITS;
                    Vector sum[PARTS];
                    for (int k = 0; k < PARTS; ++k) sum[k] = load<Vector>(at + k * LANES<Real>);
                    for (int group = 0; group < GROUPS; ++group)
                        for (int k = 0; k < PARTS; ++k) sum[k] += load<Vector>(table[group][own[group]] + k * LANES<Real>);
                    for (int k = 0; k < PARTS; ++k) store(at + k * LANES<Real>, sum[k]);
                }
            }
            finish(first_chain, own_chains, first_unit, sums.data());
        }
    });
}

template <class Real, class Finish>
void binary_products(const u8* given, i64 stride, bool packed, i64 chains, const Matrix<Real>& matrix, int threads,
                     const Finish& finish) {
    if (chains <= FEW) sum_blocks<Real, 1>(given, stride, packed, chains, matrix, threads, finish);
    else sum_blocks<Real, 4>(given, stride, packed, chains, matrix, threads, finish);
}
