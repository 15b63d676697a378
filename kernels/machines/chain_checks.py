"""The checks that the Gibbs samplers share: chains of units at inverse temperatures, some units clamped."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ..common.derivatives import values_of
from ..common.dispatch import require_tensor
from ..numbers import INT64_MAX, integer, real

FLOAT32_MAX = torch.finfo(torch.float32).max


def require_chains(first_chain: int, chains: int, units: int) -> int:
    """``first_chain``. Raises ValueError unless the chains' groups of four units fit the counter of the stream."""
    return integer("first_chain", first_chain, 0, INT64_MAX // (units // 4 + 1) - chains)


def require_clamped(clamped: Tensor | None, shape: torch.Size, device: torch.device) -> Tensor | None:
    """``clamped``, bool (units,) or (chains, units), expanded to ``shape``, which is (chains, units)."""
    if clamped is None:
        return None
    require_tensor("clamped", clamped, (torch.bool,), device)
    if clamped.shape not in (shape, shape[1:]):
        raise ValueError(f"clamped must have shape {tuple(shape[1:])} or {tuple(shape)}, got {tuple(clamped.shape)}")
    return clamped.expand(shape)


def require_beta(beta: float | Tensor, chains: int, device: torch.device, *, positive: bool = False) -> float | Tensor:
    """A float, or float64 (chains,), contiguous. Every kernel then reads the same bits."""
    if isinstance(beta, Tensor) and beta.dim():
        require_tensor("beta", beta, (torch.float32, torch.float64), device)
        if beta.shape != (chains,):
            raise ValueError(f"beta must be a number or have shape ({chains},), got {tuple(beta.shape)}")
        return beta.to(torch.float64).contiguous()
    return require_common_beta(beta, positive=positive)


def require_common_beta(beta: object, *, positive: bool = False) -> float:
    """One inverse temperature for all chains, finite also in float32, in which kernels multiply fields by it."""
    return real("beta", real("beta", beta, least=0, positive=positive), least=0, most=FLOAT32_MAX)


def beta_faults(beta: float | Tensor, *, positive: bool = False) -> dict[str, Tensor]:
    """For `require_no_fault`: the values of a tensor ``beta``."""
    if not isinstance(beta, Tensor):
        return {}
    in_range = beta > 0 if positive else beta >= 0
    return {
        f"beta must be finite and {_range(positive)}": ~(torch.isfinite(beta) & in_range).all(),
        f"beta must be at most {FLOAT32_MAX:g}, the largest float32 number": (beta > FLOAT32_MAX).any(),
    }


def _range(positive: bool) -> str:
    return "positive" if positive else "not negative"


def require_no_fault(faults: Mapping[str, Tensor]) -> None:
    """Raise ValueError with the first message for which the value, a bool on the device, is true.

    All values come in one transfer, because each transfer from a GPU waits for it.
    """
    values = list(faults.values())
    if torch._C._are_functorch_transforms_active():  # where vmap is, each fault has a value for each element of a batch
        values = [values_of(fault).any() for fault in values]
    for message, fault in zip(faults, torch.stack(values).tolist(), strict=True):
        if fault:
            raise ValueError(message)
