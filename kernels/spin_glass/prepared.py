"""A glass and a schedule as tables on the device, made once for any number of calls of `anneal_spins`."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..common.derivatives import require_no_transform
from ..common.dispatch import require_tensor
from ..machines.packed_spins import REAL_DTYPES
from ..schedules import require_schedule
from .bonds import RULES, Bonds, bonds_of, thresholds
from .links import Links, links_of, rates_of


@dataclass(frozen=True, eq=False)
class PreparedGlass:
    """The glass of `prepare_glass`: ``links``, and ``bonds`` where couplings are small integers without fields.

    ``sources``: the caller's tensors, with their version counters at the time.
    """

    links: Links
    bonds: Bonds | None
    sources: tuple[tuple[Tensor, int | None], ...]

    @property
    def spins(self) -> int:
        """The number of spins."""
        return len(self.links.sizes)

    @property
    def device(self) -> torch.device:
        """Where the tables are."""
        return self.links.links.device

    @property
    def is_current(self) -> bool:
        """False after a source was written to in place. Tensors made in inference mode count no versions."""
        return _unchanged(self.sources)


@dataclass(frozen=True, eq=False)
class PreparedSchedule:
    """The schedule of `prepare_schedule`: ``thresholds`` by rule, see `bonds.thresholds`; ``rates``, see
    `links.rates_of`."""

    thresholds: Mapping[str, Tensor]
    rates: Tensor
    sources: tuple[tuple[Tensor, int | None], ...]

    @property
    def sweeps(self) -> int:
        """The number of sweeps, one for each temperature."""
        return len(self.rates)

    @property
    def device(self) -> torch.device:
        """Where the tables are."""
        return self.rates.device

    @property
    def is_current(self) -> bool:
        """False after the temperatures were written to in place."""
        return _unchanged(self.sources)


def prepare_glass(
    couplings: Tensor, fields: Tensor | None = None, *, device: torch.device | None = None
) -> PreparedGlass:
    """Prepare the glass ``E(s) = -sum_{i<j} J_ij s_i s_j - sum_i h_i s_i`` for any number of calls of `anneal_spins`.

    Args:
        couplings: ``J``, (n, n), n at least 1, of any real or integer dtype, on any device: finite, symmetric, 0 on the
            diagonal.
        fields: ``h``, (n,), finite; none by default.
        device: the device of the walkers; by default that of ``couplings``.

    The result keeps references to both. After a write to either it is out of date, and `anneal_spins` raises.

    Raises:
        TypeError: an argument is not a dense tensor of a supported dtype.
        ValueError: an argument has a wrong shape or is not finite, or ``couplings`` is not symmetric or couples a spin
            with itself.
    """
    require_no_transform("preparing a glass")
    require_tensor("couplings", couplings, REAL_DTYPES, None)
    if couplings.ndim != 2 or couplings.shape[0] != couplings.shape[1] or not len(couplings):
        raise ValueError(f"couplings must be a square matrix of at least one spin, got shape {tuple(couplings.shape)}")
    exact = couplings.detach().to("cpu", torch.float64)
    held = exact.new_zeros(len(exact))
    if fields is not None:
        require_tensor("fields", fields, REAL_DTYPES, None)
        if fields.shape != held.shape:
            raise ValueError(f"fields must have shape ({len(held)},) for {len(held)} spins, got {tuple(fields.shape)}")
        held = fields.detach().to("cpu", torch.float64)
    for name, values in (("couplings", exact), ("fields", held)):
        if not bool(values.isfinite().all()):
            raise ValueError(f"{name} must be finite")
    if bool(exact.diagonal().any()):
        raise ValueError("couplings must be 0 on the diagonal: a spin has no bond with itself")
    if not torch.equal(exact, exact.t()):
        raise ValueError("couplings must be symmetric")
    target = couplings.device if device is None else device
    bonds = None if bool(held.any()) else bonds_of(exact, target)
    sources = (couplings,) if fields is None else (couplings, fields)
    return PreparedGlass(links_of(exact, held, target), bonds, _with_versions(sources))


def prepare_schedule(temperatures: Tensor, *, device: torch.device | None = None) -> PreparedSchedule:
    """Prepare a schedule, for either rule, for any number of calls of `anneal_spins`.

    Args:
        temperatures: float64 (sweeps,), positive and finite: see `boltzbench.kernels.schedules`. Values on a GPU are
            not checked.
        device: the device of the walkers; by default that of ``temperatures``.

    The result keeps a reference to ``temperatures``. After a write to it, it is out of date, and `anneal_spins` raises.

    Raises:
        TypeError: ``temperatures`` is not a dense tensor of float64.
        ValueError: it has a wrong shape, is empty, or holds a value out of range.
    """
    require_no_transform("preparing a schedule")
    require_tensor("temperatures", temperatures, (torch.float64,), None)
    require_schedule("temperatures", temperatures)
    target = temperatures.device if device is None else device
    given = temperatures.detach()
    tables = {rule: thresholds(given, rule).to(target) for rule in RULES}
    return PreparedSchedule(tables, rates_of(given).to(target), _with_versions((temperatures,)))


def _with_versions(tensors: tuple[Tensor, ...]) -> tuple[tuple[Tensor, int | None], ...]:
    return tuple((each, None if each.is_inference() else each._version) for each in tensors)


def _unchanged(sources: tuple[tuple[Tensor, int | None], ...]) -> bool:
    return all(version is None or version == source._version for source, version in sources)
