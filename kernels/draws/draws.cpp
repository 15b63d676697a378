// Draws of the random stream on a CPU: any range of elements, as philox.py defines them.
//
// Bound by arithmetic: the ten rounds of a group of four elements, and the logarithm, sine and cosine of normal numbers.
#include "random.hpp"

constexpr int CHUNK = 4 * LANES<u64>;  // elements: one vector of groups

struct Settings {
    Keys keys;
    u32 step, stream, tensor;
};

INLINE void numbers_of(const Words& words, float* z) {
    F32 low, high;
    normals(words, 1.0f, low, high);
    store(z, low), store(z + LANES<float>, high);
}
INLINE void numbers_of(const Words& words, double* z) {
    F64 part[4];
    normals(words, 1.0, part);
    for (int i = 0; i < 4; ++i) store(z + i * LANES<double>, part[i]);
}

// Elements `first` to `first + count` into `to`; make(words, part) makes those of one vector of groups.
template <class Real, class Make>
void draw(Real* to, i64 first, i64 count, const Settings& settings, int threads, Make make) {
    const i64 group = first / 4, groups = (first + count + 3) / 4 - group, chunks = (groups + LANES<u64> - 1) / LANES<u64>;
    parallel(chunks, 1 << 8, threads, [&](i64 from, i64 end) {
        for (i64 chunk = from; chunk < end; ++chunk) {
            const U64 counters = all<u64>(group + chunk * LANES<u64>) + places<u64>();
            Real part[CHUNK];
            make(random_words(counters, settings.keys, settings.step, settings.stream, settings.tensor), part);
            const i64 at = 4 * (group + chunk * LANES<u64>) - first;  // the place in `to` of the first number
            const i64 skip = std::max<i64>(0, -at), stop = std::min<i64>(CHUNK, count - at);
            std::memcpy(to + at + skip, part + skip, (stop - skip) * sizeof(Real));
        }
    });
}

KERNEL void normal_float32(float* to, i64 first, i64 count, const Settings* settings, int threads) {
    draw(to, first, count, *settings, threads, [](const Words& words, float* part) { numbers_of(words, part); });
}
KERNEL void normal_float64(double* to, i64 first, i64 count, const Settings* settings, int threads) {
    draw(to, first, count, *settings, threads, [](const Words& words, double* part) { numbers_of(words, part); });
}
KERNEL void uniform(float* to, i64 first, i64 count, const Settings* settings, int threads) {
    draw(to, first, count, *settings, threads, [](const Words& words, float* part) {
        U32 word[2];
        in_order(words, word[0], word[1]);
        for (int i = 0; i < 2; ++i) store(part + i * LANES<float>, uniform_of(word[i]));
    });
}
