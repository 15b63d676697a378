// Block barriers, warp votes, shuffles and reductions under CUDA's names.
//
// The last parameter of each is the emulator's own: its default is the position of the call, for error messages.
#pragma once

#define BOLTZBENCH_WHERE emulator::Where where = emulator::Where::here()

inline void __syncthreads(BOLTZBENCH_WHERE) { emulator::barrier("__syncthreads", false, where); }
inline int __syncthreads_count(int predicate, BOLTZBENCH_WHERE) {
    emulator::barrier("__syncthreads_count", predicate != 0, where);
    return emulator::block.released_predicates;
}
inline int __syncthreads_or(int predicate, BOLTZBENCH_WHERE) {
    emulator::barrier("__syncthreads_or", predicate != 0, where);
    return emulator::block.released_predicates != 0;
}
inline int __syncthreads_and(int predicate, BOLTZBENCH_WHERE) {
    emulator::barrier("__syncthreads_and", predicate != 0, where);
    return emulator::block.released_predicates == emulator::block.released;
}

// Named barriers; these names are this project's.
inline void barrier_wait(int number, int threads, BOLTZBENCH_WHERE) {
    emulator::partial_barrier("barrier_wait", number, threads, true, where);
}
inline void barrier_arrive(int number, int threads, BOLTZBENCH_WHERE) {
    emulator::partial_barrier("barrier_arrive", number, threads, false, where);
}

// The barrier of a cluster; this name is this project's.
template <int BLOCKS> void cluster_sync(BOLTZBENCH_WHERE) { emulator::cluster_barrier(BLOCKS, where); }

// All lanes that have not exited. A GPU may report fewer.
inline unsigned __activemask() { return emulator::own_warp().present & ~emulator::own_warp().exited; }

inline void __syncwarp(unsigned mask = 0xffffffffu, BOLTZBENCH_WHERE) {
    emulator::exchange("__syncwarp", mask, 0, emulator::own_lane(), where, [](emulator::Thread*) {});
}

// Lanes form segments of `width`; a lane whose source lies outside its segment (for xor: beyond its end) keeps its
// value.
template <class T> T __shfl_sync(unsigned mask, T value, int source, int width = 32, BOLTZBENCH_WHERE) {
    const unsigned segment = static_cast<unsigned>(width) - 1, lane = emulator::own_lane();
    return emulator::shuffle("__shfl_sync", mask, value, (lane & ~segment) | (static_cast<unsigned>(source) & segment),
                             where);
}
template <class T> T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, BOLTZBENCH_WHERE) {
    const unsigned segment = static_cast<unsigned>(width) - 1, lane = emulator::own_lane();
    return emulator::shuffle("__shfl_up_sync", mask, value, (lane & segment) >= delta ? lane - delta : lane, where);
}
template <class T> T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, BOLTZBENCH_WHERE) {
    const unsigned segment = static_cast<unsigned>(width) - 1, lane = emulator::own_lane();
    return emulator::shuffle("__shfl_down_sync", mask, value, segment - (lane & segment) >= delta ? lane + delta : lane,
                             where);
}
template <class T> T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32, BOLTZBENCH_WHERE) {
    const unsigned segment = static_cast<unsigned>(width) - 1, lane = emulator::own_lane();
    const unsigned other = lane ^ static_cast<unsigned>(lane_mask);
    return emulator::shuffle("__shfl_xor_sync", mask, value, other <= (lane | segment) ? other : lane, where);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, BOLTZBENCH_WHERE) {
    const unsigned own_bit = predicate != 0 ? 1u << emulator::own_lane() : 0u;
    return static_cast<unsigned>(
        emulator::reduce("__ballot_sync", mask, own_bit, where, [](auto a, auto b) { return a | b; }));
}
inline int __any_sync(unsigned mask, int predicate, BOLTZBENCH_WHERE) {
    return static_cast<int>(
        emulator::reduce("__any_sync", mask, predicate != 0, where, [](auto a, auto b) { return a | b; }));
}
inline int __all_sync(unsigned mask, int predicate, BOLTZBENCH_WHERE) {
    return static_cast<int>(
        emulator::reduce("__all_sync", mask, predicate != 0, where, [](auto a, auto b) { return a & b; }));
}

// For 32-bit integers only, as on sm_80 and above; `a` and `b` are the values of two lanes.
#define BOLTZBENCH_REDUCE(T, name, combined)                                                             \
    inline T name(unsigned mask, T value, BOLTZBENCH_WHERE) {                                            \
        return static_cast<T>(                                                                           \
            emulator::reduce(#name, mask, static_cast<emulator::u64>(value), where, [](auto x, auto y) { \
                const T a = static_cast<T>(x), b = static_cast<T>(y);                                    \
                return static_cast<emulator::u64>(combined);                                             \
            }));                                                                                         \
    }
BOLTZBENCH_REDUCE(unsigned, __reduce_add_sync, a + b)
BOLTZBENCH_REDUCE(unsigned, __reduce_min_sync, a < b ? a : b)
BOLTZBENCH_REDUCE(unsigned, __reduce_max_sync, a > b ? a : b)
BOLTZBENCH_REDUCE(unsigned, __reduce_and_sync, a& b)
BOLTZBENCH_REDUCE(unsigned, __reduce_or_sync, a | b)
BOLTZBENCH_REDUCE(unsigned, __reduce_xor_sync, a ^ b)
BOLTZBENCH_REDUCE(int, __reduce_add_sync, device::wrapping_add(a, b))
BOLTZBENCH_REDUCE(int, __reduce_min_sync, a < b ? a : b)
BOLTZBENCH_REDUCE(int, __reduce_max_sync, a > b ? a : b)

[[noreturn]] inline void __trap(BOLTZBENCH_WHERE) { emulator::fail("__trap", where, "the kernel stopped itself"); }
