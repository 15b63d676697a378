// The Langevin updates in CUDA C: one launch for a list of tensors of any shapes and dtypes.
//
// Bound by memory. A float32 parameter moves 12 bytes (parameter and gradient read, parameter written), one of 16 bits
// 6; a preconditioner or a momentum, which are float32 for either, adds 8. An H200 moves 4.3e12 B/s: 1.4
// float32 parameters, or 2.7 of 16 bits, per clock and multiprocessor, which leaves 93 and 47 instructions for one. An
// update needs Philox and the Box-Muller transform (see philox.cuh), two fused multiply-adds, and packing for 16 bits.
// On sm_90 it takes 35 instructions for a float32 parameter, 33 for bfloat16, 40 with stochastic rounding;
// Philox takes 10 of them for each word (tests/operations/sgld/golden/cupy-sm_90.txt). Predicted, not measured, for an
// H200 whose copies reach 81 % of the datasheet: 0.31e12 float32 parameters/s (0.26e12 to 0.36e12), 0.57e12 of bfloat16
// (0.48e12 to 0.67e12); memory decides.
//
// Design: a block looks up its tensor and its 4096 elements in the table. A thread handles a pack at a time, 4 elements
// or 8 of 16 bits, in accesses of 128 bits; one Philox call serves four elements, in the registers where they are. It
// loads the next pack before it computes with the one that it has, so that loads and arithmetic overlap. Tensors that
// do not begin at a multiple of 16 bytes, and the last pack of a tensor, go element by element. There is a
// specialization for lists of one dtype; the kernel for several dtypes pays for a switch per block, and in registers
// for the widest dtype.
#include "philox.cuh"

constexpr int THREADS = 256;
constexpr int BLOCK = 4096;  // elements of a block

enum Kind { LANGEVIN, PRECONDITIONED, HAMILTONIAN };

// A row of the table of tensors and one of the table of blocks: see request.py.
struct Tensor {
    i64 parameter, gradient, state, elements, dtype, number;
};
struct Block {
    i64 tensor, first;
};

// The factors of the formulas; see `drifted` and `add_noise`.
template <class Real> struct Numbers {
    Real drift, noise, keep, take, damping;
};

// The arguments that all elements share, in constant memory. `device_step`, if not null, holds the step in place of
// `step`, so that a captured launch can advance in the stream at each replay.
struct Settings {
    Numbers<double> doubles;
    Numbers<float> floats;
    Keys keys;
    u32 step;
    const i64* device_step;
};
__device__ __forceinline__ const Numbers<float>& numbers_of(const Settings& settings, float) { return settings.floats; }
__device__ __forceinline__ const Numbers<double>& numbers_of(const Settings& settings, double) {
    return settings.doubles;
}

// Types of a parameter besides those of device.cuh: bfloat16 with stochastic rounding, and `Any` of the others, for the
// kernel of lists of several dtypes.
struct Stochastic {
    unsigned short bits;
};
struct Any;
template <class> constexpr bool is_any = false;
template <> constexpr bool is_any<Any> = true;
template <class> constexpr bool is_stochastic = false;
template <> constexpr bool is_stochastic<Stochastic> = true;

__device__ __forceinline__ float to_float(Stochastic x) { return to_float(bfloat16{x.bits}); }

// The elements that a thread handles at a time: N neighbours of type T, in whole groups of four, as they are in memory.
template <class T> struct Pack {
    static constexpr int N = sizeof(T) == 2 ? 8 : 4, QUADS = N * sizeof(T) / 16;
    u32 word[4 * QUADS];
};

// Accesses to 16 bytes of global memory. An address from a table could be in any memory, so the instruction names it.
#ifdef BOLTZBENCH_EMULATOR
inline void load_quad(const char* from, u32* word) {
    const uint4 quad = *reinterpret_cast<const uint4*>(from);
    word[0] = quad.x, word[1] = quad.y, word[2] = quad.z, word[3] = quad.w;
}
inline void store_quad(char* to, const u32* word) {
    *reinterpret_cast<uint4*>(to) = make_uint4(word[0], word[1], word[2], word[3]);
}
#else
__device__ __forceinline__ void load_quad(const char* from, u32* word) {
    asm volatile("ld.global.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(word[0]), "=r"(word[1]), "=r"(word[2]), "=r"(word[3]) : "l"(from) : "memory");
}
__device__ __forceinline__ void store_quad(char* to, const u32* word) {
    asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};"
                 :: "l"(to), "r"(word[0]), "r"(word[1]), "r"(word[2]), "r"(word[3]) : "memory");
}
#endif

template <int QUADS> __device__ __forceinline__ void load_quads(const char* from, u32* word) {
#pragma unroll
    for (int q = 0; q < QUADS; ++q) load_quad(from + 16 * q, word + 4 * q);
}
template <int QUADS> __device__ __forceinline__ void store_quads(char* to, const u32* word) {
#pragma unroll
    for (int q = 0; q < QUADS; ++q) store_quad(to + 16 * q, word + 4 * q);
}

// Set and get element j of a pack.
template <class T> __device__ __forceinline__ void put(Pack<T>& pack, int j, T x) {
    if constexpr (sizeof(T) == 8) {
        const u64 bits = (u64)__double_as_longlong(x);
        pack.word[2 * j] = (u32)bits, pack.word[2 * j + 1] = (u32)(bits >> 32);
    } else if constexpr (sizeof(T) == 4) {
        pack.word[j] = __float_as_uint(x);
    } else {
        const u32 other = pack.word[j / 2] & (j % 2 ? 0x0000ffffu : 0xffff0000u);
        pack.word[j / 2] = other | (u32)x.bits << (j % 2 ? 16 : 0);
    }
}
template <class T> __device__ __forceinline__ T get(const Pack<T>& pack, int j) {
    if constexpr (sizeof(T) == 8)
        return __longlong_as_double((i64)((u64)pack.word[2 * j + 1] << 32 | pack.word[2 * j]));
    else if constexpr (sizeof(T) == 4) return __uint_as_float(pack.word[j]);
    else return T{(unsigned short)(pack.word[j / 2] >> (j % 2 ? 16 : 0))};
}

// The place of a pack in the random stream.
struct Draws {
    const Keys& keys;
    u32 step, tensor, group, group_high;  // the first group of four: low and high word

    __device__ __forceinline__ Words noise(int part) const {
        return random_words((u64)group_high << 32 | (group + part), keys, step, STREAM_NOISE, tensor);
    }
    __device__ __forceinline__ Words rounding() const {  // of the group of eight
        const u32 eight = group >> 1 | group_high << 31;
        return random_words((u64)(group_high >> 1) << 32 | eight, keys, step, STREAM_ROUNDING, tensor);
    }
};

// The bits of x plus one half of a random word. The upper 16 bits of the sum are x rounded away from zero if the lower
// ones carry, with the probability that makes the mean exact. Infinity has no lower bits and stays unchanged. A NaN
// must not carry into a zero. On a GPU, arithmetic produces the NaN 0x7fffffff only, and no other result has bits
// beyond 0x7fff0000; the minimum makes it 0x7fff0000, which is a NaN, too.
#ifdef BOLTZBENCH_EMULATOR
inline u32 plus_half(float x, u32 random, bool high) {
    return x == x ? __float_as_uint(x) + (high ? random >> 16 : random & 0xffffu) : 0x7fff0000u;
}
inline u32 pair_of(float low, float high, bfloat16) {
    return to_bfloat16(low).bits | (u32)to_bfloat16(high).bits << 16;
}
inline u32 pair_of(float low, float high, float16) { return to_float16(low).bits | (u32)to_float16(high).bits << 16; }
#else
__device__ __forceinline__ u32 plus_half(float x, u32 random, bool high) {
    u32 sum;  // products of the 16-bit halves with 1 and 0 select one of them
    asm("dp2a.lo.u32.u32 %0, %1, %2, %3;"
        : "=r"(sum) : "r"(random), "r"(high ? 0x0100u : 0x0001u), "r"(min(__float_as_int(x), 0x7fff0000)));
    return sum;
}
__device__ __forceinline__ u32 pair_of(float low, float high, bfloat16) {
    u32 pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}
__device__ __forceinline__ u32 pair_of(float low, float high, float16) {
    u32 pair;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}
#endif

template <class T> __device__ __forceinline__ Pack<T> rounded(const Wide<T>* x, const Draws& draws) {
    Pack<T> pack;
    if constexpr (is_stochastic<T>) {
        const Words random = draws.rounding();
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            const u32 low = plus_half(x[2 * j], random.word[j], false);
            const u32 high = plus_half(x[2 * j + 1], random.word[j], true);
            pack.word[j] = __byte_perm(low, high, 0x7632);
        }
    } else if constexpr (sizeof(T) == 2) {
#pragma unroll
        for (int j = 0; j < 4; ++j) pack.word[j] = pair_of(x[2 * j], x[2 * j + 1], T());
    } else {
#pragma unroll
        for (int j = 0; j < 4; ++j) put(pack, j, x[j]);
    }
    return pack;
}

// For a preconditioner. Its damping is at least 1e-12, so flushing subnormal numbers to zero makes no difference.
__device__ __forceinline__ float square_root(float x) { return sqrt_approximate(x); }
__device__ __forceinline__ double square_root(double x) { return sqrt(x); }
#ifdef BOLTZBENCH_EMULATOR
inline float reciprocal(float x) { return 1 / x; }
#else
__device__ __forceinline__ float reciprocal(float x) {  // one MUFU instruction, within 1 ulp
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
#endif
__device__ __forceinline__ double reciprocal(double x) { return 1 / x; }

// One element: its position, its V or p, and a factor of its noise besides `Numbers::noise`.
template <class Real> struct Element {
    Real x, state, scale;
};

template <int KIND, class Real>
__device__ __forceinline__ Element<Real> drifted(Real x, Real g, Real state, const Numbers<Real>& n) {
    if (KIND == LANGEVIN) return {x - n.drift * g, 0, 1};
    if (KIND == HAMILTONIAN) return {x, n.keep * state - n.drift * g, 1};
    const Real square = n.keep * state + n.take * g * g;
    const Real preconditioner = reciprocal(n.damping + square_root(square));
    return {x - n.drift * preconditioner * g, square, square_root(preconditioner)};
}

// z: a normal number times `Numbers::noise`.
template <int KIND, class Real> __device__ __forceinline__ void add_noise(Element<Real>& element, Real z) {
    if (KIND == LANGEVIN) element.x += z;
    if (KIND == PRECONDITIONED) element.x += element.scale * z;
    if (KIND == HAMILTONIAN) element.state += z;
}

template <int KIND, bool NOISY, class T> struct Update {
    using Real = Wide<T>;
    static constexpr int N = Pack<T>::N, STRIDE = THREADS * N, STATES = KIND == LANGEVIN ? 0 : N;
    static constexpr int QUADS = Pack<T>::QUADS, STATE_QUADS = STATES * sizeof(Real) / 16;

    // Where this thread's elements are, in memory and in the stream.
    char *x, *state;
    const char* g;
    Draws draws;

    struct Loaded {
        Pack<T> x, g;
        Pack<Real> state[STATES / 4 + (STATES == 0)];
    };

    __device__ __forceinline__ Loaded load(int ahead) const {
        Loaded loaded;
        load_quads<QUADS>(x + ahead * sizeof(T), loaded.x.word);
        load_quads<QUADS>(g + ahead * sizeof(T), loaded.g.word);
#pragma unroll
        for (int part = 0; part < STATES / 4; ++part)
            load_quads<Pack<Real>::QUADS>(state + (ahead + 4 * part) * sizeof(Real), loaded.state[part].word);
        return loaded;
    }

    // Updates a pack and moves on to the next. `count` elements are left from this thread's first on. WHOLE: all of the
    // pack's elements are among them, and the next pack is loaded ahead; otherwise they are stored one by one.
    template <bool WHOLE>
    __device__ __forceinline__ void advance(Loaded& loaded, int count, const Numbers<Real>& numbers) {
        Element<Real> elements[N];
#pragma unroll
        for (int j = 0; j < N; ++j)
            elements[j] = drifted<KIND>((Real)widen(get(loaded.x, j)), (Real)widen(get(loaded.g, j)),
                                        STATES ? get(loaded.state[STATES ? j / 4 : 0], j % 4) : 0, numbers);
        if (WHOLE && STRIDE + N <= count) loaded = load(STRIDE);
        Real position[N];
#pragma unroll
        for (int part = 0; part < N / 4; ++part) {
            Real z[4];
            if (NOISY) normals(draws.noise(part), numbers.noise, z);
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                Element<Real>& element = elements[4 * part + j];
                if (NOISY) add_noise<KIND>(element, z[j]);
                position[4 * part + j] = KIND == HAMILTONIAN ? element.x + element.state : element.x;
            }
        }
        const Pack<T> moved = rounded<T>(position, draws);
        if (WHOLE) {
            store_quads<QUADS>(x, moved.word);
#pragma unroll
            for (int part = 0; part < STATES / 4; ++part) {
                Pack<Real> states;
#pragma unroll
                for (int j = 0; j < 4; ++j) put(states, j, elements[4 * part + j].state);
                store_quads<Pack<Real>::QUADS>(state + 4 * part * sizeof(Real), states.word);
            }
        } else {
#pragma unroll
            for (int j = 0; j < N; ++j)
                if (j < count) {
                    reinterpret_cast<T*>(x)[j] = get(moved, j);
                    if (STATES) reinterpret_cast<Real*>(state)[j] = elements[j].state;
                }
        }
        x += STRIDE * sizeof(T);
        g += STRIDE * sizeof(T);
        if (STATES) state += STRIDE * sizeof(Real);
        draws.group += STRIDE / 4;
    }

    // Updates all packs of this thread. `count` elements are left from its first on.
    __device__ __forceinline__ void run(int count, bool aligned, const Numbers<Real>& numbers) {
        if (aligned && N <= count) {
            Loaded loaded = load(0);
            do {
                advance<true>(loaded, count, numbers);
                count -= STRIDE;
            } while (N <= count);
        }
        for (; count > 0; count -= STRIDE) {
            Loaded loaded = {};
#pragma unroll
            for (int j = 0; j < N; ++j)
                if (j < count) {
                    put(loaded.x, j, reinterpret_cast<const T*>(x)[j]);
                    put(loaded.g, j, reinterpret_cast<const T*>(g)[j]);
                    if (STATES) put(loaded.state[STATES ? j / 4 : 0], j % 4, reinterpret_cast<const Real*>(state)[j]);
                }
            advance<false>(loaded, count, numbers);
        }
    }
};

template <int KIND, bool NOISY, class T>
__device__ __forceinline__ void update_block(const Tensor& tensor, i64 first, const Settings& settings) {
    using Real = Wide<T>;
    const u32 step = settings.device_step ? (u32)*settings.device_step : settings.step;
    const i64 own = first + threadIdx.x * Pack<T>::N, left = tensor.elements - first;
    // A block does not cross a multiple of 2^32 groups, so all its groups have the high word of the first.
    Update<KIND, NOISY, T> update = {
        reinterpret_cast<char*>(tensor.parameter + own * sizeof(T)),
        reinterpret_cast<char*>(tensor.state + (KIND == LANGEVIN ? 0 : own) * sizeof(Real)),
        reinterpret_cast<const char*>(tensor.gradient + own * sizeof(T)),
        {settings.keys, step, (u32)tensor.number, (u32)(own >> 2), (u32)(first >> 34)},
    };
    const bool aligned = ((tensor.parameter | tensor.gradient | tensor.state) & 15) == 0;
    update.run((left < BLOCK ? (int)left : BLOCK) - threadIdx.x * Pack<T>::N, aligned, numbers_of(settings, Real()));
}

template <int KIND, bool NOISY, class T>
__global__ void __launch_bounds__(THREADS)
    update(const Tensor* tensors, const Block* blocks, const __grid_constant__ Settings settings) {
    const Block block = blocks[blockIdx.x];
    const Tensor tensor = tensors[block.tensor];
    if constexpr (!is_any<T>) {
        update_block<KIND, NOISY, T>(tensor, block.first, settings);
    } else {
        switch (tensor.dtype) {
            case 0: return update_block<KIND, NOISY, float>(tensor, block.first, settings);
            case 1: return update_block<KIND, NOISY, float16>(tensor, block.first, settings);
            case 2: return update_block<KIND, NOISY, bfloat16>(tensor, block.first, settings);
            case 3: return update_block<KIND, NOISY, Stochastic>(tensor, block.first, settings);
            default: return update_block<KIND, NOISY, double>(tensor, block.first, settings);
        }
    }
}
