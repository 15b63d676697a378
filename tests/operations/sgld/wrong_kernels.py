"""Wrong kernels of `sgld`: see `support/wrong_kernels.py`."""

from collections.abc import Callable
from unittest import mock

import torch
from boltzbench.harness import Inputs, Launch, Status, Tensors
from boltzbench.kernels.philox import Stream, random_words
from boltzbench.kernels.sgld import reference as sgld_reference
from support.wrong_kernels import Prepare, WrongKernel, mutants, shipped, spoiled
from torch import Tensor

OPERATION = "sgld"

WELL = "quadratic well"
SGLD = "tensors=1 elements=5003 float32"
STOCHASTIC = "stochastic tensors=1 elements=5003 bfloat16"


def shares_noise_between_neighbours(inputs: Inputs, outputs: Tensors) -> Launch:
    def launch() -> Tensors:
        x, g = inputs["parameter_0"], inputs["gradient_0"]
        half = {"parameter_0": torch.zeros(len(x) // 2), "gradient_0": torch.zeros(len(x) // 2)}
        moved = {"parameter_0": torch.zeros(len(x) // 2)}
        shipped(OPERATION)({**inputs, **half}, moved)()
        noise = moved["parameter_0"].repeat_interleave(2)
        outputs["parameter_0"].copy_(x - 0.5 * inputs["step_size"] * g + noise)
        return outputs

    return launch


def _with_rounding_bits(bits: Callable[..., Tensor]) -> Prepare:
    def prepare(inputs: Inputs, outputs: Tensors) -> Launch:
        def launch() -> Tensors:
            with mock.patch.object(sgld_reference, "rounding_bits", bits):
                return shipped(OPERATION)(inputs, outputs)()

        return launch

    return prepare


rounds_half_of_all_up = _with_rounding_bits(
    lambda elements, seed, step, number, device: torch.arange(elements, device=device) % 2 * 0xFFFF
)


rounds_by_the_noise = _with_rounding_bits(
    lambda elements, seed, step, number, device: (
        random_words(torch.arange((elements + 3) // 4), seed, step, Stream.NOISE, number).flatten()[:elements] & 0xFFFF
    )
)


WRONG_KERNELS = (
    WrongKernel("shares_noise_between_neighbours", OPERATION, WELL, Status.WRONG_LAW, shares_noise_between_neighbours),
    WrongKernel("rounds_half_of_all_up", OPERATION, "unbiased rounding", Status.WRONG_LAW, rounds_half_of_all_up),
    WrongKernel("rounds_by_the_bits_of_the_noise", OPERATION, STOCHASTIC, Status.WRONG_VALUES, rounds_by_the_noise),
    *spoiled(
        OPERATION,
        ("has_noise_of_variance_two", WELL, Status.WRONG_LAW,
         lambda inputs: {"temperature": 2 * inputs["temperature"]}),
        ("ignores_the_temperature", "hot tensors=1 elements=4097 float32", Status.WRONG_VALUES,
         lambda inputs: {"temperature": 1.0}),
        ("takes_a_whole_step_down", SGLD, Status.WRONG_VALUES,
         lambda inputs: {"gradient_0": 2 * inputs["gradient_0"]}),
        ("reuses_its_noise", WELL, Status.WRONG_LAW, lambda inputs: {"step": 0}),
        ("forgets_the_posterior's_noise", "digits posterior", Status.WRONG_LAW, lambda inputs: {"temperature": 0.0}),
        ("rounds_to_nearest", "unbiased rounding", Status.WRONG_LAW, lambda inputs: {"rounding": "nearest"}),
        ("rounds_to_nearest", STOCHASTIC, Status.WRONG_VALUES, lambda inputs: {"rounding": "nearest"}),
    ),
    *mutants(
        OPERATION,
        ("sgld.cu", "{x - n.drift * g, 0, 1}", "{x - 2 * n.drift * g, 0, 1}", SGLD),
        ("sgld.cu", "(group + part)", "group", "tensors=1 elements=5003 bfloat16"),
        ("sgld.cu", "(u32)tensor.number", "0", "mixed tensors=9 elements=1031 float32"),
        ("sgld.cu", "draws.group += STRIDE / 4;", "", SGLD),
        ("common/philox.cuh", "word1 ^ doubled", "word1", SGLD),
        ("common/philox.cuh", "f > 0.75f ? near", "f > 0.875f ? 1.442695f * rest", SGLD),
        ("sgld.cu", "random.word[j], true", "random.word[j], false", STOCHASTIC),
        ("sgld.cu", "group >> 1 | group_high << 31", "group", STOCHASTIC),
        ("triton_kernels.py", "NOISE + number * 256", "NOISE + step * 0", "mixed tensors=9 elements=1031 float32"),
        ("triton_kernels.py", "even + 1, high", "even, high", "tensors=1 elements=5003 bfloat16"),
        ("triton_kernels.py", "w0, w0, w1, w1", "w0, w1, w0, w1", STOCHASTIC),
        ("sgld.cpp", "position - drift * gradient", "position + drift * gradient", SGLD),
        ("sgld.cpp", "normals(words[half], scale, z[2", "normals(words[0], scale, z[2", SGLD),
        ("native/random.hpp", "first_group + i * LANES<u64>", "first_group", SGLD),
        ("sgld.cpp", "update_chunk<KIND, NOISY, T>(last_x, last_g, last_state, i,",
         "update_chunk<KIND, NOISY, T>(last_x, last_g, last_state, 0,", SGLD),
        ("native/random.hpp", "(angles ^ doubled) & 0x80000000u", "angles & 0x80000000u", SGLD),
        ("sgld.cpp", "all<u64>(first / 8)", "all<u64>(first / 4)", STOCHASTIC),
    ),
)  # fmt: skip
