"""Parallel tempering: replicas at a ladder of temperatures that exchange them, and log Z by integrating the energy.

After each round of sweeps neighbours on the ladder are asked to exchange their temperatures, pairs (0, 1), (2, 3), ...
and (1, 2), (3, 4), ... in turn. Replicas stay where they are in memory; what is exchanged is their rungs.

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
