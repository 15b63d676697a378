// The gradient in CUDA C: hidden probabilities of both phases in one launch, both products of states in another.
//
// Arithmetic on the bfloat16 tensor cores bounds the speed: each chain and weight takes 2 operations for hidden states,
// 6 for hidden probabilities (float32, three parts), and 2, 4 or 6 more for the fields if probabilities are computed.
// Memory traffic is one byte for each state, and 4 for each probability, written and read once.
//
// Design: tiles as in binary_product.cuh. A block computes 128 visible x 64 hidden units from its part of the data's
// chains and then of the model's, in separate sums, so that equal phases cancel exactly. If tiles are few and chains
// many, chains are split into parts; the block that finishes last adds the parts in order. The blocks of the first row
// and column of tiles also sum the states of their units, for the biases.
#include "binary_product.cuh"

// The chains of one phase. visible: uint8 (chains, visible_units), hidden: T (chains, hidden_units), both contiguous.
template <class T> struct Phase {
    const unsigned char* visible;
    T* hidden;
    i64 chains;
};

// Writes hidden probabilities: the first data_tiles blocks in x for the data, the other blocks for the model.
template <class T>
__global__ void __launch_bounds__(THREADS, 2)
    infer(const unsigned char* data, const unsigned char* model, float* data_hidden, float* model_hidden,
          const T* weights, const T* hidden_bias, i64 data_tiles, i64 data_chains, i64 model_chains, i64 visible_units,
          i64 hidden_units, i64 weight_stride_visible, i64 weight_stride_hidden, double beta) {
    __shared__ Tiles tiles;
    const bool of_data = blockIdx.x < data_tiles;
    const Phase<float> phase = of_data ? Phase<float>{data, data_hidden, data_chains}
                                       : Phase<float>{model, model_hidden, model_chains};
    const i64 tile_chain = (blockIdx.x - (of_data ? 0 : data_tiles)) * ROWS, tile_unit = (i64)blockIdx.y * COLUMNS;
    Sum fields = {};
    add_product(fields, tiles, States<true>(phase.visible, phase.chains, visible_units),
                Values<T>{weights, hidden_units, weight_stride_visible, weight_stride_hidden}, tile_chain, tile_unit, 0,
                visible_units);
    const float scale = (float)(-beta * 1.4426950408889634);
#pragma unroll
    for (int i = 0; i < 2; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j)
#pragma unroll
            for (int own = 0; own < 4; ++own) {
                const i64 chain = tile_chain + own_row() + 16 * i + 8 * (own / 2);
                const i64 unit = tile_unit + own_column() + 8 * j + own % 2;
                if (chain >= phase.chains || unit >= hidden_units) continue;
                const float field = fields.sum[i][j][own] + to_float(hidden_bias[unit]);
                phase.hidden[chain * hidden_units + unit] = 1.0f / (1.0f + exp2_fast(scale * field));
            }
}

// Sums UNITS units from `first` on over the chains from begin to end. The first UNITS threads return the sums, but all
// threads must call it.
template <int UNITS, class T>
__device__ __forceinline__ float unit_sum(float* shared, const T* states, i64 first, i64 units, i64 begin, i64 end) {
    const int unit = threadIdx.x % UNITS;
    float total = 0;
    if (first + unit < units)
        for (i64 chain = begin + threadIdx.x / UNITS; chain < end; chain += THREADS / UNITS)
            total += value_of(states[chain * units + first + unit]);
    __syncthreads();
    shared[threadIdx.x] = total;
    __syncthreads();
    for (int other = UNITS; threadIdx.x < UNITS && other < THREADS; other += UNITS) total += shared[threadIdx.x + other];
    return total;
}

// The difference of two means, each rounded first, so that equal phases cancel: a fused multiply-add would leave the
// rounding error of the other product.
__device__ __forceinline__ float difference(float of_data, float data_share, float of_model, float model_share) {
    return __fmul_rn(of_data, data_share) - __fmul_rn(of_model, model_share);
}

// The sum over all parts of the number at `place`, in the order of the parts.
__device__ __forceinline__ float added(const float* parts, i64 width, i64 place) {
    float total = 0;
    for (u32 part = 0; part < gridDim.z; ++part) total += __ldcg(parts + part * width + place);
    return total;
}

// weights_out: float (visible_units, hidden_units); visible_out, hidden_out: float, one number for each unit.
// parts: float (gridDim.z, length of all outputs), counters: one for each tile, 0 before and after; both null if there
// is one part. data_part, model_part: the chains in a part.
template <class D, class M>
__global__ void __launch_bounds__(THREADS, 2)
    gradient(const unsigned char* data, const unsigned char* model, const D* data_hidden, const M* model_hidden,
             float* weights_out, float* visible_out, float* hidden_out, float* parts, u32* counters, i64 data_chains,
             i64 model_chains, i64 visible_units, i64 hidden_units, i64 data_part, i64 model_part) {
    __shared__ Tiles tiles;
    const i64 row = (i64)blockIdx.x * ROWS, column = (i64)blockIdx.y * COLUMNS;
    const i64 data_begin = blockIdx.z * data_part, model_begin = blockIdx.z * model_part;
    const i64 data_end = data_begin + data_part < data_chains ? data_begin + data_part : data_chains;
    const i64 model_end = model_begin + model_part < model_chains ? model_begin + model_part : model_chains;
    Sum of_data = {}, of_model = {};
    add_product(of_data, tiles, States<false>(data, data_chains, visible_units),
                Values<D>{data_hidden, hidden_units, hidden_units, 1}, row, column, data_begin, data_end);
    add_product(of_model, tiles, States<false>(model, model_chains, visible_units),
                Values<M>{model_hidden, hidden_units, hidden_units, 1}, row, column, model_begin, model_end);
    const float data_share = 1.0f / (float)data_chains, model_share = 1.0f / (float)model_chains;
    const i64 size = visible_units * hidden_units, width = size + visible_units + hidden_units;
    float* const weights_to = parts ? parts + blockIdx.z * width : weights_out;
    float* const visible_to = parts ? weights_to + size : visible_out;
    float* const hidden_to = parts ? visible_to + visible_units : hidden_out;
#pragma unroll
    for (int i = 0; i < 2; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j)
#pragma unroll
            for (int own = 0; own < 4; ++own) {
                const i64 r = row + own_row() + 16 * i + 8 * (own / 2), c = column + own_column() + 8 * j + own % 2;
                const float change =
                    difference(of_data.sum[i][j][own], data_share, of_model.sum[i][j][own], model_share);
                if (r < visible_units && c < hidden_units) weights_to[r * hidden_units + c] = change;
            }
    float* const shared = reinterpret_cast<float*>(tiles.states);
    if (blockIdx.y == 0) {
        const float data_sum = unit_sum<ROWS>(shared, data, row, visible_units, data_begin, data_end);
        const float model_sum = unit_sum<ROWS>(shared, model, row, visible_units, model_begin, model_end);
        const i64 unit = row + threadIdx.x;
        if (threadIdx.x < ROWS && unit < visible_units)
            visible_to[unit] = difference(data_sum, data_share, model_sum, model_share);
    }
    if (blockIdx.x == 0) {
        const float data_sum = unit_sum<COLUMNS>(shared, data_hidden, column, hidden_units, data_begin, data_end);
        const float model_sum = unit_sum<COLUMNS>(shared, model_hidden, column, hidden_units, model_begin, model_end);
        const i64 unit = column + threadIdx.x;
        if (threadIdx.x < COLUMNS && unit < hidden_units)
            hidden_to[unit] = difference(data_sum, data_share, model_sum, model_share);
    }
    if (!parts || !is_last(counters + blockIdx.x * gridDim.y + blockIdx.y, gridDim.z)) return;
    for (int own = threadIdx.x; own < ROWS * COLUMNS; own += THREADS) {
        const i64 r = row + own / COLUMNS, c = column + own % COLUMNS, place = r * hidden_units + c;
        if (r < visible_units && c < hidden_units) weights_out[place] = added(parts, width, place);
    }
    if (threadIdx.x < ROWS && blockIdx.y == 0 && row + threadIdx.x < visible_units)
        visible_out[row + threadIdx.x] = added(parts, width, size + row + threadIdx.x);
    if (threadIdx.x < COLUMNS && blockIdx.x == 0 && column + threadIdx.x < hidden_units)
        hidden_out[column + threadIdx.x] = added(parts, width, size + visible_units + column + threadIdx.x);
}
