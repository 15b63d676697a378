"""Shared by the operations of block Gibbs: cases by the sizes of two layers, and the outputs."""

from typing import Unpack

import torch
from boltzbench.harness import Case, CaseOptions, Inputs, Tensors


def layers_case(
    operation: str,
    chains: int,
    visible: int,
    hidden: int,
    sweeps: int = 1,
    dtype: str = "float32",
    scenario: str = "",
    **more: Unpack[CaseOptions],
) -> Case:
    if sweeps < 1:
        raise ValueError("sweeps must be at least 1")
    sizes = {"chains": chains, "visible": visible, "hidden": hidden, "sweeps": sweeps}
    return Case(operation, sizes, dtype, scenario, **more)


def sizes_of(case: Case) -> tuple[int, int, int, int]:
    """Chains, visible units, hidden units and sweeps."""
    return case.sizes["chains"], case.sizes["visible"], case.sizes["hidden"], case.sizes["sweeps"]


def make_outputs(inputs: Inputs) -> Tensors:
    """The tensors of a `GibbsResult`."""
    states, hidden = inputs["states"], inputs["weights"].shape[1]
    return {
        "visible": torch.empty_like(states),
        "hidden": states.new_empty((len(states), hidden), dtype=torch.uint8),
        "hidden_probability": states.new_empty((len(states), hidden), dtype=torch.float32),
    }
