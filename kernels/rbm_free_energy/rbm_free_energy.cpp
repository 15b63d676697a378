// The free energy of each chain on a CPU: fields by tables, softplus and sum while they are in the cache.
//
// Bound by the additions of machines/binary_products.hpp, a quarter of one for each weight and chain. A hidden unit takes one
// exponential besides: softplus is max(z, 0) + log(1 + e^-|z|), and one logarithm of the product of its terms, which lie in
// [1, 2], serves 32 units.
#include "machines/binary_products.hpp"
#include "functions.hpp"

constexpr int LANE = LANES<float>;

typedef u8 Bytes __attribute__((vector_size(LANE)));  // as many elements as F32

float bias_sum(const u8* states, const float* bias, i64 units) {
    F32 sum = {};
    i64 unit = 0;
    for (; unit + LANE <= units; unit += LANE)
        sum = fma(__builtin_convertvector(load<Bytes>(states + unit), F32), load<F32>(bias + unit), sum);
    float total = ::sum(sum);
    for (; unit < units; ++unit) total += states[unit] ? bias[unit] : 0.0f;
    return total;
}

// The sum of softplus over the hidden units of a block.
float softplus_sum(const float* sums, const float* bias, i64 units, float beta) {
    F32 total = {}, product = all(1.0f);
    for (i64 k = 0; k < units; k += LANE) {
        const auto present = as<I32>(places<u32>()) < i32(units - k);
        const F32 z = present ? beta * (load<F32>(bias + k) + load<F32>(sums + k)) : all(-INFINITY);
        total += larger(z, F32{});
        product *= 1.0f + exp(z > 0.0f ? -z : z);
    }
    return sum(total) + std::log(reduce(product, [](float a, float b) { return a * b; }));
}

// visible: (chains, visible_units), contiguous; biases contiguous. betas: one for each chain, or null, then beta is that of
// all. out: (chains,).
KERNEL void free_energy(const u8* visible, const float* weights, const float* visible_bias, const float* hidden_bias,
                        const double* betas, float* out, i64 chains, i64 visible_units, i64 hidden_units,
                        i64 weight_stride_visible, i64 weight_stride_hidden, double beta, int threads) {
    const Matrix<float> matrix = {weights, visible_units, hidden_units, weight_stride_visible, weight_stride_hidden};
    const i64 blocks = (hidden_units + UNITS - 1) / UNITS;
    std::vector<float> parts(blocks * chains);
    binary_products(visible, visible_units, false, chains, matrix, threads,
                    [&](i64 first_chain, i64 own_chains, i64 first_unit, const float* sums) {
                        const i64 units = std::min<i64>(UNITS, hidden_units - first_unit);
                        float bias[UNITS] = {};
                        std::copy(hidden_bias + first_unit, hidden_bias + first_unit + units, bias);
                        for (i64 i = 0; i < own_chains; ++i) {
                            const i64 chain = first_chain + i;
                            parts[first_unit / UNITS * chains + chain] =
                                softplus_sum(sums + i * UNITS, bias, units, float(betas ? betas[chain] : beta));
                        }
                    });
    parallel(chains, 64, threads, [&](i64 first, i64 end) {
        for (i64 chain = first; chain < end; ++chain) {
            float total = 0;
            for (i64 block = 0; block < blocks; ++block) total += parts[block * chains + chain];
            const float of_bias = bias_sum(visible + chain * visible_units, visible_bias, visible_units);
            out[chain] = -of_bias - float(total / (betas ? betas[chain] : beta));
        }
    });
}
