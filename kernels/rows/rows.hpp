// The rows of a strided tensor on a CPU: one sum for each row, or each element mapped to another.
//
// A vector holds elements of one row, or one element of each of several rows: where neighbours in memory belong to
// neighbouring rows ("closer"), and, transposed in registers, where rows are short. Of longer rows the sums in the lanes are
// transposed, so that what is done once for a row, such as a logarithm, is done for a vector of rows. The order of additions
// depends on the length of a row alone, and so results do not depend on the number of threads.
#pragma once
#include <algorithm>
#include <limits>
#include <vector>

#include "functions.hpp"
#include "types.hpp"

// Element k of row (i0, i1, i2) lies at the offset sum_j i_j strides[j] + k stride; rows are counted in this order.
struct Layout {
    i64 strides[3], stride;
};
struct Rows {
    i64 n, sizes[3];
    Layout layouts[2];

    i64 count() const { return sizes[0] * sizes[1] * sizes[2]; }
    i64 offset(i64 row, int which) const {
        const Layout& layout = layouts[which];
        const i64 inner = row % sizes[2], rest = row / sizes[2];
        return rest / sizes[1] * layout.strides[0] + rest % sizes[1] * layout.strides[1] + inner * layout.strides[2];
    }
    // f(i, offset of row + i) for `some` rows: divisions only where a dimension ends.
    template <class F> INLINE void each(i64 row, i64 some, int which, F f) const {
        const i64 step = layouts[which].strides[2];
        for (i64 i = 0; i < some;) {
            const i64 end = std::min(some, i + sizes[2] - (row + i) % sizes[2]);
            for (i64 at = offset(row + i, which); i < end; ++i, at += step) f(i, at);
        }
    }
    bool are_closer(int which) const {
        return (layouts[which].stride != 1 || n == 1) && layouts[which].strides[2] == 1 && n <= 0x7fffffff;
    }
};

constexpr i64 PART = 1 << 15;   // elements of a part of a long row, and about as many that a thread takes at a time
constexpr i64 MEDIUM = 1 << 11; // elements of a row whose sums are kept until all rows are read
template <class Real> constexpr int SHORT = 4 * LANES<Real>;  // elements of a row that is transposed

// Adds n neighbours to the lanes of a sum.
template <class T, class Sum> INLINE void add_neighbours(Sum& sum, const T* x, i64 n) {
    constexpr i64 LANE = LANES<Wide<T>>, BLOCK = Sum::MOST * LANE;
    for (; n >= BLOCK; n -= BLOCK, x += BLOCK) sum.add(Sum::MOST, 0, [=](i64 k) { return load_wide(x + k * LANE); });
    const i64 whole = n / LANE, rest = n % LANE;
    if (n) sum.add(whole, rest, [=](i64 k) { return k < whole ? load_wide(x + k * LANE) : load_some(x + k * LANE, rest); });
}

// Adds elements [first, end) of one row to the lanes of a sum.
template <class T, class Sum> void add_part(Sum& sum, const T* row, i64 stride, i64 first, i64 end) {
    if (stride == 1) return add_neighbours(sum, row + first, end - first);
    T buffer[1024];
    for (i64 i = first; i < end; i += 1024) {
        const i64 some = std::min<i64>(1024, end - i);
        for (i64 k = 0; k < some; ++k) buffer[k] = row[(i + k) * stride];
        add_neighbours(sum, buffer, some);
    }
}

// Adds vectors load(0), ..., load(n - 1), with a row in each lane.
template <class Sum, class Load> INLINE void add_vectors(Sum& sum, i64 n, const Load& load) {
    for (i64 first = 0; first < n; first += Sum::MOST)
        sum.add(std::min<i64>(Sum::MOST, n - first), 0, [&](i64 k) { return load(first + k); });
}

// The sums of LANES rows, one in each lane, from sums whose lanes have parts of one row.
template <class Sum> Sum transposed(const Sum* sums) {
    using Vector = typename Sum::Vector;
    constexpr int LANE = sizeof(Vector) / sizeof(Vector{}[0]);
    Sum turned[LANE];
    std::copy(sums, sums + LANE, turned);
    for (int field = 0; field < Sum::FIELDS; ++field) {
        Vector part[LANE];
        for (int i = 0; i < LANE; ++i) part[i] = sums[i].field[field];
        transpose(part);
        for (int i = 0; i < LANE; ++i) turned[i].field[field] = part[i];
    }
    return Sum::together(turned);
}

// finish(row, sum, some) for the sums of `some` rows from `row` on, which are complete in the first lanes.
//
// `nothing` is a sum of no elements. It has vectors field[FIELDS], and add(whole, rest, load), which adds vectors load(0) to
// load(whole - 1), at most MOST, and if rest > 0 as many lanes of load(whole); merge(sum), by lanes; together(sums), of LANES.
template <class T, class Sum, class Finish>
void reduce_rows(const T* x, const Rows& rows, const Sum& nothing, int threads, const Finish& finish) {
    using Real = Wide<T>;
    constexpr int LANE = LANES<Real>;
    const i64 count = rows.count(), stride = rows.layouts[0].stride, n = rows.n;
    const i64 groups = (count + LANE - 1) / LANE, grain = std::max<i64>(1, PART / (n * LANE));
    if (rows.are_closer(0)) {
        const i64 inner = (rows.sizes[2] + LANE - 1) / LANE, outer = count / rows.sizes[2];
        parallel(outer * inner, grain, threads, [&](i64 from, i64 to) {
            for (i64 item = from; item < to; ++item) {
                const i64 first = item % inner * LANE, row = item / inner * rows.sizes[2] + first;
                const i64 some = std::min<i64>(LANE, rows.sizes[2] - first);
                const T* const at = x + rows.offset(row, 0);
                Sum sum = nothing;
                if (some == LANE) add_vectors(sum, n, [=](i64 k) { return load_wide(at + k * stride); });
                else add_vectors(sum, n, [=](i64 k) { return load_some(at + k * stride, some); });
                finish(row, sum, some);
            }
        });
    } else if (n <= SHORT<Real>) {
        parallel(groups, grain, threads, [&](i64 from, i64 to) {
            V<Real> part[SHORT<Real>] = {};
            for (i64 group = from; group < to; ++group) {
                const i64 row = group * LANE, some = std::min<i64>(LANE, count - row);
                rows.each(row, some, 0, [&](i64 lane, i64 offset) {
                    const T* const at = x + offset;
                    for (i64 k = 0; k < n; k += LANE) {
                        const i64 left = std::min<i64>(LANE, n - k);
                        if (stride == 1) {
                            part[k + lane] = left == LANE ? load_wide(at + k) : load_some(at + k, left);
                            continue;
                        }
                        T copy[LANE];
                        for (i64 i = 0; i < left; ++i) copy[i] = at[(k + i) * stride];
                        part[k + lane] = load_some(copy, left);
                    }
                });
                for (i64 k = 0; k < n; k += LANE) transpose(part + k);
                Sum sum = nothing;
                add_vectors(sum, n, [&](i64 k) { return part[k]; });
                finish(row, sum, some);
            }
        });
    } else if (n <= MEDIUM) {
        parallel(groups, grain, threads, [&](i64 from, i64 to) {
            for (i64 group = from; group < to; ++group) {
                const i64 row = group * LANE, some = std::min<i64>(LANE, count - row);
                Sum sums[LANE];
                std::fill(sums, sums + LANE, nothing);
                rows.each(row, some, 0, [&](i64 i, i64 offset) { add_part(sums[i], x + offset, stride, 0, n); });
                finish(row, transposed(sums), some);
            }
        });
    } else {
        const i64 parts = n < 2 * PART ? 1 : (n + PART - 1) / PART, length = parts == 1 ? n : PART;
        std::vector<Sum> sums(groups * LANE * parts, nothing);
        parallel(count * parts, std::max<i64>(1, PART / length), threads, [&](i64 from, i64 to) {
            for (i64 item = from; item < to; ++item) {
                const i64 first = item % parts * length, end = std::min(n, first + length);
                add_part(sums[item], x + rows.offset(item / parts, 0), stride, first, end);
            }
        });
        parallel(groups, 64, threads, [&](i64 from, i64 to) {
            for (i64 group = from; group < to; ++group) {
                Sum whole[LANE];
                for (int lane = 0; lane < LANE; ++lane) {
                    const Sum* const given = sums.data() + (group * LANE + lane) * parts;
                    whole[lane] = given[0];
                    for (i64 part = 1; part < parts; ++part) whole[lane].merge(given[part]);
                }
                finish(group * LANE, transposed(whole), std::min<i64>(LANE, count - group * LANE));
            }
        });
    }
}

// out = f(x) for each element. `of_rows(row, some)` returns f for `some` rows from `row` on, one in each lane; f.lane(i, first)
// is that of row + i alone, whose first element is in column `first`. f(x, column) takes elements at a column, and if of one
// row, those after it; columns are counted from `first`.
template <class T, class OfRows>
void map_rows(const T* x, T* out, const Rows& rows, int threads, const OfRows& of_rows) {
    constexpr int LANE = LANES<Wide<T>>;
    const i64 count = rows.count(), n = rows.n;
    const i64 from_stride = rows.layouts[0].stride, to_stride = rows.layouts[1].stride;
    if (rows.are_closer(0) && rows.are_closer(1)) {
        const i64 inner = (rows.sizes[2] + LANE - 1) / LANE, outer = count / rows.sizes[2];
        parallel(outer * inner, std::max<i64>(1, PART / (n * LANE)), threads, [&](i64 from, i64 to) {
            for (i64 item = from; item < to; ++item) {
                const i64 first = item % inner * LANE, row = item / inner * rows.sizes[2] + first;
                const i64 some = std::min<i64>(LANE, rows.sizes[2] - first);
                const T* at = x + rows.offset(row, 0);
                T* to_at = out + rows.offset(row, 1);
                const auto f = of_rows(row, some);
                for (i64 i = 0; i < n; ++i, at += from_stride, to_at += to_stride)
                    if (some == LANE) store_narrow(to_at, f(load_wide(at), i));
                    else store_some(to_at, f(load_some(at, some), i), some);
            }
        });
        return;
    }
    const auto map_part = [&](const auto& f, const T* at, T* to_at, i64 length) {
        i64 i = 0;
        if (from_stride == 1 && to_stride == 1) {
            for (; i + LANE <= length; i += LANE) store_narrow(to_at + i, f(load_wide(at + i), i));
            if (i < length) store_some(to_at + i, f(load_some(at + i, length - i), i), length - i);
            return;
        }
        for (; i < length; i += LANE) {
            const i64 some = std::min<i64>(LANE, length - i);
            T part[LANE] = {};
            for (i64 k = 0; k < some; ++k) part[k] = at[(i + k) * from_stride];
            store_narrow(part, f(load_wide(part), i));
            for (i64 k = 0; k < some; ++k) to_at[(i + k) * to_stride] = part[k];
        }
    };
    if (n > MEDIUM) {
        const i64 parts = (n + PART - 1) / PART;
        parallel(count * parts, std::max<i64>(1, PART / n), threads, [&](i64 from, i64 to) {
            for (i64 item = from; item < to; ++item) {
                const i64 row = item / parts, first = item % parts * PART, length = std::min(PART, n - first);
                map_part(of_rows(row, 1).lane(0, first), x + rows.offset(row, 0) + first * from_stride,
                         out + rows.offset(row, 1) + first * to_stride, length);
            }
        });
        return;
    }
    parallel((count + LANE - 1) / LANE, std::max<i64>(1, PART / (n * LANE)), threads, [&](i64 from, i64 to) {
        for (i64 row = from * LANE; row < std::min(count, to * LANE); row += LANE) {
            const i64 some = std::min<i64>(LANE, count - row);
            const auto f = of_rows(row, some);
            T* to_at[LANE];
            rows.each(row, some, 1, [&](i64 i, i64 offset) { to_at[i] = out + offset; });
            rows.each(row, some, 0, [&](i64 i, i64 offset) { map_part(f.lane(i, 0), x + offset, to_at[i], n); });
        }
    });
}

// f(T()) for the type with this code: the order of rows.native_rows.CODES.
template <class F> void of_type(i64 code, F f) {
    if (code == 0) f(float());
    else if (code == 1) f(float16());
    else if (code == 2) f(bfloat16());
    else f(double());
}
