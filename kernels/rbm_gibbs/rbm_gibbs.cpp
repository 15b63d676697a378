// Block Gibbs on a CPU, half a sweep or all of them: sums over binary units by tables, and draws from the random stream.
//
// Bound by the additions of machines/binary_products.hpp: a quarter of one for each weight and chain. A draw costs a quarter
// of a Philox call and an exponential. Sums over real-valued units come from torch's matrix product.
#include "machines/binary_products.hpp"
#include "random.hpp"

enum Result { STATES, PACKED, PROBABILITIES, REALS };

// See request.py. `sums`: (chains, units) products of real-valued units, or null. `wide`: weights and biases are double, and
// the test is decided in double. `odds`: the test is u (1 + exp(-x)) < 1, not u < p.
struct Half {
    const u8* given;
    const float* sums;
    const void* weights;
    const void* bias;
    void* out;
    const void* previous;
    const u8* clamped;
    const float* sigma;
    const double* betas;
    i64 chains, given_units, units, given_stride, out_stride, previous_stride, weight_strides[2], clamped_strides[2];
    i64 packed, result, wide, odds, first_chain;
    double beta;
    Keys keys;
    u32 step, stream;

    double beta_of(i64 chain) const { return betas ? betas[chain] : beta; }
    Words words(i64 chain, i64 unit) const {
        const u64 group = u64(first_chain + chain) * u64((units + 3) / 4) + unit / 4;
        return random_words(all<u64>(group) + places<u64>(), keys, step, stream);
    }
    bool keeps(i64 chain, i64 unit) const {
        return clamped && clamped[chain * clamped_strides[0] + unit * clamped_strides[1]];
    }
    // The half sweep of the chains [first, end) alone.
    Half of(i64 first, i64 end) const {
        Half part = *this;
        part.chains = end - first, part.first_chain += first;
        part.given += first * given_stride;
        part.out = static_cast<char*>(out) + first * out_stride;
        if (previous) part.previous = static_cast<const char*>(previous) + first * previous_stride;
        if (clamped) part.clamped += first * clamped_strides[0];
        if (betas) part.betas += first;
        return part;
    }
};

constexpr i64 LEAST = 128;  // chains of a thread, to be worth its tables
constexpr int AT_ONCE = 4 * LANES<u64>;  // units of a vector of groups

// The numbers in [0, 1) of the units of a block.
INLINE void uniforms(const Half& half, i64 chain, i64 first_unit, float* u) {
    for (int k = 0; k < UNITS; k += AT_ONCE) {
        U32 words[2];
        in_order(half.words(chain, first_unit + k), words[0], words[1]);
        for (int i = 0; i < 2; ++i) store(u + k + i * LANES<float>, uniform_of(words[i]));
    }
}

// The states of the units of a block, as bits.
template <class Real> INLINE u32 draw(const Half& half, i64 chain, i64 first_unit, const Real* logits) {
    float u[UNITS];
    Real wide[UNITS];
    uniforms(half, chain, first_unit, u);
    for (int unit = 0; unit < UNITS; ++unit) wide[unit] = u[unit];
    const Real beta = Real(half.beta_of(chain));
    u32 states = 0;
    for (int k = 0; k < UNITS; k += LANES<Real>) {
        const V<Real> odds = Real(1) + exp(-(beta * load<V<Real>>(logits + k))), uniform = load<V<Real>>(wide + k);
        const V<Real> test = half.odds ? Real(1) - uniform * odds : Real(1) / odds - uniform;
        states |= bits(test > Real(0)) << k;  // false for NaN
    }
    return states;
}

template <class Real> void finish_chain(const Half& half, i64 chain, i64 first_unit, i64 units, const Real* logits) {
    u8* const out = static_cast<u8*>(half.out) + chain * half.out_stride;
    const u8* const previous = static_cast<const u8*>(half.previous) + chain * half.previous_stride;
    if (half.result == PROBABILITIES) {
        const Real beta = Real(half.beta_of(chain));
        float p[UNITS];
        for (int k = 0; k < UNITS; k += LANES<Real>) {
            const V<Real> found = Real(1) / (Real(1) + exp(-(beta * load<V<Real>>(logits + k))));
            for (int i = 0; i < LANES<Real>; ++i) p[k + i] = float(found[i]);
        }
        std::memcpy(reinterpret_cast<float*>(out) + first_unit, p, units * sizeof(float));
        return;
    }
    u32 states = draw(half, chain, first_unit, logits);
    const bool packed = half.result == PACKED;
    if (half.clamped)
        for (i64 i = 0; i < units; ++i) {
            const i64 unit = first_unit + i;
            if (!half.keeps(chain, unit)) continue;
            const u32 old = packed ? previous[unit / 8] >> unit % 8 & 1 : previous[unit];
            states = (states & ~(1u << i)) | old << i;
        }
    if (!packed) {
        u8 bytes[UNITS];
        for (int i = 0; i < UNITS; ++i) bytes[i] = states >> i & 1;
        std::memcpy(out + first_unit, bytes, units < UNITS ? units : UNITS);
        return;
    }
    if (units < UNITS) states &= (1u << units) - 1;
    const u32 both[2] = {states, 0};  // the last word of 64 units may have no second half
    const bool alone = first_unit + UNITS >= half.units && first_unit % 64 == 0;
    std::memcpy(out + first_unit / 8, both, alone ? 8 : 4);
}

// Real-valued units: a normal number around the mean.
void finish_reals(const Half& half, i64 chain, i64 first_unit, i64 units, const float* sums) {
    const float* const bias = static_cast<const float*>(half.bias);
    float* const out = reinterpret_cast<float*>(static_cast<char*>(half.out) + chain * half.out_stride);
    const float* const previous =
        reinterpret_cast<const float*>(static_cast<const char*>(half.previous) + chain * half.previous_stride);
    const float spread = float(1.0 / std::sqrt(half.beta_of(chain)));
    float z[UNITS];
    for (int k = 0; k < UNITS; k += AT_ONCE) {
        F32 low, high;
        normals(half.words(chain, first_unit + k), spread, low, high);
        store(z + k, low), store(z + k + LANES<float>, high);
    }
    for (i64 i = 0; i < units; ++i) {
        const i64 unit = first_unit + i;
        out[unit] = half.keeps(chain, unit) ? previous[unit] : std::fma(half.sigma[unit], sums[i] + z[i], bias[unit]);
    }
}

template <class Real> void finish_block(const Half& half, i64 first_chain, i64 chains, i64 first_unit, const Real* sums) {
    const i64 units = std::min<i64>(UNITS, half.units - first_unit);
    Real bias[UNITS] = {};
    std::memcpy(bias, static_cast<const Real*>(half.bias) + first_unit, units * sizeof(Real));
    for (i64 i = 0; i < chains; ++i) {
        Real logits[UNITS];
        for (int unit = 0; unit < UNITS; ++unit) logits[unit] = bias[unit] + sums[i * UNITS + unit];
        finish_chain(half, first_chain + i, first_unit, units, logits);
    }
}

template <class Real> void advance(const Half& half, int threads) {
    const Matrix<Real> matrix = {static_cast<const Real*>(half.weights), half.given_units, half.units,
                                 half.weight_strides[0], half.weight_strides[1]};
    binary_products(half.given, half.given_stride, half.packed, half.chains, matrix, threads,
                    [&](i64 first_chain, i64 chains, i64 first_unit, const Real* sums) {
                        if constexpr (sizeof(Real) == 4)
                            if (half.result == REALS) {
                                for (i64 i = 0; i < chains; ++i)
                                    finish_reals(half, first_chain + i, first_unit,
                                                 std::min<i64>(UNITS, half.units - first_unit), sums + i * UNITS);
                                return;
                            }
                        finish_block(half, first_chain, chains, first_unit, sums);
                    });
}

KERNEL void half_sweep(const Half* half, int threads) {
    if (half->wide) return advance<double>(*half, threads);
    if (!half->sums) return advance<float>(*half, threads);
    parallel(half->chains, 16, threads, [&](i64 first, i64 end) {
        for (i64 chain = first; chain < end; ++chain)
            for (i64 unit = 0; unit < half->units; unit += UNITS) {
                float sums[UNITS] = {};
                std::memcpy(sums, half->sums + chain * half->units + unit,
                            std::min<i64>(UNITS, half->units - unit) * sizeof(float));
                finish_block(*half, chain, 1, unit, sums);
            }
    });
}

// As many pairs of half sweeps, each with the next step. Each thread takes chains through all sweeps, so that no thread waits
// for another before the end. Few chains do not fill the threads: they share the units of each half sweep instead.
KERNEL void all_sweeps(const Half* to_hidden, const Half* to_visible, i64 sweeps, int threads) {
    const i64 chains = to_hidden->chains, share = chains / threads;
    const auto run = [&](i64 first, i64 end, int threads) {
        Half hidden = to_hidden->of(first, end), visible = to_visible->of(first, end);
        for (i64 sweep = 0; sweep < sweeps; ++sweep) {
            half_sweep(&hidden, threads);
            half_sweep(&visible, threads);
            ++hidden.step, ++visible.step;
            hidden.given = static_cast<const u8*>(visible.out), hidden.given_stride = visible.out_stride;
            visible.previous = visible.out, visible.previous_stride = visible.out_stride;
        }
    };
    if (share < LEAST) return run(0, chains, threads);
    parallel(chains, std::clamp<i64>(share, LEAST, CHAINS), threads, [&](i64 first, i64 end) { run(first, end, 1); });
}
