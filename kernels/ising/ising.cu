// Checkerboard sweeps of Ising lattices in CUDA C, 32 spins of one colour at a time; see reference.py for the model.
//
// Bound by instructions: a half sweep reads and writes 3/8 of a byte for each spin, and for 32 spins it needs
//   neighbours   a full adder on words and some logic, 12 LOP3: which spins have how many neighbours of each sign
//   numbers      Philox-10: 20 wide products and 20 LOP3 for 4 bits of all 32 spins
//   comparison   of each random number with the threshold of its spin's class, from the most significant bit on: 12
//                LOP3 for 4 bits. The first bit that differs decides. After t bits a spin is undecided with
//                probability 2^-t, so that 32 spins take 6 bits, and the slowest of a warp's 32 words takes 11: three
//                groups of the eight.
// Nearly every warp needs two groups, which are drawn before the loop over the others. On sm_90 and by the heat bath a
// word takes 170 instructions with its first two groups, and 59 for each further one. The mean over warps is 3.22
// groups and 242 instructions: 131 in the alu pipe, and 68 wide products, each as long as two others in the
// multiplier. Without addresses and loops it would be 112 and 59. Predicted, not measured, for an H200: at best 3720
// flips/ns by the multiplier; expected 2880 (2440 to 3400), and 2940 (2490 to 3460) with lattices resident.
// Metropolis: 171, 59, 243; 3690, 2870 and 2890. To beat: 900 flips/ns on an H100 (github.com/NVIDIA/ising-gpu).
//
// By the heat bath without a field a spin ends along its neighbours, unless its number is less than the threshold of
// |dE|: one threshold serves a flip and its reverse, so that there are three instead of five. That of dE = 0 is 1/2,
// so that the first bit decides, and only two are left to select from.
//
// A threshold has 32 bits. The bits of a number that are never drawn cannot change the comparison, so the spins do not
// depend on when a kernel stops drawing.
//
// Design: a thread has words at one place of its rows, all even or all odd ones, so that whatever depends on the place
// is found once. The bits of a lattice's thresholds are masks in shared memory: one read gets four bits for a class,
// and a LOP3 for each class but the last selects among them. A block has one lattice, or several small ones.
// `resident_sweeps` keeps the lattices in shared memory for all sweeps.
#include "machines/spins.cuh"

constexpr int THREADS = 256;

// Kinds of neighbourhoods. With a field each has two classes: that of a spin which is down, and KINDS later that of
// one which is up.
template <int CLASSES> constexpr int KINDS = CLASSES == 10 ? 5 : CLASSES;
struct __align__(16) FourBits {
    u32 bit[4];
};
// All bits set where the threshold of a class has the bit, and where its flips are certain.
template <int CLASSES> struct __align__(16) Masks {
    FourBits of[PARTS][CLASSES];
    u32 certain[CLASSES];
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
    Keys keys, late_keys;        // the same twice, see `advance`
    i64 lattices, first_word;    // the number of the first lattice's first word in the stream
    u32 last_row;                // of a lattice: the first word of the last row of a colour
    u32 words, columns;          // words and sites of one colour in a row
    u32 unsatisfied;             // the exclusive or of two spins whose bond is unsatisfied, on all bits
    u32 step, colour, sweeps;
    u32 first_cell, end_cell;    // the words to update, of one colour of each lattice
    u32 stride;                  // from a word of a thread to its next: an even number of rows. As many threads work
};

// Fills the masks of one lattice with the threads of its row of the block.
template <int CLASSES> __device__ __forceinline__ void fill_masks(Masks<CLASSES>& masks, const u32* thresholds) {
#pragma unroll 1
    for (u32 i = threadIdx.x; i < (BITS + 1) * CLASSES; i += blockDim.x) {
        const u32 bit = i / CLASSES, kind = i % CLASSES;
        const u32 half = thresholds[2 * kind + (bit == BITS)];  // the upper half of 2^32 is 1
        u32& mask = bit == BITS ? masks.certain[kind] : masks.of[bit / 4][kind].bit[bit % 4];
        mask = 0u - (half >> (bit == BITS ? 0 : BITS - 1 - bit) & 1);
    }
}

// Finds the spins of each kind from the words of their neighbours. `flips` and `decided` get what is known without a
// random number; spins that are not `present` count as decided. Returns what the spins become if they do not flip.
template <int CLASSES>
__device__ __forceinline__ u32 find_kinds(u32 own, u32 a, u32 b, u32 c, u32 d, u32 unsatisfied, u32 present,
                                          const Masks<CLASSES>& masks, u32* kind, u32& flips, u32& decided) {
    const u32 sum = a ^ b ^ c, carry = majority(a, b, c), ones = sum ^ d;
    const u32 tie = (carry ^ sum) & ~(sum ^ d);  // two up and two down; otherwise most are as `carry`
    if constexpr (CLASSES == 2) {
        const u32 wanted = own ^ unsatisfied;  // a neighbour that differs from it satisfies the bond
        const u32 equal = ~(carry ^ sum) & ~(sum ^ d);
        kind[0] = ~(equal & (d ^ wanted));  // of the spins with more satisfied than unsatisfied bonds, those with three
        const u32 certain[2] = {masks.certain[0] | ~present, masks.certain[1] | ~present};
        decided = tie | ~(carry ^ wanted) | chosen(kind[0], certain[0], certain[1]);
        flips = present;
        return own;
    } else if constexpr (CLASSES == 3) {
        kind[0] = tie, kind[1] = ones, decided = tie | ~present;
        return ~tie & (carry ^ (~unsatisfied & present));
    } else {
        kind[0] = ~(carry | sum | d), kind[1] = ones & ~carry, kind[2] = tie, kind[3] = ones & carry;
        kind[4] = carry & sum & d;
        flips = 0;
#pragma unroll
        for (int k = 0; k < 5; ++k) flips |= kind[k] & chosen(own, masks.certain[k + 5], masks.certain[k]);
        flips &= present, decided = flips | ~present;
        return own;
    }
}

// The words of a thread: at one place of their rows, which are all even or all odd.
struct Column {
    u32 first, end, row, place;  // from word `first`, in `row`, to before word `end`
};
__device__ __forceinline__ Column column_of(u32 thread, const Settings& settings) {
    const u32 first = settings.first_cell + thread, row = first / settings.words;
    return {first, thread < settings.stride ? settings.end_cell : 0, row, first - row * settings.words};
}

// Updates the words of a thread, of one colour of a lattice: reads the colour in `old` and the other one in `other`,
// and writes to `mine`. `first_word` is the number of the lattice's first word in the stream.
//
// The keys are passed twice because ptxas keeps what one basic block reads in a warp's uniform registers, but what two
// of them read in the registers of each thread, of which there are too few.
template <int CLASSES>
__device__ __forceinline__ void advance(const u32* old, const u32* other, u32* mine, const Masks<CLASSES>& masks,
                                        i64 first_word, const Column& column, u32 step, u32 colour,
                                        const Settings& settings) {
    const u32 words = settings.words, stride = settings.stride, place = column.place;
    const u32 last_bits = settings.columns - 32 * (words - 1), stream = STREAM_EVEN_SITES + colour;
    const bool is_first = place == 0, is_last = place == words - 1;
    const u32 bits = is_last ? last_bits : 32, present = 0xffffffffu >> (32 - bits);
    // The horizontal neighbours that are not in the same word of the other colour: its bits moved by one place, but for
    // the outermost bit, which comes from the next or the previous word. Bits beyond the last site are ignored.
    const bool to_right = (column.row + colour) & 1;
    const u32 beyond = to_right ? (is_last ? 0u - place : 1) : is_first ? words - 1 : 0u - 1;
    const u32 outermost = to_right ? 1u << (bits - 1) : 1, turn = to_right ? 1 : 31;
    const u32 turn_beyond = to_right ? 33 - bits : (is_first ? last_bits : 32) - 1;
    u32 above = column.first < words ? column.first + settings.last_row : column.first - words;
    u64 group = (u64)(first_word + column.first) * PARTS;
    for (u32 cell = column.first; cell < column.end; cell += stride, group += (u64)stride * PARTS) {
        const u32 own = old[cell], here = other[cell], up = other[above];
        const u32 down = other[cell >= settings.last_row ? place : cell + words];
        const u32 beside = chosen(outermost, rotated(other[cell + beyond], turn_beyond), rotated(here, turn));
        above = cell + (stride - words);
        u32 kind[KINDS<CLASSES>], flips, decided;
        const u32 kept = find_kinds<CLASSES>(own, here, beside, up, down, settings.unsatisfied, present, masks, kind,
                                             flips, decided);
        const auto draw = [&](u32 part, const Keys& keys) { return random_words(group | part, keys, step, stream); };
        const auto decide = [&](u32 part, const Words& random) {
            u32 threshold[4];
#pragma unroll
            for (int k = KINDS<CLASSES> - 1; k >= (CLASSES == 3 ? 1 : 0); --k) {
                const FourBits mask = masks.of[part][k], mask_if_up = masks.of[part][k + CLASSES - KINDS<CLASSES>];
#pragma unroll
                for (int i = 0; i < 4; ++i) {  // an undecided spin is of one kind: if of no other, of the last
                    const u32 bit = CLASSES == 10 ? chosen(own, mask_if_up.bit[i], mask.bit[i]) : mask.bit[i];
                    threshold[i] = k == KINDS<CLASSES> - 1 ? bit : chosen(kind[k], bit, threshold[i]);
                }
            }
            compare(flips, decided, random, threshold);
        };
        const Words first = draw(0, settings.keys);
        if (CLASSES == 3) flips = kind[0] & (own ^ first.word[0]);  // if dE = 0 the first bit flips it
        decide(0, first);
        decide(1, draw(1, settings.keys));
        for (u32 part = 2; part < PARTS && ~decided; ++part) decide(part, draw(part, settings.late_keys));
        mine[cell] = kept ^ (flips & decided);
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
    Masks<CLASSES>& masks = all_masks[threadIdx.y];
    const i64 cells = settings.last_row + settings.words;
    const Column column = column_of(blockIdx.x * blockDim.x + threadIdx.x, settings);
    for (i64 tile = (i64)blockIdx.y * blockDim.y; tile < settings.lattices; tile += (i64)gridDim.y * blockDim.y) {
        const i64 lattice = tile + threadIdx.y;
        __syncthreads();
        if (lattice < settings.lattices) fill_masks<CLASSES>(masks, thresholds + lattice * 2 * CLASSES);
        __syncthreads();
        const u32 colour = settings.colour;
        const i64 place = (2 * lattice + colour) * cells, place_around = (2 * lattice + 1 - colour) * cells;
        if (lattice < settings.lattices)
            advance<CLASSES>(in_register(own + place), in_register(around + place_around), in_register(spins + place),
                             masks, settings.first_word + lattice * cells, column, settings.step, colour, settings);
    }
}

// All sweeps of the blockDim.y lattices of a block, which lie in shared memory, from the spins `start`.
template <int CLASSES>
__global__ void __launch_bounds__(1024)
    resident_sweeps(const u32* start, u32* spins, const u32* thresholds, const __grid_constant__ Settings settings) {
    DYNAMIC_SHARED(Masks<CLASSES>, all_masks);
    Masks<CLASSES>& masks = all_masks[threadIdx.y];
    const u32 cells = settings.last_row + settings.words;
    const Column column = column_of(threadIdx.x, settings);
    const i64 lattice = (i64)blockIdx.x * blockDim.y + threadIdx.y;
    const bool mine = lattice < settings.lattices;
    u32* const own = reinterpret_cast<u32*>(all_masks + blockDim.y) + threadIdx.y * 2 * cells;
    const i64 place = lattice * 2 * cells;
    if (mine) {
        fill_masks<CLASSES>(masks, thresholds + lattice * 2 * CLASSES);
        for (u32 i = threadIdx.x; i < 2 * cells; i += blockDim.x) own[i] = start[place + i];
    }
    __syncthreads();
    for (u32 sweep = 0; sweep < settings.sweeps; ++sweep)
        for (u32 colour = 0; colour < 2; ++colour) {
            if (mine)
                advance<CLASSES>(own + (colour ? cells : 0), own + (colour ? 0 : cells), own + (colour ? cells : 0),
                                 masks, settings.first_word + lattice * cells, column, settings.step + sweep, colour,
                                 settings);
            __syncthreads();  // one colour is complete before the other begins
        }
    if (mine)
        for (u32 i = threadIdx.x; i < 2 * cells; i += blockDim.x) spins[place + i] = own[i];
}
