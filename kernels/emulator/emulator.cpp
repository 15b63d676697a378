// The runtime of emulated kernels: fibers, the scheduler, barriers, launches, and the entry point for Python.
//
// Nothing here depends on the kernel, so it is compiled once and linked with each.
#include "emulator.hpp"

#include <cstdarg>
#include <cstdio>
#include <map>

#include <link.h>
#include <sys/mman.h>
#include <unistd.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

device::uint3 threadIdx, blockIdx;
device::dim3 blockDim, gridDim;

namespace emulator {

Block block;
int current;
static Context scheduler;
static const void* scheduler_stack;
static size_t scheduler_stack_bytes;

// ---------------------------------------------------------------------------------------------------- fibers

constexpr size_t stack_bytes = 256 * 1024;

#if defined(__x86_64__) && !defined(BOLTZBENCH_EMULATOR_UCONTEXT)

// Saves the registers that the calling convention preserves, and switches stacks. swapcontext does this too, with two
// system calls for the signal mask.
extern "C" __attribute__((visibility("hidden"))) void boltzbench_switch(void** save, void* load);
asm(R"(
    .text
    .globl boltzbench_switch
    .hidden boltzbench_switch
    .type boltzbench_switch, @function
boltzbench_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size boltzbench_switch, . - boltzbench_switch
)");
static void change(Context& from, Context& to) { boltzbench_switch(&from.stack_pointer, to.stack_pointer); }

// The first switch to the fiber pops six registers and returns into `entry`, with the stack aligned as after a call.
static void prepare(Context& context, char* stack, void (*entry)()) {
    void** top = reinterpret_cast<void**>(stack + stack_bytes);
    *--top = nullptr;
    *--top = reinterpret_cast<void*>(entry);
    for (int i = 0; i < 6; ++i) *--top = nullptr;
    context.stack_pointer = top;
}

#else
static void change(Context& from, Context& to) { swapcontext(&from, &to); }
static void prepare(Context& context, char* stack, void (*entry)()) {
    getcontext(&context);
    context.uc_stack = {};
    context.uc_stack.ss_sp = stack;
    context.uc_stack.ss_size = stack_bytes;
    context.uc_link = nullptr;
    makecontext(&context, entry, 0);
}
#endif

// A stack with an inaccessible page below it, so that an overflow stops the process instead of corrupting it.
static char* new_stack() {
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    void* memory =
        mmap(nullptr, page + stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory, page, PROT_NONE) != 0) return nullptr;
    return static_cast<char*>(memory) + page;
}

std::string format(const char* pattern, ...) {
    char text[512];
    va_list arguments;
    va_start(arguments, pattern);
    std::vsnprintf(text, sizeof text, pattern, arguments);
    va_end(arguments);
    return text;
}

// ------------------------------------------------------------------------------------------- switching fibers
// AddressSanitizer must know which stack is in use; in other builds these calls are empty.

static void announce_switch([[maybe_unused]] void** keep, [[maybe_unused]] const void* stack,
                            [[maybe_unused]] size_t bytes) {
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(keep, stack, bytes);
#endif
}
static void confirm_switch([[maybe_unused]] void* kept, [[maybe_unused]] const void** stack,
                           [[maybe_unused]] size_t* bytes) {
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(kept, stack, bytes);
#endif
}

static void resume(int thread) {
    current = thread;
    threadIdx = self().index;
    void* fake_stack;
    announce_switch(&fake_stack, self().stack, stack_bytes);
    change(scheduler, self().context);
    confirm_switch(fake_stack, nullptr, nullptr);
}

// Switches to the scheduler; returns when it resumes this thread. A finished thread releases its fake stack.
void yield(bool done) {
    Thread& thread = self();
    announce_switch(done ? nullptr : &thread.fake_stack, scheduler_stack, scheduler_stack_bytes);
    change(thread.context, scheduler);
    confirm_switch(thread.fake_stack, &scheduler_stack, &scheduler_stack_bytes);
}

static std::string place(const Where& where) {
    const char* slash = std::strrchr(where.file, '/');
    return format("%s:%d", slash ? slash + 1 : where.file, where.line);
}

// Ends the launch: the scheduler finds the text and resumes no thread.
[[noreturn]] void fail(const char* operation, const Where& where, const std::string& what) {
    block.error = format("block (%u, %u, %u), thread (%u, %u, %u), %s at %s: ", blockIdx.x, blockIdx.y, blockIdx.z,
                         threadIdx.x, threadIdx.y, threadIdx.z, operation, place(where).c_str()) +
                  what;
    yield(true);
    std::abort();  // not reached
}

// ------------------------------------------------------------------------------------------------ block barrier

static void open_barrier_if_complete() {
    if (block.arrived == 0 || block.arrived != block.alive) return;
    block.released = block.arrived;
    block.released_predicates = block.predicates;
    block.arrived = block.predicates = 0;
    for (Warp& warp : block.warps) {
        warp.ready |= warp.at_barrier;
        warp.at_barrier = 0;
    }
}

// The released counts stay valid until every thread has read them, since the barrier opens next only with all of them.
void barrier(const char* operation, bool predicate, const Where& where) {
    Thread& thread = self();
    thread.operation = operation;
    thread.where = where;
    if (block.arrived == 0) block.first_arrived = &thread;
    const Thread& first = *block.first_arrived;
    if (!(first.where == where))
        fail(operation, where,
             format("thread (%u, %u, %u) of this block waits at another barrier, %s at %s", first.index.x,
                    first.index.y, first.index.z, first.operation, place(first.where).c_str()));
    ++block.arrived;
    block.predicates += predicate;
    own_warp().ready &= ~(1u << own_lane());
    own_warp().at_barrier |= 1u << own_lane();
    open_barrier_if_complete();
    yield();
}

// The barrier of a cluster of `size` neighbouring blocks in x. A block runs until all its threads wait here or have
// exited.
void cluster_barrier(int size, const Where& where) {
    Thread& thread = self();
    thread.operation = "cluster_sync";
    thread.where = where;
    if (gridDim.x % static_cast<u32>(size) != 0)
        fail(thread.operation, where,
             format("a grid of %u blocks is not a multiple of the cluster of %d", gridDim.x, size));
    block.cluster_size = size;
    ++block.in_cluster;
    own_warp().ready &= ~(1u << own_lane());
    own_warp().at_cluster |= 1u << own_lane();
    yield();
}

static bool waits_for_cluster() { return block.error.empty() && block.alive > 0 && block.in_cluster == block.alive; }

static void open_cluster_barrier() {
    block.in_cluster = 0;
    for (Warp& warp : block.warps) {
        warp.ready |= warp.at_cluster;
        warp.at_cluster = 0;
    }
}

// ------------------------------------------------------------------------------------------------ warp exchange

bool arrive(const char* operation, u32 mask, u64 value, u32 source, const Where& where) {
    Thread& thread = self();
    Warp& warp = own_warp();
    Thread* lanes = &block.threads[static_cast<size_t>(current) - own_lane()];
    const u32 bit = 1u << own_lane();
    if (!(mask & bit)) fail(operation, where, format("lane %u is not in its own mask 0x%08x", own_lane(), mask));
    if (mask & ~warp.present)
        fail(operation, where,
             format("mask 0x%08x names lane %d, which this block does not have", mask,
                    __builtin_ctz(mask & ~warp.present)));
    if (mask & warp.exited)
        fail(operation, where,
             format("mask 0x%08x names lane %d, which has exited", mask, __builtin_ctz(mask & warp.exited)));
    if (!(mask >> source & 1u))
        fail(operation, where, format("reads from lane %u, which is not in the mask 0x%08x", source, mask));

    thread.operation = operation;
    thread.where = where;
    thread.mask = mask;
    thread.value = value;
    thread.source = source;
    warp.ready &= ~bit;
    warp.at_exchange |= bit;

    bool complete = (mask & warp.at_exchange) == mask;
    for (u32 left = complete ? mask : 0; left; left &= left - 1) {
        const Thread& other = lanes[__builtin_ctz(left)];
        if (other.mask == mask && std::strcmp(other.operation, operation) == 0) continue;
        if (other.mask & bit)
            fail(operation, where,
                 format("mask 0x%08x: lane %d waits in %s at %s with mask 0x%08x", mask, __builtin_ctz(left),
                        other.operation, place(other.where).c_str(), other.mask));
        complete = false;  // that lane is still in another exchange
    }
    return complete;
}

// Every lane of a warp arrives at a named barrier and, if asked to, waits there.
void partial_barrier(const char* operation, int number, int threads, bool waits, const Where& where) {
    const int all = static_cast<int>(blockDim.x * blockDim.y * blockDim.z);
    if (number < 1 || number > 15) fail(operation, where, format("a block has barriers 1 to 15, not %d", number));
    if (threads < 32 || threads % 32 || threads > all)
        fail(operation, where, format("%d threads are not whole warps of a block of %d", threads, all));
    PartialBarrier& barrier = block.partial[number];
    const u64 own = static_cast<u64>(number) << 32 | static_cast<u64>(threads);
    const u64 joined = exchange(operation, 0xffffffffu, own, own_lane(), where, [&](Thread* lanes) {
        for (int lane = 0; lane < 32; ++lane) {
            if (lanes[lane].value != own)
                fail(operation, where, "lanes of a warp name different barriers or numbers of threads");
            lanes[lane].result = barrier.opened;
        }
        if (barrier.arrived > 0 && barrier.threads != threads)
            fail(operation, where,
                 format("others expect %d threads at barrier %d, not %d", barrier.threads, number, threads));
        const u32 warp = 1u << current / 32;
        if (barrier.warps & warp) fail(operation, where, format("arrives at barrier %d twice before it opens", number));
        barrier.threads = threads;
        barrier.arrived += 32;
        barrier.warps |= warp;
        if (barrier.arrived < threads) return;
        for (int thread : barrier.waiting) {
            Warp& other = block.warps[static_cast<size_t>(thread / 32)];
            other.ready |= 1u << thread % 32;
            other.at_partial &= ~(1u << thread % 32);
        }
        barrier = {threads, 0, 0, {}, barrier.opened + 1};
    });
    if (!waits || barrier.opened != joined) return;
    self().operation = operation;
    self().where = where;
    barrier.waiting.push_back(current);
    own_warp().ready &= ~(1u << own_lane());
    own_warp().at_partial |= 1u << own_lane();
    yield();
}

// -------------------------------------------------------------------------------------------------- the scheduler

// The entry point of every fiber. It never returns: the scheduler does not resume a thread that has exited.
static void run_thread() {
    confirm_switch(nullptr, &scheduler_stack, &scheduler_stack_bytes);
    block.body();
    Warp& warp = own_warp();
    const u32 bit = 1u << own_lane();
    warp.ready &= ~bit;
    warp.exited |= bit;
    --block.alive;
    for (u32 left = warp.at_exchange; left; left &= left - 1) {
        const Thread& waiting = block.threads[static_cast<size_t>(current / 32 * 32 + __builtin_ctz(left))];
        if (waiting.mask & bit) {
            threadIdx = waiting.index;
            fail(waiting.operation, waiting.where,
                 format("mask 0x%08x names lane %u, which has exited", waiting.mask, own_lane()));
        }
    }
    open_barrier_if_complete();
    yield(true);
}

// The lowest (or highest) thread that can run, or -1.
static int next_thread(bool reverse) {
    const int warps = static_cast<int>(block.warps.size());
    for (int i = 0; i < warps; ++i) {
        const int warp = reverse ? warps - 1 - i : i;
        const u32 ready = block.warps[static_cast<size_t>(warp)].ready;
        if (ready) return 32 * warp + (reverse ? 31 - __builtin_clz(ready) : __builtin_ctz(ready));
    }
    return -1;
}

// "0-31, 40" for {0, ..., 31, 40}.
static std::string ranges(const std::vector<int>& numbers) {
    std::string text;
    for (size_t first = 0, last; first < numbers.size(); first = last + 1) {
        last = first;
        while (last + 1 < numbers.size() && numbers[last + 1] == numbers[last] + 1) ++last;
        text += (first ? ", " : "") + std::to_string(numbers[first]);
        if (last > first) text += "-" + std::to_string(numbers[last]);
    }
    return text;
}

// Which threads wait where, for the message about a deadlock. Threads are numbered x first, then y, then z.
static std::string describe_waiting() {
    std::map<std::string, std::vector<int>> groups;
    for (int i = 0; i < static_cast<int>(32 * block.warps.size()); ++i) {
        const Warp& warp = block.warps[static_cast<size_t>(i / 32)];
        const u32 bit = 1u << (i % 32);
        if (!((warp.at_barrier | warp.at_partial | warp.at_cluster | warp.at_exchange) & bit)) continue;
        const Thread& thread = block.threads[static_cast<size_t>(i)];
        std::string wait = std::string(thread.operation) + " at " + place(thread.where);
        if (warp.at_exchange & bit) wait += format(" with mask 0x%08x", thread.mask);
        groups[wait].push_back(i);
    }
    std::string text;
    for (const auto& [wait, threads] : groups) text += "\n  threads " + ranges(threads) + " wait in " + wait;
    return text;
}

static void run_threads(bool reverse) {
    for (int thread = next_thread(reverse); thread >= 0 && block.error.empty(); thread = next_thread(reverse))
        resume(thread);
    for (const PartialBarrier& barrier : block.partial)
        if (block.error.empty() && block.alive == 0 && barrier.arrived > 0)
            block.error = format("block (%u, %u, %u): ended while %d of %d threads had arrived at a barrier", blockIdx.x,
                                 blockIdx.y, blockIdx.z, barrier.arrived, barrier.threads);
    if (block.error.empty() && block.alive > 0 && !waits_for_cluster())
        block.error = format("block (%u, %u, %u): deadlock, no thread can run", blockIdx.x, blockIdx.y, blockIdx.z) +
                      describe_waiting();
}

static void start_block() {
    const int count = static_cast<int>(blockDim.x * blockDim.y * blockDim.z);
    block.warps.assign(static_cast<size_t>((count + 31) / 32), Warp{});
    block.alive = count;
    block.arrived = block.predicates = block.in_cluster = 0;
    for (PartialBarrier& barrier : block.partial) barrier = {};
    for (int i = 0; i < count; ++i) {
        Thread& thread = block.threads[static_cast<size_t>(i)];
        const unsigned linear = static_cast<unsigned>(i);
        thread.index = {linear % blockDim.x, linear / blockDim.x % blockDim.y, linear / (blockDim.x * blockDim.y)};
#ifdef __SANITIZE_ADDRESS__
        __asan_unpoison_memory_region(thread.stack, stack_bytes);  // marks left by frames of an earlier block
#endif
        thread.copies.clear();
        thread.groups = 0;
        prepare(thread.context, thread.stack, run_thread);
        block.warps[static_cast<size_t>(i / 32)].present |= 1u << (i % 32);
        block.warps[static_cast<size_t>(i / 32)].ready |= 1u << (i % 32);
    }
}

// ------------------------------------------------------------------------------------------------- shared memory

// The memory of the static shared variables.
#ifdef __SANITIZE_ADDRESS__
static std::pair<void*, size_t> static_shared() { return {nullptr, 0}; }
#else
extern "C" void* __tls_get_addr(size_t*);

static int find_thread_local_block(dl_phdr_info* object, size_t, void* found) {
    std::pair<void*, size_t> storage{nullptr, 0};
    bool ours = false;
    for (int i = 0; i < object->dlpi_phnum; ++i) {
        const auto& segment = object->dlpi_phdr[i];
        const char* start = reinterpret_cast<const char*>(object->dlpi_addr + segment.p_vaddr);
        const char* inside = reinterpret_cast<const char*>(&block);
        if (segment.p_type == PT_LOAD && start <= inside && inside < start + segment.p_memsz) ours = true;
        if (segment.p_type == PT_TLS) storage.second = segment.p_memsz;
    }
    if (!ours) return 0;
    size_t module_and_offset[2] = {object->dlpi_tls_modid, 0};
    if (storage.second > 0) storage.first = __tls_get_addr(module_and_offset);
    *static_cast<std::pair<void*, size_t>*>(found) = storage;
    return 1;
}
static std::pair<void*, size_t> static_shared() {
    std::pair<void*, size_t> storage{nullptr, 0};
    dl_iterate_phdr(find_thread_local_block, &storage);
    return storage;
}
#endif

// All bits set: NaN as a float, -1 as an integer.
static void poison(void* memory, size_t bytes) {
    if (bytes > 0) std::memset(memory, 0xff, bytes);
}

// ------------------------------------------------------------------------------------------------------ launches

static std::string check_arguments(const Kernel& kernel, const size_t* bytes, const char* kinds, size_t count) {
    if (count != kernel.parameters.size())
        return format("takes %zu arguments, given %zu", kernel.parameters.size(), count);
    for (size_t i = 0; i < count; ++i) {
        const Parameter& parameter = kernel.parameters[i];
        if (parameter.bytes != bytes[i] || parameter.kind != kinds[i])
            return format(
                "argument %zu: the parameter is %s (%c, %zu bytes), the argument is (%c, %zu bytes); p pointer, i "
                "integer, f floating point, s struct",
                i, parameter.type.c_str(), parameter.kind, parameter.bytes, kinds[i], bytes[i]);
    }
    return "";
}

// Prepares stacks, dynamic shared memory and the kernel for `block`; returns what could not be allocated.
static std::string provide(size_t threads, size_t shared_bytes, const std::function<void()>& body) {
    if (block.threads.size() < threads) block.threads.resize(threads);
    for (Thread& thread : block.threads)
        if (!thread.stack && !(thread.stack = new_stack())) return "no memory for the threads' stacks";
    if (posix_memalign(&block.dynamic_shared, 128, shared_bytes) != 0) return "no memory for dynamic shared memory";
    block.body = body;
    block.error.clear();
    return "";
}

static std::vector<Block> cluster;  // grows to the largest cluster of a launch, which releases its stacks at the end

// Each stack takes two mappings; a process may have some 65,000 of them, and a cluster needs thousands.
static void release_stacks(Block& of) {
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    for (Thread& thread : of.threads) {
        if (!thread.stack) continue;
#ifdef __SANITIZE_ADDRESS__
        __asan_unpoison_memory_region(thread.stack, stack_bytes);
#endif
        munmap(thread.stack - page, page + stack_bytes);
        thread.stack = nullptr;
    }
}
static void release_cluster() {
    for (Block& each : cluster) release_stacks(each);
    cluster.clear();
}

// Runs the other blocks of a cluster whose first block, in `block`, waits for them; `start(k)` begins block k.
template <class Number, class Start> std::string run_cluster(int size, bool reverse, Number number, Start start) {
    if (cluster.size() < static_cast<size_t>(size)) cluster.resize(static_cast<size_t>(size));
    std::string error;
    for (bool begun = false, waiting = true; waiting && error.empty(); begun = true) {
        int waits = 0;
        for (int k = 0; k < size && error.empty(); ++k) {
            if (begun || k > 0) {
                std::swap(block, cluster[static_cast<size_t>(k)]);
                blockIdx = number(k);
                if (begun)
                    open_cluster_barrier();
                else
                    error = start();
                if (error.empty()) run_threads(reverse);
            }
            if (error.empty()) error = block.error;
            waits += waits_for_cluster();
            std::swap(block, cluster[static_cast<size_t>(k)]);
        }
        waiting = waits > 0;
        if (error.empty() && waiting && waits < size)
            error = format("cluster_sync: %d blocks of a cluster of %d wait for blocks that have ended", waits, size);
    }
    for (int k = 0; k < size; ++k) std::free(std::exchange(cluster[static_cast<size_t>(k)].dynamic_shared, nullptr));
    return error;
}

static std::string launch(const Kernel& kernel, size_t shared_bytes, void** arguments, bool reverse) {
    const size_t count = static_cast<size_t>(blockDim.x) * blockDim.y * blockDim.z;
    const auto [static_memory, static_bytes] = static_shared();
    const std::function<void()> body = kernel.bind(arguments);
    const u64 blocks = static_cast<u64>(gridDim.x) * gridDim.y * gridDim.z;
    const auto number = [&](u64 i) -> uint3 {
        const u64 linear = reverse ? blocks - 1 - i : i;
        return {static_cast<u32>(linear % gridDim.x), static_cast<u32>(linear / gridDim.x % gridDim.y),
                static_cast<u32>(linear / gridDim.x / gridDim.y)};
    };
    std::string error = provide(count, shared_bytes, body);
    for (u64 i = 0; i < blocks && error.empty(); ++i) {
        blockIdx = number(i);
        poison(block.dynamic_shared, shared_bytes);
        poison(static_memory, static_bytes);
        start_block();
        run_threads(reverse);
        error = block.error;
        if (!waits_for_cluster()) continue;
        const u64 first = i, size = static_cast<u64>(block.cluster_size);
        if (static_bytes > 0) return "the emulator does not support static shared memory in clusters";
        error = run_cluster(
            static_cast<int>(size), reverse, [&](int k) { return number(first + static_cast<u64>(k)); },
            [&] {
                std::string lacking = provide(count, shared_bytes, body);
                poison(block.dynamic_shared, shared_bytes);
                start_block();
                return lacking;
            });
        i += size - 1;
        if (error.empty()) error = provide(count, shared_bytes, body);
    }
    std::free(std::exchange(block.dynamic_shared, nullptr));
    release_cluster();
    return error;
}

}  // namespace emulator

// Returns 0, or 1 with the reason in `message`.
extern "C" __attribute__((visibility("default"))) int boltzbench_launch(
    size_t kernel, const unsigned* grid, const unsigned* threads, size_t shared_bytes, void** arguments,
    const size_t* bytes, const char* kinds, size_t count, int reverse, char* message, size_t message_bytes) {
    gridDim = {grid[0], grid[1], grid[2]};
    blockDim = {threads[0], threads[1], threads[2]};
    std::string error = emulator::check_arguments(device::kernels[kernel], bytes, kinds, count);
    if (error.empty()) error = emulator::launch(device::kernels[kernel], shared_bytes, arguments, reverse != 0);
    std::snprintf(message, message_bytes, "%s", error.c_str());
    return error.empty() ? 0 : 1;
}
extern "C" __attribute__((visibility("default"))) void boltzbench_release() {
    emulator::release_stacks(emulator::block);
}
