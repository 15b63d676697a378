// The Langevin update in CUDA C: one launch for a list of tensors of any shapes and dtypes.
//
// Bound by memory: per float32 parameter 12 B (parameter and gradient read, parameter written), per 16-bit one 6 B. The
// noise costs a quarter of a Philox call and half a logarithm, square root, sine and cosine each.
//
// Design: a block finds in the table which tensor and which 4096 elements are its own; a thread takes four
// neighbouring elements at a time, which one Philox call serves, in one vector access where the addresses allow it.
#include "philox.cuh"

constexpr int THREADS = 256;
constexpr int BLOCK = 4096;  // elements of a block

// A row of the table of tensors and one of the table of blocks: see update_list.py.
struct Tensor {
    i64 parameter, gradient, elements, dtype, number;
};
struct Block {
    i64 tensor, first;
};

template <class T> struct __align__(sizeof(T) * 4) Four {
    T item[4];
};

template <class T>
__device__ void update_block(const Tensor& tensor, i64 first, double step_size, double noise_argument, u64 seed,
                             u32 step) {
    using Real = Wide<T>;
    T* const x = reinterpret_cast<T*>(tensor.parameter);
    const T* const g = reinterpret_cast<const T*>(tensor.gradient);
    const Real half = (Real)(0.5 * step_size), noise = (Real)noise_argument;
    const bool aligned = (tensor.parameter | tensor.gradient) % sizeof(Four<T>) == 0;
    const i64 end = first + BLOCK < tensor.elements ? first + BLOCK : tensor.elements;
    for (i64 i = first + threadIdx.x * 4; i < end; i += THREADS * 4) {
        const int count = end - i < 4 ? (int)(end - i) : 4;
        Four<T> position, slope;
        if (aligned && count == 4) {
            position = *reinterpret_cast<const Four<T>*>(x + i);
            slope = *reinterpret_cast<const Four<T>*>(g + i);
        } else {
#pragma unroll
            for (int j = 0; j < 4; ++j)
                if (j < count) {
                    position.item[j] = x[i + j];
                    slope.item[j] = g[i + j];
                }
        }
        Real z[4] = {};
        if (noise != 0) normals(random_words(i / 4, seed, step, STREAM_NOISE, (u32)tensor.number), z);
#pragma unroll
        for (int j = 0; j < 4; ++j)
            if (j < count) {
                Real moved = widen(position.item[j]) - half * widen(slope.item[j]);
                if (noise != 0) moved += noise * z[j];
                position.item[j] = narrow<T>(moved);
            }
        if (aligned && count == 4) {
            *reinterpret_cast<Four<T>*>(x + i) = position;
        } else {
#pragma unroll
            for (int j = 0; j < 4; ++j)
                if (j < count) x[i + j] = position.item[j];
        }
    }
}

__global__ void __launch_bounds__(THREADS)
    update(const Tensor* tensors, const Block* blocks, double step_size, double noise, u64 seed, u32 step) {
    const Block block = blocks[blockIdx.x];
    const Tensor tensor = tensors[block.tensor];
    switch (tensor.dtype) {
        case 0: return update_block<float>(tensor, block.first, step_size, noise, seed, step);
        case 1: return update_block<float16>(tensor, block.first, step_size, noise, seed, step);
        case 2: return update_block<bfloat16>(tensor, block.first, step_size, noise, seed, step);
        default: return update_block<double>(tensor, block.first, step_size, noise, seed, step);
    }
}
