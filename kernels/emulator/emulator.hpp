// CUDA's execution model on one host thread, so that a kernel file can be compiled by g++ and run on a CPU.
//
// Each CUDA thread is a fiber with its own stack; a switch takes a few instructions. A fiber runs until it waits (at a
// block barrier or a warp exchange) or returns; the scheduler then resumes the first thread that can run. "First" is
// the lowest warp and lane (forward) or the highest (reverse): one warp runs as far ahead of the others as barriers
// allow, which exposes missing barriers. Blocks run one after another; blocks of a cluster take turns at the cluster's
// barrier.
//
// The generated translation unit reads:
//     #include "emulator.hpp"
//     namespace device {
//     #include "some_kernel.cu"
//     const std::vector<emulator::Kernel> kernels = {emulator::make_kernel("name", &name), ...};
//     }
// It is linked with emulator.cpp, which is compiled once. An error ends the launch and is returned as text; the fibers
// of that block are abandoned.
#pragma once
#define BOLTZBENCH_EMULATOR 1

#include <cxxabi.h>
#include <cstdlib>
#include <functional>
#include <string>
#include <tuple>
#include <typeinfo>
#include <utility>
#include <vector>

#if !defined(__x86_64__) || defined(BOLTZBENCH_EMULATOR_UCONTEXT)
#include <ucontext.h>
#endif

#include "functions.hpp"

namespace emulator {

using device::dim3, device::uint3;
using u32 = unsigned;
using u64 = unsigned long long;

#if defined(__x86_64__) && !defined(BOLTZBENCH_EMULATOR_UCONTEXT)
struct Context {
    void* stack_pointer;
};
#else
using Context = ucontext_t;
#endif

// ----------------------------------------------------------------------------------- the state of one block

// A position in the kernel file: the default argument is evaluated at the call.
struct Where {
    const char* file;
    int line;
    static constexpr Where here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
        return {file, line};
    }
    bool operator==(const Where& other) const { return line == other.line && std::strcmp(file, other.file) == 0; }
};

// An asynchronous copy of `width` bytes to shared memory: `bytes` are read, the rest is zero.
struct Copy {
    void* to;
    const void* from;
    u32 width, bytes;
    int group;
};

struct Thread {
    Context context;
    char* stack = nullptr;
    void* fake_stack = nullptr;  // AddressSanitizer's
    uint3 index;
    // What the thread waits for, and its values in a warp exchange.
    const char* operation;
    Where where;
    u32 mask;
    u64 value, result;
    u32 source;
    std::vector<Copy> copies;  // not yet arrived
    int groups;                // groups closed so far
};

// Lanes of a warp as bits. Every present lane is in exactly one of the other six sets.
struct Warp {
    u32 present = 0, ready = 0, at_barrier = 0, at_partial = 0, at_cluster = 0, at_exchange = 0, exited = 0;
};

// A named barrier: how many threads it expects and has, from which warps, which of them wait, and how often it has
// opened.
struct PartialBarrier {
    int threads = 0, arrived = 0;
    u32 warps = 0;
    std::vector<int> waiting;
    u64 opened = 0;
};

struct Block {
    std::vector<Thread> threads;  // grows to the largest block seen, and keeps the stacks
    std::vector<Warp> warps;
    int alive, arrived, predicates;     // threads not yet exited, at the barrier, and of these with a true predicate
    int released, released_predicates;  // the last two when the barrier last opened
    const Thread* first_arrived;
    PartialBarrier partial[16];
    int in_cluster = 0, cluster_size = 0;  // threads at the cluster's barrier, and the number of its blocks
    void* dynamic_shared = nullptr;
    std::function<void()> body;
    std::string error;
};

extern Block block;
extern int current;  // linear index of the running thread

inline Thread& self() { return block.threads[static_cast<size_t>(current)]; }
inline Warp& own_warp() { return block.warps[static_cast<size_t>(current / 32)]; }
inline u32 own_lane() { return static_cast<u32>(current % 32); }
inline void* dynamic_shared() { return block.dynamic_shared; }

}  // namespace emulator

// CUDA's built-in variables: globals that are set whenever a thread resumes.
extern device::uint3 threadIdx, blockIdx;
extern device::dim3 blockDim, gridDim;
constexpr int warpSize = 32;

namespace emulator {

// ------------------------------------------------------------------------------------------- waiting and failing

__attribute__((format(printf, 1, 2))) std::string format(const char* pattern, ...);

// Switches to the scheduler; returns when it resumes this thread. A finished thread releases its fake stack.
void yield(bool done = false);

// Ends the launch: the scheduler finds the text and resumes no thread.
[[noreturn]] void fail(const char* operation, const Where& where, const std::string& what);

// Every thread of the block waits here that has not exited.
void barrier(const char* operation, bool predicate, const Where& where);

// The barrier of a cluster of `size` neighbouring blocks in x. A block runs until all its threads wait here or have
// exited.
void cluster_barrier(int size, const Where& where);

// Every lane of a warp arrives at a named barrier and, if asked to, waits there.
void partial_barrier(const char* operation, int number, int threads, bool waits, const Where& where);

// ------------------------------------------------------------------------------------------------ warp exchange

// Lane and warp of this thread wait for an exchange. True for the last lane of `mask` to arrive.
bool arrive(const char* operation, u32 mask, u64 value, u32 source, const Where& where);

// Each lane of `mask` brings a value; the last to arrive calls finish(lanes), which sets every lane's result.
template <class Finish>
u64 exchange(const char* operation, u32 mask, u64 value, u32 source, const Where& where, Finish finish) {
    if (arrive(operation, mask, value, source, where)) {
        finish(&block.threads[static_cast<size_t>(current) - own_lane()]);
        own_warp().at_exchange &= ~mask;
        own_warp().ready |= mask;
    }
    yield();
    return self().result;
}

template <class T> T shuffle(const char* operation, u32 mask, T value, u32 source, const Where& where) {
    static_assert(device::is_one_of<T, int, unsigned, long, unsigned long, long long, u64, float, double>,
                  "__shfl_sync does not take this type in CUDA");
    u64 bits = 0;
    std::memcpy(&bits, &value, sizeof value);
    bits = exchange(operation, mask, bits, source, where, [mask](Thread* lanes) {
        for (u32 left = mask; left; left &= left - 1) {
            Thread& lane = lanes[__builtin_ctz(left)];
            lane.result = lanes[lane.source].value;
        }
    });
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

// All lanes get the same result: the values of the lanes in `mask`, combined in lane order.
template <class Combine> u64 reduce(const char* operation, u32 mask, u64 value, const Where& where, Combine combine) {
    return exchange(operation, mask, value, own_lane(), where, [mask, combine](Thread* lanes) {
        u64 total = lanes[__builtin_ctz(mask)].value;
        for (u32 left = mask & (mask - 1); left; left &= left - 1)
            total = combine(total, lanes[__builtin_ctz(left)].value);
        for (u32 left = mask; left; left &= left - 1) lanes[__builtin_ctz(left)].result = total;
    });
}

// ------------------------------------------------------------------------------------------- shared memory, kernels

// Static shared variables are the only thread-local variables of a shared object, so its thread-local block holds all
// of them, also those of templates and inline functions, and can be poisoned as a whole. AddressSanitizer guards only
// ordinary static variables; sanitizer builds use those instead, unpoisoned.
#ifdef __SANITIZE_ADDRESS__
#define __shared__ static
#else
#define __shared__ static __thread
#endif

struct Parameter {
    std::string type;
    size_t bytes;
    char kind;  // 'p' pointer, 'i' integer, 'f' floating point, 's' anything else, by value
};

struct Kernel {
    const char* name;
    std::vector<Parameter> parameters;
    std::function<std::function<void()>(void**)> bind;  // arguments in the format of cuLaunchKernel
};

template <class P> Parameter describe_parameter() {
    int status;
    char* name = abi::__cxa_demangle(typeid(P).name(), nullptr, nullptr, &status);
    Parameter parameter{name, sizeof(P),
                        std::is_pointer_v<P>                         ? 'p'
                        : std::is_integral_v<P> || std::is_enum_v<P> ? 'i'
                        : std::is_floating_point_v<P>                ? 'f'
                                                                     : 's'};
    std::free(name);
    return parameter;
}

template <class P> P read(const void* argument) {
    static_assert(std::is_trivially_copyable_v<P>, "a kernel's parameters must be trivially copyable");
    alignas(P) unsigned char bytes[sizeof(P)];
    std::memcpy(bytes, argument, sizeof(P));
    return *reinterpret_cast<P*>(bytes);
}

template <class... P, size_t... I> std::tuple<P...> read_all(void** arguments, std::index_sequence<I...>) {
    return {read<P>(arguments[I])...};
}

template <class... P> Kernel make_kernel(const char* name, void (*function)(P...)) {
    return {name, {describe_parameter<P>()...}, [function](void** arguments) -> std::function<void()> {
                return [function, values = read_all<P...>(arguments, std::index_sequence_for<P...>{})] {
                    std::apply(function, values);
                };
            }};
}

}  // namespace emulator

namespace device {
extern const std::vector<emulator::Kernel> kernels;
}

#include "synchronisation.hpp"
#include "matrix.hpp"
