"""The partition function by enumeration: one launch sums over all ``2**n`` states and never stores their energies.

`rbm_log_partition` enumerates the smaller layer of a restricted Boltzmann machine and sums the other layer out.
`log_partition` enumerates all units of a Boltzmann machine with any couplings. For an Ising model map spins to units
by `boltzbench.kernels.ising.units_of`.
"""

import math

import torch
from torch import Tensor

from ..common.dispatch import backend_module, choose_backend, require_tensor, running_on
from ..machines.rbm_checks import require_bias, require_values
from ..machines.spins_and_units import require_bonds

__all__ = ["MOST_UNITS", "log_partition", "rbm_log_partition"]

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
MOST_UNITS = 40
"""Units that are enumerated without ``force``, at most."""
FAST = 1e13
"""Terms per second of a fast GPU, approximately: for the time in the error message."""


def rbm_log_partition(
    weights: Tensor,
    visible_bias: Tensor,
    hidden_bias: Tensor,
    beta: float = 1.0,
    *,
    force: bool = False,
    check_values: bool = True,
    backend: str = "auto",
) -> Tensor:
    """``log Z = log sum_x exp(beta b.x) prod_j (1 + exp(beta (c_j + sum_i x_i W_ij)))`` of a restricted machine.

    ``x`` runs through all states of the smaller layer, which has biases ``b``, and ``j`` through the units of the other
    layer. The energy is ``E(v, h) = -b.v - c.h - v.W.h`` with units 0 and 1, and ``Z = sum exp(-beta E)``.

    Args:
        weights: (visible units, hidden units), float64, float32, float16 or bfloat16; any strides.
        visible_bias, hidden_bias: one value for each unit, ``weights``'s dtype.
        beta: the inverse temperature, finite and not negative.
        force: enumerate more than 40 units.
        check_values: check that parameters are finite and not too large. On a GPU this waits for the device. Without
            the check the result is NaN for such parameters.
        backend: ``auto``, ``torch``, ``triton`` or ``cupy``.

    Returns a float64 tensor of no dimensions. ``torch`` computes in float64. ``triton`` and ``cupy`` multiply factors
    in float32 and add the products in float64: their error is at most ``(4 m + 64) 2**-24`` for ``m`` units in the
    larger layer.

    Raises:
        TypeError: an argument is not a dense tensor of a supported dtype.
        ValueError: shapes do not match, a number is out of range, the smaller layer has more than 40 units without
            ``force``, ``backend`` is unknown or cannot run here, or parameters are too large for ``triton`` and
            ``cupy``. They are too large if, for half of the smaller layer's units, the magnitudes of the weights to one
            unit, or of the biases, add up to more than 80 / beta.
    """
    require_tensor("weights", weights, DTYPES, None)
    if weights.ndim != 2:
        raise ValueError(f"weights must have shape (visible units, hidden units), got {tuple(weights.shape)}")
    require_bias("visible_bias", visible_bias, weights.shape[0], weights)
    require_bias("hidden_bias", hidden_bias, weights.shape[1], weights)
    _require_beta(beta)
    _require_few(min(weights.shape), max(weights.shape), force)
    chosen = choose_backend(backend, weights.device)
    w, b, c = (beta * part.double() for part in (weights, visible_bias, hidden_bias))
    if w.shape[0] > w.shape[1]:
        w, b, c = w.t(), c, b
    if check_values:
        require_values({}, {"weights": weights, "visible_bias": visible_bias, "hidden_bias": hidden_bias}, {})
    with running_on(weights.device):
        found: Tensor = backend_module(chosen, __name__).product_sum(w.contiguous(), b, c)
    if check_values:
        _require_number(found)
    return found


def log_partition(
    weights: Tensor,
    biases: Tensor,
    beta: float = 1.0,
    *,
    force: bool = False,
    check_values: bool = True,
    backend: str = "auto",
) -> Tensor:
    """``log Z = log sum_x exp(beta (1/2 x.W.x + b.x))`` over all states of ``n`` units 0 and 1 with any couplings.

    For a restricted machine `rbm_log_partition` takes fewer operations. For spins subtract ``beta * constant``, with
    the constant of `boltzbench.kernels.ising.units_of`.

    Args:
        weights: (n, n), symmetric, 0 on the diagonal; float64, float32, float16 or bfloat16, any strides.
        biases: (n,), ``weights``'s dtype.
        beta, force, backend: as for `rbm_log_partition`.
        check_values: check that ``weights`` is symmetric and parameters are finite and not too large. On a GPU this
            waits for the device.

    Returns a float64 tensor of no dimensions, computed in float64 throughout.

    Raises:
        TypeError: an argument is not a dense tensor of a supported dtype.
        ValueError: as for `rbm_log_partition`, or ``weights`` is not symmetric with 0 on the diagonal. Parameters are
            too large for ``triton`` and ``cupy`` if the energies of the first 16 units, in the field of the others,
            can spread over more than 600 / beta.
    """
    require_tensor("weights", weights, DTYPES, None)
    require_tensor("biases", biases, (weights.dtype,), weights.device)
    require_bonds("weights", weights, "biases", biases, check_values=check_values)
    _require_beta(beta)
    _require_few(len(weights), 1, force)
    chosen = choose_backend(backend, weights.device)
    w, b = beta * weights.double(), beta * biases.double()
    if check_values:
        require_values({}, {"weights": weights, "biases": biases}, {})
    with running_on(weights.device):
        found: Tensor = backend_module(chosen, __name__).machine_sum(w.contiguous(), b.contiguous())
    if check_values:
        _require_number(found)
    return found


def _require_beta(beta: float) -> None:
    if not (math.isfinite(beta) and beta >= 0):
        raise ValueError(f"beta must be finite and not negative, got {beta}")


def _require_few(units: int, factors: int, force: bool) -> None:
    if units > MOST_UNITS and not force:
        terms = 2.0**units * max(factors, 1)
        raise ValueError(
            f"weights: enumerating {units} units takes 2**{units} states, {terms:.2g} terms, {terms / FAST:.2g} s at "
            f"{FAST:.0e} terms a second; pass force=True, or estimate log Z by sampling (boltzbench.kernels.ais)"
        )


def _require_number(found: Tensor) -> None:
    if bool(found.isnan()):
        raise ValueError(
            "weights and biases, times beta, are too large for the exponents of this backend: use backend='torch'"
        )
