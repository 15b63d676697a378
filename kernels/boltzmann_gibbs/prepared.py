"""A Boltzmann machine prepared for sampling: a colouring of its units, and a list of neighbours for each.

Units of one colour are not coupled to each other, so a kernel can draw them all at once. The colouring is that of Welsh
and Powell: each unit, in order of falling degree, takes the first colour that no neighbour has. A lattice of even sides
gets two colours, and n units that are all coupled get n.

Source: Welsh and Powell, Computer Journal 10 (1967).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..common.derivatives import require_no_transform
from ..common.dispatch import require_tensor
from ..machines.spins_and_units import require_bonds, units_of

DTYPES = (torch.float32, torch.float64)
LINKS_OF_A_STEP = 4
"""Links of weight 0 fill the list of each unit up to a multiple of so many."""
MOST_LINKS = 1 << 30


@dataclass(frozen=True, eq=False)
class PreparedMachine:
    """A machine of ``n`` units for `boltzmann_gibbs`, from `prepare_units` or `prepare_spins`.

    Units have the order in which a sweep draws them: colour by colour, and by the caller's numbers within a colour.
    Weights and biases are those of 0/1 units, rounded to float32.

    - ``spins``: whether states are spins -1 and +1 rather than units 0 and 1.
    - ``order``: int64 (n,), the caller's number of each unit; ``rank``: the inverse permutation.
    - ``colours``: int32 (colours + 1,), the first unit of each colour; ``sizes``: how many units each colour has.
    - ``weights``: float32 (n, n rounded up to a multiple of 4), 0 beyond the last unit; ``biases``: float32 (n,).
    - ``first``: int32 (n + 1,), half of the number of each unit's first link.
    - ``longest``: the most links of a unit.
    - ``links``: int32 (links, 2), 4 times the neighbour (the byte offset of its word), and the bits of the weight.
    - ``sources``: the caller's tensors, with their version counters at the time.
    """

    spins: bool
    order: Tensor
    rank: Tensor
    colours: Tensor
    weights: Tensor
    biases: Tensor
    first: Tensor
    links: Tensor
    longest: int
    sizes: tuple[int, ...]
    sources: tuple[tuple[Tensor, int | None], ...]

    @property
    def units(self) -> int:
        """The number of units."""
        return len(self.biases)

    @property
    def is_current(self) -> bool:
        """False after a source was written to in place. Tensors made in inference mode count no versions."""
        return all(version is None or version == source._version for source, version in self.sources)


def prepare_units(weights: Tensor, biases: Tensor) -> PreparedMachine:
    """Prepare the machine of 0/1 units ``E(x) = -1/2 x.W.x - b.x`` for any number of calls of `boltzmann_gibbs`.

    Args:
        weights: ``W``, (n, n), float32 or float64, finite, symmetric, 0 on the diagonal and where there is no bond.
        biases: ``b``, (n,), of the same dtype.

    The result keeps references to both. After a write to either it is out of date, and `boltzmann_gibbs` raises.

    Raises:
        TypeError: an argument is not a dense tensor of a supported dtype.
        ValueError: an argument has a wrong shape or is not finite, or ``weights`` is not symmetric or couples a unit
            with itself.
    """
    _require("weights", weights, "biases", biases)
    return _prepare(weights, biases, False, (weights, biases))


def prepare_spins(couplings: Tensor, fields: Tensor) -> PreparedMachine:
    """Prepare the machine of spins ``E(s) = -1/2 s.J.s - h.s``, as that of the units ``x = (s + 1) / 2``.

    Arguments and errors are those of `prepare_units`. `boltzbench.kernels.ising.units_of` computes the map, in float64.
    """
    _require("couplings", couplings, "fields", fields)
    machine = units_of(couplings.double(), fields.double())
    return _prepare(machine.weights, machine.biases, True, (couplings, fields))


def _require(name: str, matrix: Tensor, vector_name: str, vector: Tensor) -> None:
    require_no_transform("preparing a machine")
    require_tensor(name, matrix, DTYPES, None)
    require_tensor(vector_name, vector, (matrix.dtype,), matrix.device)
    require_bonds(name, matrix, vector_name, vector)


def colour_units(bonds: Tensor) -> Tensor:
    """A colour for each unit, int64 (n,) on the CPU; units with a bond, bool (n, n), have different ones."""
    bonds = bonds.cpu()
    colour = torch.full((len(bonds),), -1, device="cpu")
    taken = bonds.new_zeros(len(bonds) + 1)
    for unit in torch.argsort(bonds.sum(1), descending=True, stable=True).tolist():
        around = colour[bonds[unit]]
        taken[around] = True  # neighbours without a colour have -1, the last element, which no unit can take
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
    colours = torch.cat((sizes.new_zeros(1), sizes.cumsum(0)))
    weights = weights[order][:, order]
    first, links, longest = _links(weights)
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
        longest=longest,
        sizes=tuple(sizes.tolist()),
        sources=tuple((each, None if each.is_inference() else each._version) for each in sources),
    )


def _links(weights: Tensor) -> tuple[Tensor, Tensor, int]:
    """``first``, ``links`` and ``longest`` of `PreparedMachine`."""
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
    return (first // 2).to(torch.int32), links, max(room.tolist(), default=0)
