"""Wrong kernels of `rbm_gibbs`: see `support/wrong_kernels.py`."""

import torch
from boltzbench.harness import Inputs, Launch, Status, Tensors
from support.wrong_kernels import WrongKernel, mutants, shipped, spoiled
from torch import Tensor

OPERATION = "rbm_gibbs"

ENUMERATION = "enumeration beta=2"
GIBBS = "chains=70 visible=100 hidden=17 sweeps=1 float32"
SQUARE = "chains=256 visible=48 hidden=48 sweeps=1 float32"
BF16, BF16X3, INT8X3 = (f"{precision} {GIBBS}" for precision in ("bf16", "bf16x3", "int8x3"))
PACKED = "packed chains=70 visible=100 hidden=17 sweeps=2 float32"
CLUSTER = "int8x3 chains=3 visible=70 hidden=560 sweeps=2 float32"
BF16_RESIDENT = "bf16 chains=9 visible=70 hidden=33 sweeps=2 float32"
BF16X3_RESIDENT = "bf16x3 chains=9 visible=70 hidden=33 sweeps=2 float32"
NO_TURNS = (
    "barrier_wait(1 + group, THREADS); }\n__device__ __forceinline__ void give_turn(int group, bool last) {\n"
    "    if (group == 0 || !last) barrier_arrive(2 - group, THREADS);",
    "}\n__device__ __forceinline__ void give_turn(int, bool) {",
)
CLAMPED_RESIDENT = "clamped bf16 chains=70 visible=100 hidden=17 sweeps=2 float32"


def freezes_a_unit(inputs: Inputs, outputs: Tensors) -> Launch:
    def launch() -> Tensors:
        shipped(OPERATION)(inputs, outputs)()
        outputs["visible"][:, 5] = inputs["states"][:, 5]
        return outputs

    return launch


def shares_uniforms_between_chains(inputs: Inputs, outputs: Tensors) -> Launch:
    def launch() -> Tensors:
        for chain in range(len(inputs["states"])):
            part = {name: tensor[chain : chain + 1] for name, tensor in outputs.items()}
            shipped(OPERATION)({**inputs, "states": inputs["states"][chain : chain + 1]}, part)()
        return outputs

    return launch


WRONG_KERNELS = (
    WrongKernel("freezes_a_unit", OPERATION, GIBBS, Status.WRONG_VALUES, freezes_a_unit),
    WrongKernel(
        "shares_uniforms_between_chains", OPERATION, GIBBS, Status.WRONG_VALUES, shares_uniforms_between_chains
    ),
    *spoiled(
        OPERATION,
        ("reads_its_number_once", "composition", Status.WRONG_LAW,
         lambda inputs: {"first_sweep": 0} if isinstance(inputs["first_sweep"], Tensor) else {}),
        ("swaps_beta_for_one", "hot chains=65 visible=33 hidden=65 sweeps=1 float32", Status.WRONG_VALUES,
         lambda inputs: {"beta": 1.0}),
        ("misses_a_sweep", "chains=33 visible=20 hidden=12 sweeps=5 float32", Status.WRONG_VALUES,
         lambda inputs: {"sweeps": 4}),
        ("repeats_the_first_sweep's_uniforms", "composition", Status.WRONG_LAW, lambda inputs: {"first_sweep": 0}),
        ("forgets_the_hidden_bias", GIBBS, Status.WRONG_VALUES,
         lambda inputs: {"hidden_bias": torch.zeros_like(inputs["hidden_bias"])}),
        ("swaps_the_biases", SQUARE, Status.WRONG_VALUES,
         lambda inputs: {"visible_bias": inputs["hidden_bias"], "hidden_bias": inputs["visible_bias"]}),
        ("takes_the_weights_transposed", SQUARE, Status.WRONG_VALUES,
         lambda inputs: {"weights": inputs["weights"].t()}),
        ("takes_one_part_for_three", BF16X3, Status.WRONG_VALUES, lambda inputs: {"precision": "bf16"}),
        ("rounds_its_weights", "enumeration int8x3", Status.WRONG_LAW,
         lambda inputs: {"weights": (4 * inputs["weights"]).round() / 4}),
        ("ignores_beta", "enumeration 10 x 8", Status.WRONG_LAW, lambda inputs: {"beta": 1.0}),
        ("swaps_the_biases", "enumeration 10 x 8", Status.WRONG_LAW,
         lambda inputs: {"hidden_bias": inputs["visible_bias"][: len(inputs["hidden_bias"])]}),
        ("never_draws_a_visible_unit", "ergodicity", Status.WRONG_LAW,
         lambda inputs: {"clamped": torch.arange(len(inputs["weights"]), device=inputs["weights"].device) == 2}),
        ("unclamps", "clamped chains=65 visible=33 hidden=65 sweeps=1 float32", Status.WRONG_VALUES,
         lambda inputs: {"clamped": None}),
        ("is_a_little_too_cold", ENUMERATION, Status.WRONG_LAW, lambda inputs: {"beta": 1.05 * inputs["beta"]}),
        ("is_too_hot", "enumeration beta=0.5", Status.WRONG_LAW, lambda inputs: {"beta": 0.8 * inputs["beta"]}),
    ),
    *mutants(
        OPERATION,
        ("rbm_gibbs.cpp", "+ unit / 4", "+ unit / 8", GIBBS),
        ("rbm_gibbs.cpp", "(units + 3) / 4", "units / 4", GIBBS),
        ("rbm_gibbs.cpp", "bits(test > Real(0)) << k", "bits(test > Real(0)) << (UNITS - LANES<Real> - k)", PACKED),
        ("rbm_gibbs.cpp", "states >> i & 1", "states >> (i ^ 1) & 1", GIBBS),
        ("rbm_gibbs.cpp", "++hidden.step, ++visible.step;", "++hidden.step;", PACKED),
        ("rbm_gibbs.cpp", "hidden.given = static_cast<const u8*>(visible.out), ", "", PACKED),
        ("machines/binary_products.hpp", "subset & (subset - 1)", "subset & (subset - 1) & 7", GIBBS),
        ("machines/binary_products.hpp", "of(subset & 8) +", "of(subset & 4) +",
         "int8x3 chains=3 visible=70 hidden=560 sweeps=2 float32"),
        ("machines/binary_products.hpp", "given < givens && unit", "given + 1 < givens && unit", GIBBS),
        ("machines/binary_products.hpp", "unit + i < units ?", "unit + i + 1 < units ?", GIBBS),
        ("machines/binary_products.hpp", "bits >> 14", "bits >> 13", GIBBS),
        ("rbm_gibbs.cu", "words.word[u]", "words.word[0]", GIBBS),
        ("rbm_gibbs.cu", "(units + 3) / 4", "units / 4", GIBBS),
        ("rbm_gibbs.cu", "start + k < given_units && tile_unit", "tile_unit", GIBBS),
        ("rbm_gibbs.cu", "        }\n        __syncthreads();", "        }\n", GIBBS),
        ("tensor_cores/tile.cuh", "part < PRODUCTS; ++part)\n#pragma unroll\n                for (int j",
         "part < PRODUCTS - 1; ++part)\n#pragma unroll\n                for (int j", INT8X3),
        ("tensor_cores/tile.cuh", "part * S::subs + sub", "sub", BF16X3),
        ("tensor_cores/tile.cuh", "copy_async_wait<S::stages - 2>", "copy_async_wait<S::stages - 1>", BF16),
        ("tensor_cores/tile.cuh", "__syncthreads();  // this", "// this", BF16),
        ("tensor_cores/tile.cuh", "a[tile][1][half] = q.z", "a[tile][1][half] = q.x", INT8X3),
        ("tensor_cores/tile.cuh", "first_unit = tile_unit + warp_unit", "first_unit = tile_unit", INT8X3),
        ("tensor_cores/tensor_cores.cuh", "bits >> (8 * product + 4)", "bits >> 8 * product", PACKED),
        ("tensor_cores/tile.cuh", "(PACKED ? 2 : 16) * quarter", "(PACKED ? 1 : 16) * quarter", PACKED),
        ("tensor_cores/clusters.cu", "cluster_sync<CLUSTER>();  // all hidden", "// all hidden", CLUSTER),
        ("tensor_cores/clusters.cu", "cluster_sync<CLUSTER>();  // all visible", "// all visible", CLUSTER),
        ("tensor_cores/clusters.cu", "++sweep, ++step", "++sweep", CLUSTER),
        ("tensor_cores/resident.cu", *NO_TURNS, BF16_RESIDENT),
        ("tensor_cores/resident.cu", "number = 0;", "number = 2;", PACKED),
        ("tensor_cores/resident.cu", "first_sweep + number / 2", "first_sweep", PACKED),
        ("tensor_cores/resident.cu", "first_chain + block_chain", "first_chain", PACKED),
        ("tensor_cores/resident.cu", "weights += K::products * part_bytes", "weights += part_bytes", PACKED),
        ("tensor_cores/resident.cu", "load_matrices<true>", "load_matrices<false>", BF16_RESIDENT),
        ("tensor_cores/resident.cu", "unit % SLAB / 8 + 2 * m", "2 * m", BF16X3_RESIDENT),
        ("tensor_cores/resident.cu", "unit % 4 / 2 * 8 + unit % 16 / 4 * 2",
         "unit % 4 / 2 * 2 + unit % 16 / 4 * 4", BF16_RESIDENT),
        ("tensor_cores/resident.cu", "S::unit(0, e) & 1", "e & 1", CLAMPED_RESIDENT),
        ("tensor_cores/tensor_cores.cuh", "group_step = S::group_step / 4", "group_step = 1", BF16_RESIDENT),
        ("tensor_cores/triton_tile.py", "bits << tl.arange(0, 32)", "bits << 31 - tl.arange(0, 32)", PACKED),
        ("tensor_cores/triton_tile.py", "first * 256 + second", "first * 128 + second", INT8X3),
        ("tensor_cores/triton_tile.py", "fma(u, exponential(logit, beta), u)", "fma(u, exponential(logit, beta), 0)",
         BF16),
        ("tensor_cores/triton_resident.py", "% 4 * 4 + place // 8 % 2 * 2", "% 4 * 2 + place // 8 % 2 * 8",
         BF16_RESIDENT),
        ("tensor_cores/triton_resident.py", "tl.trans(exact_dot_operand(w0))", "exact_dot_operand(w0)", BF16_RESIDENT),
        ("tensor_cores/triton_resident.py", "fate & 2 != 0", "fate & 1 != 0", CLAMPED_RESIDENT),
        ("tensor_cores/triton_resident.py", "number * rows", "0 * rows", PACKED),
        ("tensor_cores/triton_resident.py", "first_chain + own", "own", BF16_RESIDENT),
        ("tensor_cores/triton_resident.py", "step + half // 2", "step", PACKED),
        ("triton_kernels.py", "part + part_size + part_size", "part + part_size", INT8X3),
        ("triton_kernels.py", "part += part_size", "part += 0", BF16X3),
        ("common/philox.cuh", "round < 10", "round < 9", GIBBS),
        ("triton_kernels.py", "interleave4(w0, w1, w2, w3)", "interleave4(w0, w1, w2, w2)", GIBBS),
        ("triton_kernels.py", "k_mask = k < given_units", "k_mask = k < given_units - 1", GIBBS),
    ),
)  # fmt: skip
