// log Z by enumeration on a CPU, in double throughout; see tables.py for the formulas.
//
// product_sum, a restricted machine: a factor of a state takes one fused multiply-add and one product, no exponential. A block
// of 4 x COLUMNS states stays in registers, and a tile of the low table in the first cache. Bound by instructions: 2 of them
// for LANES<double> factors, and 4 more for each eight factors, to move the exponents of the products to integers.
//
// machine_sum, a machine with any couplings: one multiply-add for each state, of 16 x 16 matrices; see enumeration.cu.
#include <algorithm>

#include "functions.hpp"

constexpr int LANE = LANES<double>;
constexpr int GROUP = 8;
constexpr int ROWS = 4, LOW = 32;  // states of a tile
#if defined(BOLTZBENCH_AVX512)
constexpr int COLUMNS = 4;  // vectors of states in registers, for each row
#else
constexpr int COLUMNS = 2;
#endif
constexpr int HIGH_TILES = 16, LOW_TILES = 64;  // tiles of an item of work
constexpr int UNITS = 16, BATCH = 16;           // units below the top units, top states of an item
constexpr double LOG_2 = 0.693147180559945309417;

// Moves the exponents of positive normal numbers to `exponents`: p is in [1, 2) then.
INLINE void take_exponents(F64& p, I64& exponents) {
    const U64 bits = as<U64>(p);
    exponents += as<I64>(bits >> 52) - 1023;
    p = as<F64>((bits & 0x000fffffffffffffull) | 0x3ff0000000000000ull);
}

// 2^exponent for exponents <= 0; 0 below the smallest normal number.
INLINE F64 power_of_two(const I64& exponents) { return as<F64>((larger(exponents, all<i64>(-1023)) + 1023) << 52); }

struct Sum {  // total 2^peak in each lane
    F64 total = {};
    I64 peak = all<i64>(-(i64(1) << 40));

    INLINE void add(const F64& more, const I64& exponents) {
        const I64 most = larger(peak, exponents);
        total = total * power_of_two(peak - most) + more * power_of_two(exponents - most);
        peak = most;
    }
    // The natural logarithm of the factor, and the total.
    void write(double* to) const {
        const i64 most = reduce(peak, [](i64 a, i64 b) { return std::max(a, b); });
        to[0] = LOG_2 * double(most), to[1] = sum(total * power_of_two(peak - most));
    }
};

// The products of all factors of ROWS x COLUMNS vectors of states. `each`: normalize after each factor.
template <bool EACH>
INLINE void multiply(F64 (&p)[ROWS][COLUMNS], I64 (&exponents)[ROWS][COLUMNS], const double* high, const double* low,
                     const double* rest, i64 units) {
    for (i64 unit = 0; unit < units; ++unit, high += ROWS, low += LOW) {
        F64 column[COLUMNS];
        for (int k = 0; k < COLUMNS; ++k) column[k] = load<F64>(low + k * LANE);
        for (int i = 0; i < ROWS; ++i)
            for (int k = 0; k < COLUMNS; ++k) p[i][k] *= fma(all(high[i]), column[k], all(rest[unit]));
        if (EACH || unit % GROUP == GROUP - 1)
            for (int i = 0; i < ROWS; ++i)
                for (int k = 0; k < COLUMNS; ++k) take_exponents(p[i][k], exponents[i][k]);
    }
}

// high: (high_tiles, units, ROWS), low: (low_tiles, units, LOW), rest: (units), bias_high, bias_low: a number for each state.
// every: 1 to normalize exponents after each factor. parts: (items, 2), an item's sum is e^parts[0] parts[1].
KERNEL void product_sum(const double* high, const double* low, const double* rest, const double* bias_high,
                        const double* bias_low, const i32* every, double* parts, i64 units, i64 high_tiles, i64 low_tiles,
                        int threads) {
    const i64 across = (low_tiles + LOW_TILES - 1) / LOW_TILES, down = (high_tiles + HIGH_TILES - 1) / HIGH_TILES;
    parallel(across * down, 1, threads, [&](i64 from, i64 to) {
        for (i64 item = from; item < to; ++item) {
            const i64 first_high = item / across * HIGH_TILES, first_low = item % across * LOW_TILES;
            Sum sum;
            for (i64 l = first_low; l < std::min(low_tiles, first_low + LOW_TILES); ++l)
                for (i64 h = first_high; h < std::min(high_tiles, first_high + HIGH_TILES); ++h)
                    for (int column = 0; column < LOW; column += COLUMNS * LANE) {
                        F64 p[ROWS][COLUMNS];
                        I64 exponents[ROWS][COLUMNS] = {};
                        for (auto& row : p)
                            for (F64& each : row) each = all(1.0);
                        const double* const own_low = low + l * units * LOW + column;
                        if (*every) multiply<true>(p, exponents, high + h * units * ROWS, own_low, rest, units);
                        else multiply<false>(p, exponents, high + h * units * ROWS, own_low, rest, units);
                        for (int i = 0; i < ROWS; ++i)
                            for (int k = 0; k < COLUMNS; ++k) {
                                p[i][k] *= bias_high[h * ROWS + i] * load<F64>(bias_low + l * LOW + column + k * LANE);
                                take_exponents(p[i][k], exponents[i][k]);
                                sum.add(p[i][k], exponents[i][k]);
                            }
                    }
            sum.write(parts + 2 * item);
        }
    });
}

// The states of the lower 16 units for one state of the top units, whose fields on them are `field`, times `scale`: added to
// `total`.
INLINE void add_lower_states(const double* pair, const double* first, const double* second, const double* field, double scale,
                             F64& total) {
    constexpr int WIDTH = 16 / LANE, AT_ONCE = WIDTH >= 8 ? 1 : 8 / WIDTH;
    alignas(64) double table[4][16], matrix[16][16];  // e^ of the fields on four units, for all their states; at most 1
    for (int which = 0; which < 4; ++which) {
        for (int state = 0; state < 16; ++state) {
            double exponent = 0;
            for (int k = 0; k < 4; ++k) {
                const double of_unit = field[4 * which + k];
                exponent += (state >> k & 1 ? of_unit : 0.0) - std::max(of_unit, 0.0);
            }
            table[which][state] = exponent;
        }
        for (int k = 0; k < 16; k += LANE) store(table[which] + k, exp(load<F64>(table[which] + k)));
    }
    for (int a = 0; a < 16; ++a)
        for (int b = 0; b < 16; b += LANE)
            store(matrix[a] + b, load<F64>(pair + 16 * a + b) * (table[0][a] * load<F64>(table[1] + b)));
    for (int middle = 0; middle < 256; middle += AT_ONCE) {
        F64 sums[AT_ONCE][WIDTH] = {};
        for (int a = 0; a < 16; ++a)
            for (int b = 0; b < WIDTH; ++b) {
                const F64 entry = load<F64>(matrix[a] + b * LANE);
                for (int m = 0; m < AT_ONCE; ++m) sums[m][b] = fma(all(first[(middle + m) * 16 + a]), entry, sums[m][b]);
            }
        for (int m = 0; m < AT_ONCE; ++m) {
            F64 row = {};
            for (int b = 0; b < WIDTH; ++b) row = fma(sums[m][b], load<F64>(second + (middle + m) * 16 + b * LANE), row);
            const double weight = scale * table[2][(middle + m) % 16] * table[3][(middle + m) / 16];
            total = fma(row, all(weight), total);
        }
    }
}

// pair: (16, 16), first, second: (256, 16), fields: (top_units, UNITS), top: (top_units, top_units). parts as above, for BATCH
// top states each.
KERNEL void machine_sum(const double* pair, const double* first, const double* second, const double* fields,
                        const double* top, double* parts, i64 top_units, int threads) {
    const i64 states = i64(1) << top_units;
    parallel((states + BATCH - 1) / BATCH, 1, threads, [&](i64 from, i64 to) {
        for (i64 item = from; item < to; ++item) {
            double peak = -INFINITY;
            F64 total = {};
            for (i64 state = item * BATCH; state < std::min(states, (item + 1) * BATCH); ++state) {
                double field[UNITS] = {}, level = 0;
                for (i64 i = 0; i < top_units; ++i) {
                    if (!(state >> i & 1)) continue;
                    for (int k = 0; k < UNITS; ++k) field[k] += fields[i * UNITS + k];
                    for (i64 k = 0; k <= i; ++k) level += state >> k & 1 ? top[i * top_units + k] : 0.0;
                }
                for (double each : field) level += std::max(each, 0.0);
                if (level > peak) {
                    total *= std::exp(peak - level);
                    peak = level;
                }
                add_lower_states(pair, first, second, field, std::exp(level - peak), total);
            }
            parts[2 * item] = peak, parts[2 * item + 1] = sum(total);
        }
    });
}
