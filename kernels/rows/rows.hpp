// The rows of a strided tensor on a CPU: one sum for each row, or each element mapped to another.
//
// A vector holds elements of one row, or one element of each of several rows: where neighbours in memory belong to
// neighbouring rows ("closer"), and, after a transposition, where rows are short. Long rows are split into parts of a fixed
// length, whose sums are merged in order, so that results do not depend on the number of threads.
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
    bool are_closer(int which) const { return layouts[which].stride != 1 && layouts[which].strides[2] == 1; }
};

constexpr i64 PART = 1 << 15;  // elements of a part of a long row
constexpr i64 SHORT = 256;     // elements of a row that is transposed
constexpr int CHUNK = 4;       // vectors that a sum takes at once

template <class Real> V<Real> first_lanes(i64 count) {  // a mask
    V<Real> mask;
    for (int i = 0; i < LANES<Real>; ++i) {
        const auto bits = i < count ? ~(sizeof(Real) == 4 ? 0u : 0ull) : 0;
        std::memcpy(reinterpret_cast<char*>(&mask) + i * sizeof(Real), &bits, sizeof(Real));
    }
    return mask;
}

// A vector of which `count` elements are in memory, the others 0.
template <class T> INLINE V<Wide<T>> load_some(const T* from, i64 count) {
    T part[LANES<Wide<T>>] = {};
    std::memcpy(part, from, count * sizeof(T));
    return load_wide(part);
}
template <class T> INLINE void store_some(T* to, const V<Wide<T>>& x, i64 count) {
    T part[LANES<Wide<T>>];
    store_narrow(part, x);
    std::memcpy(to, part, count * sizeof(T));
}

// Adds n neighbours to the lanes of a sum.
template <class T, class Sum> INLINE void add_neighbours(Sum& sum, const T* x, i64 n) {
    using Vector = V<Wide<T>>;
    constexpr int LANE = LANES<Wide<T>>;
    i64 i = 0;
    for (; i + CHUNK * LANE <= n; i += CHUNK * LANE) {
        Vector chunk[CHUNK];
        for (int k = 0; k < CHUNK; ++k) chunk[k] = load_wide(x + i + k * LANE);
        sum.template add<CHUNK>(chunk);
    }
    for (; i + LANE <= n; i += LANE) {
        const Vector chunk[1] = {load_wide(x + i)};
        sum.template add<1>(chunk);
    }
    if (i < n) sum.add_first(load_some(x + i, n - i), n - i);
}

// The sum of elements [first, end) of one row, in the lanes of the result.
template <class T, class Sum> Sum sum_of_part(const Sum& nothing, const T* row, i64 stride, i64 first, i64 end) {
    Sum sum = nothing;
    if (stride == 1) {
        add_neighbours(sum, row + first, end - first);
        return sum;
    }
    T buffer[1024];
    for (i64 i = first; i < end; i += 1024) {
        const i64 some = std::min<i64>(1024, end - i);
        for (i64 k = 0; k < some; ++k) buffer[k] = row[(i + k) * stride];
        add_neighbours(sum, buffer, some);
    }
    return sum;
}

// Adds to each lane the n elements of a row of its own, of which `some` exist. The rows lie `stride` apart.
template <class T, class Sum> INLINE void add_rows(Sum& sum, const T* x, i64 n, i64 stride, i64 some) {
    constexpr int LANE = LANES<Wide<T>>;
    V<Wide<T>> chunk[CHUNK];
    i64 i = 0;
    for (; i + CHUNK <= n; i += CHUNK) {
        for (int k = 0; k < CHUNK; ++k, x += stride) chunk[k] = some == LANE ? load_wide(x) : load_some(x, some);
        sum.template add<CHUNK>(chunk);
    }
    for (; i < n; ++i, x += stride) {
        chunk[0] = some == LANE ? load_wide(x) : load_some(x, some);
        sum.template add<1>(chunk);
    }
}

// finish(row, sum, some) for the sums of `some` rows from `row` on, which are complete in the first lanes. `nothing` is a sum
// of no elements.
template <class T, class Sum, class Finish>
void reduce_rows(const T* x, const Rows& rows, const Sum& nothing, int threads, const Finish& finish) {
    constexpr int LANE = LANES<Wide<T>>;
    const i64 count = rows.count(), stride = rows.layouts[0].stride, n = rows.n;
    if (rows.are_closer(0)) {
        const i64 groups = (rows.sizes[2] + LANE - 1) / LANE, outer = count / rows.sizes[2];
        parallel(outer * groups, std::max<i64>(1, PART / (n * LANE)), threads, [&](i64 from, i64 to) {
            for (i64 item = from; item < to; ++item) {
                const i64 first = item % groups * LANE, row = item / groups * rows.sizes[2] + first;
                const i64 some = std::min<i64>(LANE, rows.sizes[2] - first);
                Sum sum = nothing;
                add_rows(sum, x + rows.offset(row, 0), n, stride, some);
                finish(row, sum, some);
            }
        });
    } else if (n <= SHORT) {
        const i64 groups = (count + LANE - 1) / LANE;
        parallel(groups, std::max<i64>(1, PART / (n * LANE)), threads, [&](i64 from, i64 to) {
            T transposed[SHORT * LANE] = {};
            for (i64 group = from; group < to; ++group) {
                const i64 row = group * LANE, some = std::min<i64>(LANE, count - row);
                for (i64 lane = 0; lane < some; ++lane) {
                    const T* const at = x + rows.offset(row + lane, 0);
                    for (i64 k = 0; k < n; ++k) transposed[k * LANE + lane] = at[k * stride];
                }
                Sum sum = nothing;
                add_rows(sum, transposed, n, LANE, LANE);
                finish(row, sum, some);
            }
        });
    } else if (n < 2 * PART) {
        parallel(count, std::max<i64>(1, PART / n), threads, [&](i64 from, i64 to) {
            for (i64 row = from; row < to; ++row) {
                Sum sum = sum_of_part(nothing, x + rows.offset(row, 0), stride, 0, n);
                sum.over_lanes();
                finish(row, sum, 1);
            }
        });
    } else {
        const i64 parts = (n + PART - 1) / PART;
        std::vector<Sum> sums(count * parts, nothing);
        parallel(count * parts, 1, threads, [&](i64 from, i64 to) {
            for (i64 item = from; item < to; ++item) {
                const i64 first = item % parts * PART, end = std::min(n, first + PART);
                sums[item] = sum_of_part(nothing, x + rows.offset(item / parts, 0), stride, first, end);
            }
        });
        for (i64 row = 0; row < count; ++row) {
            Sum sum = sums[row * parts];
            for (i64 part = 1; part < parts; ++part) sum.merge(sums[row * parts + part]);
            sum.over_lanes();
            finish(row, sum, 1);
        }
    }
}

// out = f(x) for each element. `of_rows(row, closer)` returns f for a row, or if closer for the LANES rows from `row` on, of
// which `some` exist: f(x, column) takes the elements at a column, and those after it if not closer.
template <class T, class OfRows>
void map_rows(const T* x, T* out, const Rows& rows, int threads, const OfRows& of_rows) {
    constexpr int LANE = LANES<Wide<T>>;
    const i64 count = rows.count(), n = rows.n;
    const i64 from_stride = rows.layouts[0].stride, to_stride = rows.layouts[1].stride;
    const bool closer = rows.are_closer(0) && rows.are_closer(1);
    if (closer) {
        const i64 groups = (rows.sizes[2] + LANE - 1) / LANE, outer = count / rows.sizes[2];
        parallel(outer * groups, std::max<i64>(1, PART / (n * LANE)), threads, [&](i64 from, i64 to) {
            for (i64 item = from; item < to; ++item) {
                const i64 first = item % groups * LANE, row = item / groups * rows.sizes[2] + first;
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
    const i64 parts = (n + PART - 1) / PART, length = parts == 1 ? n : PART;
    parallel(count * parts, std::max<i64>(1, PART / length), threads, [&](i64 from, i64 to) {
        for (i64 item = from; item < to; ++item) {
            const i64 row = item / parts, first = item % parts * PART, end = std::min(n, first + PART);
            const T* const at = x + rows.offset(row, 0);
            T* const to_at = out + rows.offset(row, 1);
            const auto f = of_rows(row, 0);
            i64 i = first;
            if (from_stride == 1 && to_stride == 1)
                for (; i + LANE <= end; i += LANE) store_narrow(to_at + i, f(load_wide(at + i), i));
            for (; i < end; i += LANE) {
                const i64 some = std::min<i64>(LANE, end - i);
                T part[LANE] = {};
                for (i64 k = 0; k < some; ++k) part[k] = at[(i + k) * from_stride];
                store_narrow(part, f(load_wide(part), i));
                for (i64 k = 0; k < some; ++k) to_at[(i + k) * to_stride] = part[k];
            }
        }
    });
}

// A value for each of the LANES rows from `row` on, or `some` of them; for one row (some = 0) the same in each lane.
template <class T> INLINE V<Wide<T>> of_row(const T* values, i64 row, i64 some) {
    if (some == 0) return all(Wide<T>(load_some(values + row, 1)[0]));
    return some == LANES<Wide<T>> ? load_wide(values + row) : load_some(values + row, some);
}

// f(T()) for the type with this code: the order of rows.native_rows.CODES.
template <class F> void of_type(i64 code, F f) {
    if (code == 0) f(float());
    else if (code == 1) f(float16());
    else if (code == 2) f(bfloat16());
    else f(double());
}
