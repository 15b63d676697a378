"""The arguments that the two kernels of many sweeps have in common."""

import numpy as np

from ...cuda_module import Argument
from ..request import LaunchRequest, row_bytes


def sweeps_arguments(to_hidden: LaunchRequest, to_visible: LaunchRequest, sweeps: int) -> list[Argument]:
    forward, back = to_hidden.operand, to_visible.operand
    return [
        to_hidden.given, forward.parts, back.parts, forward.scale, back.scale, to_hidden.bias, to_visible.bias,
        to_visible.out, to_hidden.out, to_visible.clamped, to_hidden.betas, len(to_hidden.out), to_visible.units,
        to_hidden.units, *forward.parts.shape[1:], *back.parts.shape[1:], row_bytes(to_hidden.given),
        row_bytes(to_visible.out), row_bytes(to_hidden.out), *to_visible.clamped_strides, to_hidden.common_beta,
        np.uint64(to_hidden.seed), np.uint32(to_hidden.step), to_hidden.first_step, sweeps, to_hidden.first_chain,
    ]  # fmt: skip
