// The Langevin updates on a CPU: the elements of all tensors in chunks, on all threads; see request.py for the tables.
//
// A chunk is 8 vectors of groups of the random stream, and its arithmetic stays in registers. Bound by memory: 12 bytes a
// float32 parameter, if the noise keeps up.
#include "random.hpp"
#include "types.hpp"

enum Kind { LANGEVIN, PRECONDITIONED, HAMILTONIAN };

struct Tensor {
    i64 parameter, gradient, state, elements, dtype, number;
};
struct Block {
    i64 tensor, first;
};

struct Numbers {
    double drift, noise, keep, take, damping;
};
struct Settings {
    Numbers numbers;
    Keys keys;
    u32 step;
};

struct Stochastic {  // bfloat16, rounded up or down at random
    u16 bits;
};
INLINE F32 widen(const U16& x, Stochastic) { return widen(x, bfloat16()); }

constexpr int CHUNK = 8 * LANES<u64>;  // elements: one vector of groups of eight, two of groups of four

// Away from zero if adding 16 random bits to the 16 that are cut off carries.
INLINE U16 rounded(const F32& x, const U16& random) {
    const U32 bits = as<U32>(x), carried = bits + __builtin_convertvector(random, U32);
    return __builtin_convertvector((x != x ? all<u32>(0x7fff0000u) : carried) >> 16, U16);
}

// Standard normal numbers of a chunk, times `scale`.
INLINE void chunk_noise(u64 first_group, const Settings& settings, u32 tensor, float scale, F32* z) {
    Words words[2];
    random_words(words, first_group, settings.keys, settings.step, STREAM_NOISE, tensor);
    for (int half = 0; half < 2; ++half) normals(words[half], scale, z[2 * half], z[2 * half + 1]);
}
INLINE void chunk_noise(u64 first_group, const Settings& settings, u32 tensor, double scale, F64* z) {
    Words words[2];
    random_words(words, first_group, settings.keys, settings.step, STREAM_NOISE, tensor);
    for (int half = 0; half < 2; ++half) normals(words[half], scale, z + 4 * half);
}

template <int KIND, bool NOISY, class T>
INLINE void update_chunk(T* x, const T* g, Wide<T>* state, u64 first, const Settings& settings, u32 tensor) {
    using Real = Wide<T>;
    using Vector = V<Real>;
    constexpr int STEP = LANES<Real>, PARTS = CHUNK / STEP;
    const Vector drift = all(Real(settings.numbers.drift)), keep = all(Real(settings.numbers.keep));
    const Vector take = all(Real(settings.numbers.take)), damping = all(Real(settings.numbers.damping));
    Vector z[PARTS];
    if (NOISY) chunk_noise(first / 4, settings, tensor, Real(settings.numbers.noise), z);
    U16 random[4] = {};
    if constexpr (std::is_same_v<T, Stochastic>) {
        const U64 groups = all<u64>(first / 8) + places<u64>();
        U32 words[2];
        in_order(random_words(groups, settings.keys, settings.step, STREAM_ROUNDING, tensor), words[0], words[1]);
        std::memcpy(random, words, sizeof random);
    }
    for (int part = 0; part < PARTS; ++part) {
        const int at = part * STEP;
        const Vector gradient = load_wide(g + at);
        Vector position = load_wide(x + at);
        if constexpr (KIND == LANGEVIN) {
            position = position - drift * gradient;
            if (NOISY) position += z[part];
        } else if constexpr (KIND == HAMILTONIAN) {
            Vector momentum = keep * load<Vector>(state + at) - drift * gradient;
            if (NOISY) momentum += z[part];
            store(state + at, momentum);
            position += momentum;
        } else {
            const Vector square = keep * load<Vector>(state + at) + take * gradient * gradient;
            const Vector preconditioner = Real(1) / (damping + square_root(square));
            store(state + at, square);
            position = position - drift * preconditioner * gradient;
            if (NOISY) position += square_root(preconditioner) * z[part];
        }
        if constexpr (std::is_same_v<T, Stochastic>) store(x + at, rounded(position, random[part]));
        else store_narrow(x + at, position);
    }
}

template <int KIND, bool NOISY, class T>
void update_block(const Tensor& tensor, i64 first, i64 end, const Settings& settings) {
    using Real = Wide<T>;
    T* const x = reinterpret_cast<T*>(tensor.parameter);
    const T* const g = reinterpret_cast<const T*>(tensor.gradient);
    Real* const state = reinterpret_cast<Real*>(tensor.state);
    const u32 number = static_cast<u32>(tensor.number);
    i64 i = first;
    for (; i + CHUNK <= end; i += CHUNK)
        update_chunk<KIND, NOISY, T>(x + i, g + i, KIND == LANGEVIN ? nullptr : state + i, i, settings, number);
    if (i == end) return;
    T last_x[CHUNK] = {}, last_g[CHUNK] = {};
    Real last_state[CHUNK] = {};
    const i64 left = end - i;
    std::memcpy(last_x, x + i, left * sizeof(T));
    std::memcpy(last_g, g + i, left * sizeof(T));
    if (KIND != LANGEVIN) std::memcpy(last_state, state + i, left * sizeof(Real));
    update_chunk<KIND, NOISY, T>(last_x, last_g, last_state, i, settings, number);
    std::memcpy(x + i, last_x, left * sizeof(T));
    if (KIND != LANGEVIN) std::memcpy(state + i, last_state, left * sizeof(Real));
}

template <int KIND, bool NOISY>
void update_any(const Tensor& tensor, i64 first, i64 end, const Settings& settings) {
    switch (tensor.dtype) {
        case 0: return update_block<KIND, NOISY, float>(tensor, first, end, settings);
        case 1: return update_block<KIND, NOISY, float16>(tensor, first, end, settings);
        case 2: return update_block<KIND, NOISY, bfloat16>(tensor, first, end, settings);
        case 3: return update_block<KIND, NOISY, Stochastic>(tensor, first, end, settings);
        default: return update_block<KIND, NOISY, double>(tensor, first, end, settings);
    }
}

template <int KIND>
void update(const Tensor* tensors, const Block* blocks, i64 count, i64 length, const Settings& settings, int threads) {
    parallel(count, 1, threads, [&](i64 from, i64 to) {
        for (i64 block = from; block < to; ++block) {
            const Tensor& tensor = tensors[blocks[block].tensor];
            const i64 first = blocks[block].first, end = std::min(tensor.elements, first + length);
            if (settings.numbers.noise != 0) update_any<KIND, true>(tensor, first, end, settings);
            else update_any<KIND, false>(tensor, first, end, settings);
        }
    });
}

// One function for each formula. `blocks`: see request.py; a block has `length` elements, a multiple of a chunk.
KERNEL void langevin(const Tensor* tensors, const Block* blocks, i64 count, i64 length, const Settings* settings, int threads) {
    update<LANGEVIN>(tensors, blocks, count, length, *settings, threads);
}
KERNEL void preconditioned(const Tensor* tensors, const Block* blocks, i64 count, i64 length, const Settings* settings, int threads) {
    update<PRECONDITIONED>(tensors, blocks, count, length, *settings, threads);
}
KERNEL void hamiltonian(const Tensor* tensors, const Block* blocks, i64 count, i64 length, const Settings* settings, int threads) {
    update<HAMILTONIAN>(tensors, blocks, count, length, *settings, threads);
}
