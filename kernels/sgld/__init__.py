"""Stochastic gradient Langevin dynamics: the update of a whole model in one launch, and a torch optimizer.

``x <- x - (eps / 2) g + sqrt(eps T) xi`` with step size ``eps``, gradient ``g`` of the energy (the negative log
posterior), temperature ``T`` and independent standard normal ``xi``, which the kernel draws.

Source: Welling and Teh, "Bayesian learning via stochastic gradient Langevin dynamics", ICML 2011, with temperature.
"""

from .optimizer import SGLD
from .reference import noise, rounded_stochastically, rounding_bits, updated
from .request import Numbers, computing_dtype
from .update import psgld_update, sghmc_update, sgld_update

__all__ = [
    "SGLD",
    "Numbers",
    "computing_dtype",
    "noise",
    "psgld_update",
    "rounded_stochastically",
    "rounding_bits",
    "sghmc_update",
    "sgld_update",
    "updated",
]
