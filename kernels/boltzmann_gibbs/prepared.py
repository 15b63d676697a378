"""A Boltzmann machine made ready for sampling: its units coloured, and for each the units that it is coupled to.

Units of one colour are not coupled to each other, so that they can be drawn at once. The colouring is Welsh's and
Powell's: units by falling number of neighbours, each in the first colour that none of its neighbours has. That is two
colours for a lattice of even sides, and n for n units that are all coupled.

Source: Welsh and Powell, Computer Journal 10 (1967).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..common.dispatch import require_tensor
from ..machines.spins_and_units import require_bonds, units_of

DTYPES = (torch.float32, torch.float64)
LINKS_OF_A_STEP = 4
"""The list of a unit is filled up to a multiple of so many, with links of weight 0."""
MOST_LINKS = 1 << 30


@dataclass(frozen=True, eq=False)
class PreparedMachine:
    """What `prepare_units` or `prepare_spins` made of a machine of ``n`` units, for `boltzmann_gibbs`.

    Units are numbered here in the order in which a sweep draws them: colour by colour, in a colour as the caller
    numbers them. Weights and biases are those of 0/1 units, rounded to float32.

    - ``spins``: whether states are spins -1 and +1 rather than units 0 and 1.
    - ``order``: int64 (n,), the caller's number of each unit; ``rank``, its inverse.
    - ``colours``: int32 (colours + 1,), where each begins in the order.
    - ``weights``: float32 (n, n rounded up to a multiple of 4), 0 beyond the last; ``biases``: float32 (n,).
    - ``first``: int32 (n + 1,), half of where the links of each unit begin; ``links``: int32 (links, 2), 4 times the
      unit that it is coupled to (the place of a word, in bytes) and the bits of the weight.
    - ``sources``: the caller's tensors, and their version counters then.
    """

    spins: bool
    order: Tensor
    rank: Tensor
    colours: Tensor
    weights: Tensor
    biases: Tensor
    first: Tensor
    links: Tensor
    sizes: tuple[int, ...]
    sources: tuple[tuple[Tensor, int | None], ...]

    @property
    def units(self) -> int:
        """How many there are."""
        return len(self.biases)

    @property
    def is_current(self) -> bool:
        """False once a source was written to in place. A tensor made in inference mode counts no versions."""
        return all(version is None or version == source._version for source, version in self.sources)


def prepare_units(weights: Tensor, biases: Tensor) -> PreparedMachine:
    """The machine of 0/1 units ``E(x) = -1/2 x.W.x - b.x``, for any number of calls of `boltzmann_gibbs`.

    Args:
        weights: ``W``, (n, n), float32 or float64, symmetric, 0 on the diagonal and where there is no bond, finite.
        biases: ``b``, (n,), of the same dtype.

    The result keeps references to both and is out of date once they are written to; `boltzmann_gibbs` then refuses it.

    Raises:
        TypeError: an argument is no dense tensor of a supported dtype.
        ValueError: it is of a wrong shape, not finite, not symmetric, or couples a unit with itself.
    """
    _require("weights", weights, "biases", biases)
    return _prepare(weights, biases, False, (weights, biases))


def prepare_spins(couplings: Tensor, fields: Tensor) -> PreparedMachine:
    """The machine of spins ``E(s) = -1/2 s.J.s - h.s``, as that of the units ``x = (s + 1) / 2``.

    Arguments and errors are as those of `prepare_units`; see `boltzbench.kernels.ising.units_of` for the map, which is
    computed in float64.
    """
    _require("couplings", couplings, "fields", fields)
    machine = units_of(couplings.double(), fields.double())
    return _prepare(machine.weights, machine.biases, True, (couplings, fields))


def _require(name: str, matrix: Tensor, vector_name: str, vector: Tensor) -> None:
    require_tensor(name, matrix, DTYPES, None)
    require_tensor(vector_name, vector, (matrix.dtype,), matrix.device)
    require_bonds(name, matrix, vector_name, vector)


def colour_units(bonds: Tensor) -> Tensor:
    """A colour for each unit, int64 (n,) on the CPU, such that no two of ``bonds``, bool (n, n), share one."""
    bonds = bonds.cpu()
    colour = torch.full((len(bonds),), -1)
    taken = torch.zeros(len(bonds) + 1, dtype=torch.bool)
    for unit in torch.argsort(bonds.sum(1), descending=True, stable=True).tolist():
        around = colour[bonds[unit]]
        taken[around] = True  # -1, of those that have none yet, is the last place, which is never looked at
        colour[unit] = int((~taken).nonzero()[0])
        taken[around] = False
    return colour


def _prepare(weights: Tensor, biases: Tensor, spins: bool, sources: tuple[Tensor, ...]) -> PreparedMachine:
    device = weights.device
    weights, biases = weights.detach().to(torch.float32), biases.detach().to(torch.float32)
    if not bool(torch.isfinite(weights).all() & torch.isfinite(biases).all()):
        raise ValueError("weights and biases must lie within the range of float32")
    colour = colour_units(weights != 0)
    order = torch.argsort(colour, stable=True).to(device)
    sizes = torch.bincount(colour)
    colours = torch.cat((torch.zeros(1, dtype=torch.int64), sizes.cumsum(0)))
    weights = weights[order][:, order]
    first, links = _links(weights)
    padded = weights.new_zeros((len(weights), -(-len(weights) // 4) * 4))
    padded[:, : len(weights)] = weights
    return PreparedMachine(
        spins=spins,
        order=order,
        rank=torch.argsort(order),
        colours=colours.to(device, torch.int32),
        weights=padded,
        biases=biases[order],
        first=first,
        links=links,
        sizes=tuple(sizes.tolist()),
        sources=tuple((each, None if each.is_inference() else each._version) for each in sources),
    )


def _links(weights: Tensor) -> tuple[Tensor, Tensor]:
    """``first`` and ``links`` of `PreparedMachine`."""
    unit, other = weights.nonzero().unbind(1)
    degree = torch.bincount(unit, minlength=len(weights))
    room = -(-degree // LINKS_OF_A_STEP) * LINKS_OF_A_STEP
    first = torch.cat((room.new_zeros(1), room.cumsum(0)))
    total = int(first[-1])
    if total >= MOST_LINKS:
        raise ValueError(f"weights must have less than 2**30 couplings, counted from both ends, got {total}")
    place = torch.arange(len(unit), device=unit.device) + (first[:-1] - (degree.cumsum(0) - degree))[unit]
    links = torch.zeros((total, 2), dtype=torch.int32, device=weights.device)
    links[place, 0] = 4 * other.to(torch.int32)
    links[place, 1] = weights[unit, other].view(torch.int32)
    return (first // 2).to(torch.int32), links
