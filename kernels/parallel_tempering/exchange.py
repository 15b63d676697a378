"""Replica exchange between neighbouring temperatures: the public function."""

from typing import NamedTuple

import torch
from torch import Tensor

from ..common.derivatives import require_no_transform
from ..common.dispatch import (
    backend_module,
    choose_backend,
    note_written,
    require_output,
    require_results,
    require_tensor,
    running_on,
)
from ..numbers import INT64_MAX, can_check, integer
from ..philox import check_counter
from .request import LaunchRequest


class SwapResult(NamedTuple):
    """``replica_at`` after the exchanges; ``accepted``: int32, 1 at the lower rung of each pair that exchanged."""

    replica_at: Tensor
    accepted: Tensor


def swap_replicas(
    replica_at: Tensor,
    energies: Tensor,
    betas: Tensor,
    *,
    seed: int,
    round_number: int,
    first_ladder: int = 0,
    out: SwapResult | None = None,
    backend: str = "auto",
) -> SwapResult:
    """Propose an exchange of replicas to every pair of rungs (k, k + 1) with ``k % 2 == round_number % 2``.

    The acceptance probability is ``min(1, exp((beta_k - beta_(k+1)) (E_k - E_(k+1))))``, with ``E_k`` the energy of the
    replica at rung k. Energies whose difference is NaN, such as two infinite ones, are not exchanged.

    Args:
        replica_at: int32 (ladders, rungs): the replica at each rung, numbered 0 to rungs - 1 in its ladder; not
            modified.
        energies: float64 (ladders, rungs): energy of each replica, in the order of the replicas.
        betas: float64 (rungs,): inverse temperature of each rung.
        seed: the key of the random stream, in [0, 2**64).
        round_number: the step in the stream, in [0, 2**32).
        first_ladder: number of the first ladder in the stream, so that splitting a batch changes no exchange.
        out: contiguous tensors to write to; they must not share memory with each other or the arguments.
        backend: ``auto``, ``torch``, ``triton``, ``cupy``, or on a CPU ``native``.

    Raises:
        TypeError: an argument is not a dense tensor of its dtype.
        ValueError: shapes do not match, a number is out of range, or ``backend`` is unknown or cannot run here.
        NotImplementedError: under a transform of ``torch.func``.

    Pair k of ladder l draws word ``i % 4`` of group ``i // 4``, with ``i = l rungs + k``. The values of ``replica_at``
    are checked on a CPU only: on a GPU, a number outside [0, rungs) is undefined behaviour.
    """
    require_no_transform("swap_replicas")
    require_tensor("replica_at", replica_at, (torch.int32,), None)
    if replica_at.ndim != 2:
        raise ValueError(f"replica_at must have shape (ladders, rungs), got {tuple(replica_at.shape)}")
    ladders, rungs = replica_at.shape
    require_tensor("energies", energies, (torch.float64,), replica_at.device)
    require_tensor("betas", betas, (torch.float64,), replica_at.device)
    if energies.shape != replica_at.shape:
        raise ValueError(f"energies must have shape {tuple(replica_at.shape)}, got {tuple(energies.shape)}")
    if betas.shape != (rungs,):
        raise ValueError(f"betas must have shape ({rungs},), got {tuple(betas.shape)}")
    if can_check(replica_at) and bool(((replica_at < 0) | (replica_at >= rungs)).any()):
        raise ValueError(f"replica_at must lie in [0, {rungs})")
    seed, round_number, _ = check_counter(seed, round_number, step_name="round_number")
    first_ladder = integer("first_ladder", first_ladder, 0, INT64_MAX // max(1, rungs) - ladders)
    chosen = choose_backend(backend, replica_at.device, __package__)
    result = SwapResult(*(torch.empty(replica_at.shape, dtype=torch.int32, device=replica_at.device) for _ in "12"))
    result = result if out is None else out
    require_results(result, SwapResult._fields)
    given = {"replica_at": replica_at, "energies": energies, "betas": betas}
    for name, tensor in zip(SwapResult._fields, result, strict=True):
        require_tensor(f"out.{name}", tensor, (torch.int32,), replica_at.device)
        require_output(f"out.{name}", tensor, replica_at.shape, given)
        given[f"out.{name}"] = tensor
    if replica_at.numel():
        swap = LaunchRequest(
            replica_at.contiguous(),
            energies.contiguous(),
            betas.contiguous(),
            *result,
            seed,
            round_number,
            first_ladder,
        )
        with running_on(replica_at.device):
            backend_module(chosen, __package__).swap(swap)
    for tensor in result:
        note_written(tensor)
    return result
