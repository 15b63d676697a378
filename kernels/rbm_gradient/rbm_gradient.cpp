// The gradient on a CPU: fields and both products of states by tables.
//
// Bound by the additions of machines/binary_products.hpp, a quarter of one for each weight and chain: for the products as for
// the fields, since visible states are binary. There the chains are what is summed over, and the visible units share tables.
#include "machines/binary_products.hpp"
#include "functions.hpp"

// hidden[chain][unit] = sigmoid(beta (c_j + sum_i v_i W_ij)).
KERNEL void infer(const u8* visible, const float* weights, const float* bias, float* hidden, i64 chains, i64 visible_units,
                  i64 hidden_units, i64 weight_stride_visible, i64 weight_stride_hidden, double beta, int threads) {
    const Matrix<float> matrix = {weights, visible_units, hidden_units, weight_stride_visible, weight_stride_hidden};
    binary_products(visible, visible_units, false, chains, matrix, threads,
                    [&](i64 first_chain, i64 own_chains, i64 first_unit, const float* sums) {
                        const i64 units = std::min<i64>(UNITS, hidden_units - first_unit);
                        float own[UNITS] = {}, found[UNITS];
                        std::copy(bias + first_unit, bias + first_unit + units, own);
                        for (i64 i = 0; i < own_chains; ++i) {
                            for (int k = 0; k < UNITS; k += LANES<float>) {
                                const F32 field = load<F32>(own + k) + load<F32>(sums + i * UNITS + k);
                                store(found + k, 1.0f / (1.0f + exp(float(-beta) * field)));
                            }
                            std::copy(found, found + units, hidden + (first_chain + i) * hidden_units + first_unit);
                        }
                    });
}

// For each visible unit the chains where it is 1, and a last row where all chains are.
Subsets transposed(const u8* visible, i64 chains, i64 units, int threads) {
    constexpr i64 SOME = 16;
    Subsets subsets(units + 1, chains);
    parallel(subsets.groups, SOME, threads, [&](i64 first, i64 end) {
        std::vector<u8> line((units + 1) * SOME);
        for (i64 begin = first; begin < end; begin += SOME) {
            const i64 groups = std::min(SOME, end - begin);
            std::fill(line.begin(), line.end(), u8(0));
            for (i64 group = 0; group < groups; ++group) {
                u8* const to = line.data() + group * (units + 1);
                for (i64 bit = 0; bit < std::min<i64>(BITS, chains - (begin + group) * BITS); ++bit) {
                    const u8* const from = visible + ((begin + group) * BITS + bit) * units;
                    for (i64 unit = 0; unit < units; ++unit) to[unit] |= u8(from[unit] << bit);
                    to[units] |= u8(1 << bit);
                }
            }
            for (i64 unit = 0; unit <= units; ++unit) {
                u8* const to = subsets.at(unit) + begin;
                for (i64 group = 0; group < groups; ++group) to[group] = line[group * (units + 1) + unit];
            }
        }
    });
    return subsets;
}

// Writes the means over the chains of a phase, <v h>, <v> and <h>, or, if `subtract`, takes them away from what is there. Each
// mean is rounded first, so that equal phases cancel.
KERNEL void add_phase(const u8* visible, const float* hidden, float* weights_out, float* visible_out, float* hidden_out,
                      i64 chains, i64 visible_units, i64 hidden_units, i64 subtract, int threads) {
    const float share = 1.0f / float(chains);
    const Subsets subsets = transposed(visible, chains, visible_units, threads);
    const Matrix<float> matrix = {hidden, chains, hidden_units, hidden_units, 1};
    binary_products(subsets, visible_units + 1, matrix, threads,
                    [&](i64 first_row, i64 rows, i64 first_unit, float* sums) {
                        const i64 units = std::min<i64>(UNITS, hidden_units - first_unit);
                        for (i64 i = 0; i < rows; ++i) {
                            const i64 row = first_row + i;
                            float* const from = sums + i * UNITS;
                            float* const out = (row < visible_units ? weights_out + row * hidden_units : hidden_out) + first_unit;
                            float old[UNITS] = {};
                            if (subtract) std::copy(out, out + units, old);
                            for (int k = 0; k < UNITS; k += LANES<float>) {
                                const F32 mean = load<F32>(from + k) * share;
                                store(from + k, subtract ? load<F32>(old + k) - mean : mean);
                            }
                            std::copy(from, from + units, out);
                        }
                    });
    parallel(visible_units, 64, threads, [&](i64 first, i64 end) {
        for (i64 unit = first; unit < end; ++unit) {
            i64 count = 0;
            for (i64 group = 0; group < subsets.groups; ++group) count += __builtin_popcount(subsets.at(unit)[group]);
            const float mean = float(count) * share;
            visible_out[unit] = subtract ? visible_out[unit] - mean : mean;
        }
    });
}
