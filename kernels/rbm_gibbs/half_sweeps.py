"""The loop of block Gibbs, with a launch for each half sweep."""

from collections.abc import Callable

from torch import Tensor

from ..common.dispatch import note_written
from .checks import GibbsResult
from .request import LaunchRequest

Layer = Callable[..., LaunchRequest]
"""Completes the request for one layer: ``layer(given=..., out=..., step=...)``."""


def run_half_sweeps(
    half_sweep: Callable[[LaunchRequest], None],
    to_hidden: Layer,
    to_visible: Layer,
    current: Tensor,
    hidden: Tensor,
    visible: Tensor,
    steps: range,
) -> None:
    """Write the states after all ``steps`` to ``hidden`` and ``visible``, from the visible states ``current``."""
    for step in steps:
        half_sweep(to_hidden(given=current, out=hidden, step=step))
        # A new visible state depends on the hidden layer and, if clamped, on its old value: it may overwrite that.
        half_sweep(to_visible(given=hidden, out=visible, step=step, previous=current))
        current = visible


def note_results(result: GibbsResult) -> None:
    for written in result:
        if written is not None:
            note_written(written)
