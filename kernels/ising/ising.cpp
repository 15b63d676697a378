// Checkerboard sweeps of Ising lattices on a CPU, a vector of words of 32 spins of one colour at a time.
//
// The method is that of ising.cu: satisfied bonds by full adders on words, random numbers bit by bit until all spins of a
// vector are decided. Bound by instructions, most of them Philox's: the 512 spins of a vector of AVX-512 take three groups of
// four bits, and 12 % of the vectors a fourth.
#include <algorithm>
#include <vector>

#include "machines/spins.hpp"

struct Settings {
    Keys keys;
    i64 lattices, first_word;     // the number of the first lattice's first word in the stream
    i64 height, words, columns;   // of a lattice: rows, words and sites of one colour in a row
    i64 first_row, rows;          // to update, of each lattice
    u32 unsatisfied;  // the exclusive or of two spins whose bond is unsatisfied, on all bits
    u32 step;
};

constexpr int LANE = LANES<u32>;

template <int CLASSES> struct Masks {  // all bits set where the threshold of a class has the bit; the last: certain flips
    u32 of[BITS + 1][CLASSES];
};

template <int CLASSES> Masks<CLASSES> masks_of(const u64* thresholds) {
    Masks<CLASSES> masks;
    for (int kind = 0; kind < CLASSES; ++kind) {
        for (int bit = 0; bit < BITS; ++bit) masks.of[bit][kind] = 0u - u32(thresholds[kind] >> (BITS - 1 - bit) & 1);
        masks.of[BITS][kind] = 0u - u32(thresholds[kind] >> 32 & 1);
    }
    return masks;
}

// The spins of `own` in each class, from the words of their neighbours. Returns the spins that flip unless the comparison
// says otherwise: by the heat bath those with dE <= 0, else none.
template <int CLASSES>
INLINE U32 find_classes(U32 own, U32 a, U32 b, U32 c, U32 d, u32 unsatisfied, U32* kind) {
    if (CLASSES < 10) {
        const U32 wanted = own ^ unsatisfied;  // a neighbour that differs from it satisfies the bond
        a ^= wanted, b ^= wanted, c ^= wanted, d ^= wanted;
    }
    const U32 sum = a ^ b ^ c, carry = majority(a, b, c);
    const U32 ones = sum ^ d, second = sum & d, twos = carry ^ second, fours = carry & second;
    if (CLASSES == 2) {
        kind[0] = ones & twos, kind[1] = fours;
        return U32{};
    }
    if (CLASSES == 3) {
        kind[0] = twos & ~ones, kind[1] = ones, kind[CLASSES - 1] = ~(ones | twos);
        return ~(fours | (ones & twos));
    }
    const U32 count[5] = {~(ones | twos | fours), ones & ~twos, ~ones & twos, ones & twos, fours};
    for (int i = 0; i < 5; ++i) {
        kind[i % CLASSES] = count[i] & ~own;
        kind[(i + 5) % CLASSES] = count[i] & own;
    }
    return U32{};
}

// Rows of the other colour around a block of rows: with a row above and one below, and what the horizontal neighbours
// that are not in the same word look like.
struct Around {
    std::vector<u32> rows, beside, present;

    void fill(const u32* other, i64 first_row, i64 count, u32 colour, const Settings& settings) {
        const i64 words = settings.words, height = settings.height;
        const i64 padded = (count + 2) * words + LANE;
        if (i64(rows.size()) < padded) rows.resize(padded), beside.resize(padded), present.resize(padded);
        for (i64 row = -1; row <= count; ++row) {
            const i64 from = (first_row + row + height) % height;
            std::memcpy(rows.data() + (row + 1) * words, other + from * words, words * sizeof(u32));
        }
        const u32 last_bits = u32(settings.columns - 32 * (words - 1));
        for (i64 row = 0; row < count; ++row) {
            const u32* const here = rows.data() + (row + 1) * words;
            u32* const to = beside.data() + row * words;
            if ((first_row + row + colour) & 1) {  // bits beyond the last site are ignored
                for (i64 i = 0; i + 1 < words; ++i) to[i] = here[i] >> 1 | here[i + 1] << 31;
                to[words - 1] = here[words - 1] >> 1 | here[0] << (last_bits - 1);
            } else {
                for (i64 i = words - 1; i > 0; --i) to[i] = here[i] << 1 | here[i - 1] >> 31;
                to[0] = here[0] << 1 | here[words - 1] >> (last_bits - 1);
            }
            u32* const bits = present.data() + row * words;
            std::fill(bits, bits + words - 1, 0xffffffffu);
            bits[words - 1] = 0xffffffffu >> (32 - last_bits);
        }
    }
};

// Updates `count` rows of one colour of a lattice. `first_word` is the number of its first word in the stream.
template <int CLASSES>
void update_rows(u32* lattice, const Masks<CLASSES>& masks, i64 first_word, i64 first_row, i64 count, u32 step, u32 colour,
                 const Settings& settings, Around& around) {
    const i64 words = settings.words, cells = settings.height * words;
    u32* const mine = lattice + (colour ? cells : 0) + first_row * words;
    around.fill(lattice + (colour ? 0 : cells), first_row, count, colour, settings);
    const u32 stream = STREAM_EVEN_SITES + colour;
    const U64 even = places<u64>() * (2 * PARTS), odd = even + PARTS;
    for (i64 cell = 0; cell < count * words; cell += LANE) {
        const i64 left = count * words - cell;
        const u32* const above = around.rows.data() + cell;
        const U32 own = left < LANE ? load_first<U32>(mine + cell, left) : load<U32>(mine + cell);
        U32 present = load<U32>(around.present.data() + cell);
        if (left < LANE) present &= as<U32>(as<I32>(places<u32>()) < i32(left));
        U32 kind[CLASSES], flips = {}, known = {};
        const U32 cheap = find_classes<CLASSES>(own, load<U32>(above + words), load<U32>(around.beside.data() + cell),
                                                load<U32>(above), load<U32>(above + 2 * words), settings.unsatisfied, kind);
        for (int i = 0; i < CLASSES && CLASSES != 3; ++i) flips |= kind[i] & masks.of[BITS][i], known |= kind[i];
        if (CLASSES == 2) flips |= ~known;
        U32 open = ~flips & present;
        const u64 group = u64(first_word + first_row * words + cell) * PARTS;
        for (u32 part = 0; part < PARTS && any(open); ++part) {
            U32 random[4];
            random_bits(even + (group + part), odd + (group + part), settings.keys, step, stream, random);
            compare(flips, open, random, [&](int i) {
                U32 threshold = {};
                for (int k = 0; k < CLASSES; ++k) threshold |= kind[k] & masks.of[4 * part + i][k];
                return threshold;
            });
        }
        const U32 moved = own ^ ((flips ^ cheap) & present);
        if (left < LANE) store_first(mine + cell, moved, left);
        else store(mine + cell, moved);
    }
}

// Many lattices: a thread takes all sweeps of one. Few: the threads share the rows of each half sweep.
template <int CLASSES>
void advance(u32* spins, const u64* thresholds, i64 first_half, i64 end_half, const Settings& settings, int threads) {
    const i64 lattices = settings.lattices, size = 2 * settings.height * settings.words, end_row = settings.first_row + settings.rows;
    std::vector<Masks<CLASSES>> masks;
    for (i64 lattice = 0; lattice < lattices; ++lattice) masks.push_back(masks_of<CLASSES>(thresholds + lattice * CLASSES));
    const auto half_sweep = [&](i64 lattice, i64 row, i64 rows, i64 half, Around& around) {
        update_rows(spins + lattice * size, masks[lattice], settings.first_word + lattice * size / 2, row, rows,
                    u32(settings.step + half / 2), half % 2, settings, around);
    };
    if (lattices >= 4 * threads || size <= 1024 || threads == 1) {
        parallel(lattices, std::max<i64>(1, 4096 / size), threads, [&](i64 first, i64 end) {
            Around around;
            for (i64 lattice = first; lattice < end; ++lattice)
                for (i64 half = first_half; half < end_half; ++half)
                    half_sweep(lattice, settings.first_row, settings.rows, half, around);
        });
        return;
    }
    const i64 parts = std::min<i64>(settings.rows, threads), rows = (settings.rows + parts - 1) / parts;
#pragma omp parallel num_threads(threads)
    {
        Around around;
        for (i64 half = first_half; half < end_half; ++half) {
#pragma omp for schedule(static)
            for (i64 item = 0; item < lattices * parts; ++item) {
                const i64 row = settings.first_row + item % parts * rows;
                if (row < end_row) half_sweep(item / parts, row, std::min(rows, end_row - row), half, around);
            }
        }
    }
}

// spins: (lattices, 2, height, words), in place. thresholds: (lattices, classes). Half sweep 2 t + c is that of colour c in
// sweep t.
KERNEL void advance_lattices(u32* spins, const u64* thresholds, i64 classes, i64 first_half, i64 end_half,
                             const Settings* settings, int threads) {
    if (classes == 2) advance<2>(spins, thresholds, first_half, end_half, *settings, threads);
    else if (classes == 3) advance<3>(spins, thresholds, first_half, end_half, *settings, threads);
    else advance<10>(spins, thresholds, first_half, end_half, *settings, threads);
}
