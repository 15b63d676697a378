// Checkerboard sweeps of Ising lattices in CUDA C, 32 spins of one colour at a time; see reference.py for the model.
//
// Bound by instructions: a half sweep reads and writes 3/8 of a byte for each spin, and for 32 spins it needs
//   neighbours   two full adders on words, some 15 LOP3: the number of satisfied bonds of each spin, in 3 bit planes
//   numbers      Philox-10: 20 wide products and 20 LOP3 for 4 bits of all 32 spins
//   comparison   of each random number with the threshold of its spin's class, from the most significant bit on. The
//                first bit that differs decides. After t bits a spin is undecided with probability 2^-t, so that 32
//                spins take 6 bits, and the slowest of a warp's 32 words takes 11: three groups of the eight.
// On sm_90 and by the heat bath a group of four bits of 32 spins takes 67 instructions, and the rest of a word 87. The
// mean over warps is 3.22 groups, with which 184 instructions use the alu pipe. Predicted, not measured, for an H200: at
// best 2900 flips/ns by that pipe; expected 2350 (1990 to 2770), and 2440 (2070 to 2870) with lattices resident.
// Metropolis: 63, 109, 179; 3010, 2450 and 2580. To beat: 900 flips/ns on an H100 (github.com/NVIDIA/ising-gpu).
//
// By the heat bath without a field a spin ends along its neighbours, unless its number is less than the threshold of
// |dE|: one threshold serves a flip and its reverse, so that there are three instead of five.
//
// A threshold has 32 bits. The bits of a number that are never drawn cannot change the comparison, so the spins do not
// depend on when a kernel stops drawing.
//
// Design: a thread has a word. The bits of a lattice's thresholds are masks in shared memory: one read gets the same
// bit for all classes, and a LOP3 for each class but the last selects among them. A block has one lattice, or several
// small ones. `resident_sweeps` keeps the lattices in shared memory for all sweeps.
#include "machines/spins.cuh"

constexpr int THREADS = 256;

// Words of a mask: one for each class, padded for vector loads.
template <int CLASSES> constexpr int PADDED = CLASSES == 2 ? 2 : CLASSES == 3 ? 4 : 12;
template <int CLASSES> struct __align__(CLASSES == 2 ? 8 : 16) Masks {
    u32 of[PADDED<CLASSES>];
};

// Keeps an address in a register, to which one wide product adds an offset. Without it the compiler would add the offset
// to the parts that the address is made of, at each access.
#ifdef BOLTZBENCH_EMULATOR
template <class T> T* in_register(T* address) { return address; }
#else
template <class T> __device__ __forceinline__ T* in_register(T* address) {
    asm("" : "+l"(address));
    __builtin_assume(__isGlobal(address));
    return address;
}
#endif

// The arguments that all lattices of a launch share.
struct Settings {
    Keys keys;
    i64 lattices, first_word;    // the number of the first lattice's first word in the stream
    u32 height, words, columns;  // of a lattice: rows, words and sites of one colour in a row
    u32 unsatisfied;             // the exclusive or of two spins whose bond is unsatisfied, on all bits
    u32 step, colour, sweeps;
    u32 first_cell, end_cell;    // the words to update, of one colour of each lattice
};

// Fills the masks of one lattice with the threads of its row of the block. The last masks mark certain flips.
template <int CLASSES> __device__ __forceinline__ void fill_masks(Masks<CLASSES>* masks, const u32* thresholds) {
    for (u32 i = threadIdx.x; i < (BITS + 1) * CLASSES; i += blockDim.x) {
        const u32 bit = i / CLASSES, kind = i % CLASSES;
        const u32 half = thresholds[2 * kind + (bit == BITS)];  // the upper half of 2^32 is 1
        masks[bit].of[kind] = 0u - (half >> (bit == BITS ? 0 : BITS - 1 - bit) & 1);
    }
}

// The spins of `own` in each class, from the words of their neighbours. Returns the spins that flip unless the comparison
// says otherwise: by the heat bath those with dE <= 0, else none.
template <int CLASSES>
__device__ __forceinline__ u32 find_classes(u32 own, u32 a, u32 b, u32 c, u32 d, u32 unsatisfied, u32* kind) {
    if (CLASSES < 10) {
        const u32 wanted = own ^ unsatisfied;  // a neighbour that differs from it satisfies the bond
        a ^= wanted, b ^= wanted, c ^= wanted, d ^= wanted;
    }
    const u32 sum = a ^ b ^ c, carry = majority(a, b, c);
    const u32 ones = sum ^ d, second = sum & d, twos = carry ^ second, fours = carry & second;
    if (CLASSES == 2) {
        kind[0] = ones & twos, kind[1] = fours;
        return 0;
    }
    if (CLASSES == 3) {
        kind[0] = twos & ~ones, kind[1] = ones;  // the last class has the others
        return ~(fours | (ones & twos));
    }
    const u32 count[5] = {~(ones | twos | fours), ones & ~twos, ~ones & twos, ones & twos, fours};
#pragma unroll
    for (int i = 0; i < 5; ++i) {
        kind[i % CLASSES] = count[i] & ~own;
        kind[(i + 5) % CLASSES] = count[i] & own;
    }
    return 0;
}

// Updates every `stride`-th word of one colour of a lattice, from `first` on: reads the colour in `old` and the other
// one in `other`, and writes to `mine`. `first_word` is the number of the lattice's first word in the stream.
template <int CLASSES>
__device__ __forceinline__ void advance(const u32* old, const u32* other, u32* mine, const Masks<CLASSES>* masks,
                                        i64 first_word, u32 first, u32 stride, u32 step, u32 colour,
                                        const Settings& settings) {
    const u32 words = settings.words, cells = settings.height * words;
    const u32 last_bits = settings.columns - 32 * (words - 1);
    const u32 stream = STREAM_EVEN_SITES + colour;
    const u32 row_stride = stride / words, place_stride = stride - row_stride * words;
    u32 row = first / words, place = first - row * words;
    for (u32 cell = first; cell < settings.end_cell; cell += stride) {
        const bool is_first = place == 0, is_last = place == words - 1;
        const u32 bits = is_last ? last_bits : 32;
        const u32 own = old[cell], here = other[cell];
        const u32 above = other[cell < words ? cell + (cells - words) : cell - words];
        const u32 below = other[cell >= cells - words ? place : cell + words];
        // The horizontal neighbours that are not in `here`: its bits moved by one place, the outermost bit from the
        // next or the previous word. Bits beyond the last site are ignored.
        const bool to_right = (row + colour) & 1;
        const u32 next = is_last ? cell - place : cell + 1, previous = is_first ? cell + (words - 1) : cell - 1;
        const u32 beyond = other[to_right ? next : previous];
        const u32 beside = to_right ? here >> 1 | beyond << (bits - 1)
                                    : here << 1 | beyond >> ((is_first ? last_bits : 32) - 1);
        row += row_stride, place += place_stride;
        if (place >= words) place -= words, ++row;
        u32 kind[CLASSES], flips = 0, all = 0;
        const u32 cheap = find_classes<CLASSES>(own, here, beside, above, below, settings.unsatisfied, kind);
#pragma unroll
        for (int i = 0; i < CLASSES && CLASSES != 3; ++i) flips |= kind[i] & masks[BITS].of[i], all |= kind[i];
        if (CLASSES == 2) flips |= ~all;
        const u32 present = 0xffffffffu >> (32 - bits);
        u32 open = ~flips & present;
        const u64 group = (u64)(first_word + cell) * PARTS;
        for (u32 part = 0; part < PARTS && open; ++part) {
            const Words random = random_words(group | part, settings.keys, step, stream);
            compare(flips, open, random, [&](int i) {
                const Masks<CLASSES> bit = masks[4 * part + i];
                u32 threshold = bit.of[CLASSES - 1];  // an open spin is in one class: if in no other, in the last
#pragma unroll
                for (int k = 0; k < CLASSES - 1; ++k) threshold = (kind[k] & bit.of[k]) | (~kind[k] & threshold);
                return threshold;
            });
        }
        mine[cell] = own ^ ((flips ^ cheap) & present);
    }
}

// own, around, spins: (lattices, 2, height, words); reads the colour in own and the other one in around, and writes to
// spins. thresholds: (lattices, CLASSES), 64 bits in two words. A block has blockDim.y lattices, and gridDim.x blocks
// share each lattice.
template <int CLASSES>
__global__ void __launch_bounds__(THREADS)
    half_sweep(const u32* own, const u32* around, u32* spins, const u32* thresholds,
               const __grid_constant__ Settings settings) {
    DYNAMIC_SHARED(Masks<CLASSES>, all_masks);
    Masks<CLASSES>* const masks = all_masks + threadIdx.y * (BITS + 1);
    const i64 cells = (i64)settings.height * settings.words;
    for (i64 tile = (i64)blockIdx.y * blockDim.y; tile < settings.lattices; tile += (i64)gridDim.y * blockDim.y) {
        const i64 lattice = tile + threadIdx.y;
        __syncthreads();
        if (lattice < settings.lattices) fill_masks<CLASSES>(masks, thresholds + lattice * 2 * CLASSES);
        __syncthreads();
        const i64 place = (2 * lattice + settings.colour) * cells, place_around = (2 * lattice + 1 - settings.colour) * cells;
        if (lattice < settings.lattices)
            advance<CLASSES>(in_register(own + place), in_register(around + place_around),
                             CLASSES < 10 ? in_register(spins + place) : spins + place,  // too few registers for ten
                             masks, settings.first_word + lattice * cells,
                             settings.first_cell + blockIdx.x * blockDim.x + threadIdx.x, gridDim.x * blockDim.x,
                             settings.step, settings.colour, settings);
    }
}

// All sweeps of the blockDim.y lattices of a block, which lie in shared memory, from the spins `start`.
template <int CLASSES>
__global__ void __launch_bounds__(1024)
    resident_sweeps(const u32* start, u32* spins, const u32* thresholds, const __grid_constant__ Settings settings) {
    DYNAMIC_SHARED(Masks<CLASSES>, all_masks);
    Masks<CLASSES>* const masks = all_masks + threadIdx.y * (BITS + 1);
    const u32 cells = settings.height * settings.words;
    const i64 lattice = (i64)blockIdx.x * blockDim.y + threadIdx.y;
    const bool mine = lattice < settings.lattices;
    u32* const own = reinterpret_cast<u32*>(all_masks + blockDim.y * (BITS + 1)) + threadIdx.y * 2 * cells;
    const i64 place = lattice * 2 * cells;
    if (mine) {
        fill_masks<CLASSES>(masks, thresholds + lattice * 2 * CLASSES);
        for (u32 i = threadIdx.x; i < 2 * cells; i += blockDim.x) own[i] = start[place + i];
    }
    __syncthreads();
    for (u32 sweep = 0; sweep < settings.sweeps; ++sweep)
        for (u32 colour = 0; colour < 2; ++colour) {
            if (mine)
                advance<CLASSES>(own + (colour ? cells : 0), own + (colour ? 0 : cells), own + (colour ? cells : 0), masks,
                                 settings.first_word + lattice * cells, threadIdx.x, blockDim.x, settings.step + sweep,
                                 colour, settings);
            __syncthreads();  // one colour is complete before the other begins
        }
    if (mine)
        for (u32 i = threadIdx.x; i < 2 * cells; i += blockDim.x) spins[place + i] = own[i];
}
