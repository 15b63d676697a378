"""Parallel tempering: replica exchange between the temperatures of a ladder, and log Z by thermodynamic integration.

After each round of sweeps, replicas at neighbouring temperatures propose an exchange: pairs (0, 1), (2, 3), ... and
(1, 2), (3, 4), ... in turn. Replicas keep their places in memory; an exchange swaps their rungs on the ladder.

Sources: Swendsen and Wang, Phys. Rev. Lett. 57 (1986); Geyer 1991; Okabe et al., Chem. Phys. Lett. 335 (2001) and Syed
et al., J. R. Stat. Soc. B 84 (2022), for the deterministic alternation.
"""

from .exchange import SwapResult, swap_replicas
from .systems import IsingReplicas, RbmReplicas, Replicas
from .tempering import Tempering, integrate, parallel_tempering

__all__ = [
    "IsingReplicas",
    "RbmReplicas",
    "Replicas",
    "SwapResult",
    "Tempering",
    "integrate",
    "parallel_tempering",
    "swap_replicas",
]
