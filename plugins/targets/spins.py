"""Targets of spins -1 and +1: the Ising model on a periodic square small enough to enumerate."""

from collections.abc import Callable

from boltzbench.harness import Dynamics, ExactLaw, Target, hookimpl
from boltzbench.plugins.exact.ising import CRITICAL_BETA, all_states
from boltzbench.plugins.exact.laws import Function, cached, enumerated
from boltzbench.plugins.exact.states import number_of
from torch import Tensor

BOLTZBENCH_API = 1

LENGTH, COUPLING = 4, 1.0
CRITICAL = 1 / CRITICAL_BETA


def ising_energy(x: Tensor) -> Tensor:
    """``-J sum s_i s_j`` over the bonds to the right and downwards, periodic; x (chains, L, L), float32 (chains,)."""
    s = x.float()
    return -COUPLING * (s * (s.roll(1, 1) + s.roll(1, 2))).sum((1, 2))


def ising_law(temperature: float, dynamics: Dynamics) -> ExactLaw | None:
    """The law over all 65,536 states. Cells: energy levels, magnetization, the first row, and the first column."""
    if dynamics.name != "exact":
        return None
    sites = LENGTH * LENGTH
    states = all_states(LENGTH, LENGTH)
    cells: dict[str, Function] = {
        "energy level": lambda x: ((ising_energy(x) / COUPLING).long() + 2 * sites) // 4,
        "magnetisation": lambda x: (x.long().sum((1, 2)) + sites) // 2,
        "first row": lambda x: number_of(x[:, 0] > 0),
        "first column": lambda x: number_of(x[:, :, 0] > 0),
    }
    means = {"energy": ising_energy, "absolute magnetisation": lambda x: x.float().sum((1, 2)).abs()}
    return enumerated(states, ising_energy(states).double(), temperature, cells, means)


def ising() -> Target:
    return Target(
        name="ising",
        summary="The Ising model on a periodic square of 4 x 4 spins, enumerated.",
        formula="E = -J sum over bonds s_i s_j, J = 1",
        source="Onsager, Phys. Rev. 65 (1944); enumeration",
        kind="ising",
        shape=(LENGTH, LENGTH),
        dtype="int8",
        parameters={"length": LENGTH, "coupling": COUPLING},
        energy=ising_energy,
        law=cached(ising_law),
        temperatures=(CRITICAL, 1.5, 4.0),
    )


@hookimpl
def register_targets(register: Callable[[Target], None]) -> None:
    register(ising())
