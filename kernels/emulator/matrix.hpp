// Warp-wide tensor-core instructions, and asynchronous copies that happen only at the wait.
#pragma once

namespace emulator {

struct Fragments {
    const u32 *a, *b;
    void* sum;
};

// Every lane brings its fragments; the last to arrive multiplies for all. `add(total, a, b)` adds the products of the
// numbers in two words to the wide total, which `narrow` converts to the type of the sum.
template <class Number, class Wide, class Add, class Narrow>
void matrix_product(const char* operation, Number* sum, const u32* a, const u32* b, const Where& where, Add add,
                    Narrow narrow) {
    const Fragments own{a, b, sum};
    exchange(operation, 0xffffffffu, reinterpret_cast<u64>(&own), own_lane(), where, [&](Thread* lanes) {
        const auto of = [lanes](int lane) -> const Fragments& {
            return *reinterpret_cast<const Fragments*>(lanes[lane].value);
        };
        for (int row = 0; row < 16; ++row)
            for (int column = 0; column < 8; ++column) {
                Number* place = static_cast<Number*>(of(row % 8 * 4 + column / 2).sum) + row / 8 * 2 + column % 2;
                Wide total = *place;
                for (int half = 0; half < 2; ++half)
                    for (int t = 0; t < 4; ++t)
                        add(total, of(row % 8 * 4 + t).a[2 * half + row / 8], of(column * 4 + t).b[half]);
                *place = narrow(total);
            }
    });
}

// Adds the products of one instruction exactly and truncates the sum to float32: a compromise between tensor cores,
// which truncate each product as they align them, and a float32 sum, which rounds.
inline void matrix_product_bf16(float* sum, const u32* a, const u32* b, const Where& where) {
    matrix_product<float, double>(
        "mma", sum, a, b, where,
        [](double& total, u32 x, u32 y) {
            for (int i = 0; i < 2; ++i, x >>= 16, y >>= 16)
                total += static_cast<double>(device::__uint_as_float(x << 16)) * device::__uint_as_float(y << 16);
        },
        [](double total) {
            const float rounded = static_cast<float>(total);
            return std::fabs(rounded) > std::fabs(total) ? std::nextafterf(rounded, 0.0f) : rounded;
        });
}

// A sum beyond int32 wraps, as on a GPU.
inline void matrix_product_s8(int* sum, const u32* a, const u32* b, const Where& where) {
    matrix_product<int, u32>(
        "mma", sum, a, b, where,
        [](u32& total, u32 x, u32 y) {
            for (int i = 0; i < 4; ++i, x >>= 8, y >>= 8)
                total += static_cast<u32>(static_cast<signed char>(x) * static_cast<signed char>(y));
        },
        [](u32 total) { return static_cast<int>(total); });
}

struct FragmentsOfDouble {
    double a, b, *sum;
};

// Adds the products one by one, each rounded once.
inline void matrix_product_f64(double* sum, double a, double b, const Where& where) {
    const FragmentsOfDouble own{a, b, sum};
    exchange("mma", 0xffffffffu, reinterpret_cast<u64>(&own), own_lane(), where, [](Thread* lanes) {
        const auto of = [lanes](int lane) -> const FragmentsOfDouble& {
            return *reinterpret_cast<const FragmentsOfDouble*>(lanes[lane].value);
        };
        for (int row = 0; row < 8; ++row)
            for (int column = 0; column < 8; ++column) {
                double& place = of(row * 4 + column / 2).sum[column % 2];
                for (int t = 0; t < 4; ++t) place = std::fma(of(row * 4 + t).a, of(column * 4 + t).b, place);
            }
    });
}

struct Rows {
    const void* own;
    u32* words;
};

// Every lane brings the address of a row; the last to arrive loads for all.
inline void load_matrices(u32* words, const void* row, bool transposed, const Where& where) {
    if (reinterpret_cast<u64>(row) % 16) fail("load_matrices", where, "an address is not a multiple of 16");
    const Rows own{row, words};
    exchange("load_matrices", 0xffffffffu, reinterpret_cast<u64>(&own), own_lane(), where, [=](Thread* lanes) {
        const auto of = [lanes](int lane) -> const Rows& { return *reinterpret_cast<const Rows*>(lanes[lane].value); };
        for (int lane = 0; lane < 32; ++lane)
            for (int matrix = 0; matrix < 4; ++matrix) {
                const int g = lane / 4, t = lane % 4;
                unsigned short pair[2];
                for (int i = 0; i < 2; ++i) {
                    const int of_row = transposed ? 2 * t + i : g, place = transposed ? g : 2 * t + i;
                    std::memcpy(&pair[i], static_cast<const char*>(of(8 * matrix + of_row).own) + 2 * place, 2);
                }
                of(lane).words[matrix] = pair[0] | static_cast<u32>(pair[1]) << 16;
            }
    });
}

// Data is copied only at the wait that guarantees it: a kernel that reads earlier finds the old contents.
inline void copy_async(void* to, const void* from, u32 width, u32 bytes, const Where& where) {
    if (bytes != 0 && bytes != width) fail("copy_async", where, format("reads %u bytes, not 0 or %u", bytes, width));
    if (reinterpret_cast<u64>(to) % width || (bytes && reinterpret_cast<u64>(from) % width))
        fail("copy_async", where, format("an address is not a multiple of %u", width));
    self().copies.push_back({to, from, width, bytes, self().groups});
}

inline void copy_async_commit() { ++self().groups; }

inline void copy_async_wait(int groups) {
    std::vector<Copy>& copies = self().copies;
    size_t done = 0;
    for (; done < copies.size() && copies[done].group < self().groups - groups; ++done) {
        const Copy& copy = copies[done];
        std::memset(copy.to, 0, copy.width);
        std::memcpy(copy.to, copy.from, copy.bytes);
    }
    copies.erase(copies.begin(), copies.begin() + static_cast<long>(done));
}

}  // namespace emulator
