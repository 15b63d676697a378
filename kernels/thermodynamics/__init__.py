"""Thermodynamics from one read of the energies: log Z, mean and variance of the energy."""

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
from ..numbers import require_no_gradient
from ..rows.checks import DTYPES, accumulation_dtype, normal_dim, reduced_shape, require_finite_beta
from . import reference

__all__ = ["Thermodynamics", "reference", "thermodynamics"]


class Thermodynamics(NamedTuple):
    """Thermodynamic quantities of each row, in the precision of accumulation. ``k_B = 1, T = 1 / beta``."""

    log_z: Tensor
    energy: Tensor
    """``U = <E>``."""
    variance: Tensor
    """``<E**2> - <E>**2``."""
    beta: float

    @property
    def free_energy(self) -> Tensor:
        """``F = -T log Z``; not defined at beta = 0."""
        return -self.log_z / self.beta

    @property
    def entropy(self) -> Tensor:
        """``S = (U - F) / T``. Rounding errors of ``log_z`` and ``beta * energy`` remain where the two cancel."""
        return self.log_z + self.beta * self.energy

    @property
    def heat_capacity(self) -> Tensor:
        """``C = Var(E) / T**2``."""
        return self.beta**2 * self.variance


def thermodynamics(
    x: Tensor,
    dim: int = -1,
    beta: float = 1.0,
    *,
    out: tuple[Tensor, Tensor, Tensor] | None = None,
    backend: str = "auto",
) -> Thermodynamics:
    """``log Z``, mean and variance of the energies ``E = -x`` under ``p_i = exp(beta x_i) / Z``, in one read.

    ``log Z = log sum_i exp(beta x_i)``, ``U = sum_i p_i E_i``, ``Var = sum_i p_i (E_i - U)**2`` over one dimension.

    Args:
        x: minus the energies, any strided tensor of float64, float32, float16 or bfloat16. There is no gradient.
        dim: the dimension to reduce; negative counts from the end.
        beta: the inverse temperature, with the same limit as for `logsumexp`.
        out: contiguous tensors for ``log_z``, ``energy`` and ``variance``, of the reduced shape, in float64 for a
            float64 ``x``, else in float32. They must not share memory with ``x``.
        backend: ``auto``, ``torch``, ``triton``, ``cupy``, or on a CPU ``native``.

    Returns:
        `Thermodynamics`. A state with ``beta x = -inf`` has weight 0. ``log_z`` follows `logsumexp`. Where it is not
        finite (no states, ``beta x = inf``, NaN), energy and variance are NaN. For a single state, and for states of
        equal energy, the variance is exactly 0.

    Raises:
        TypeError, IndexError, ValueError: as `logsumexp`; ValueError also where ``x`` or ``out`` requires a gradient or
            has a tangent.
        NotImplementedError: under a transform of ``torch.func``.

    Accuracy: let u be the unit roundoff of the accumulation, ``d_i <= 0`` the distance of ``beta x_i / |beta|`` from
    its maximum in the row, and ``r = 32 + 4 ln n`` the number of consecutive roundings in a sum (partial sums round
    independently). The exponent of a weight is a difference and a product, so the relative error of a weight is
    ``w_i = u (4 |beta d_i| + r)``. Then

        |error of U|   <= sum_i p_i w_i |E_i - U| + u (r |<d>| + |U|)
        |error of Var| <= sum_i p_i w_i ((E_i - U)**2 + Var) + 2 u sqrt(Var) (r |<d>| + sqrt(<d**2>)) + (u r <d>)**2

    The mean lies at a distance ``<d>`` from the row's maximum; for ``beta = 0`` this may be ``sqrt(n)`` standard
    deviations. The error of ``<d**2> - <d>**2`` would grow with the square of this distance. Here it grows with the
    first power, because each chunk of elements is centred on its own mean before it is squared (T. Chan, G. Golub,
    R. LeVeque, Am. Stat. 37 (1983) 242; with weights: E. Schubert, M. Gertz, SSDBM 2018).
    """
    require_tensor("x", x, DTYPES, None)
    dim = normal_dim(dim, x.dim())
    beta = require_finite_beta(beta, x.dtype)
    require_no_transform("thermodynamics")
    require_no_gradient("x", x)
    chosen = choose_backend(backend, x.device, __name__)
    shape, dtype = reduced_shape(x, dim), accumulation_dtype(x.dtype)
    if out is None:
        out = (x.new_empty(shape, dtype=dtype), x.new_empty(shape, dtype=dtype), x.new_empty(shape, dtype=dtype))
    require_results(out, Thermodynamics._fields[:3])
    others = {"x": x}
    for name, tensor in zip(Thermodynamics._fields, out, strict=False):
        require_tensor(f"out {name}", tensor, (dtype,), x.device)
        require_no_gradient(f"out {name}", tensor)
        require_output(f"out {name}", tensor, shape, others)
        others[f"out {name}"] = tensor
    if x.numel():
        with running_on(x.device):
            backend_module(chosen, __name__).forward(x, dim, beta, *out)
    else:
        for tensor, value in zip(out, (-torch.inf, torch.nan, torch.nan), strict=True):
            tensor.fill_(value)
    for tensor in out:
        note_written(tensor)
    return Thermodynamics(*out, beta)
