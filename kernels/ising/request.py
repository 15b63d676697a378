"""The launch request of the backends: an update of all spins of one colour."""

from dataclasses import dataclass

from torch import Tensor

from ..philox import Stream

STREAMS = (Stream.EVEN_SITES, Stream.ODD_SITES)
"""The random stream of each colour."""


@dataclass(frozen=True)
class LaunchRequest:
    """``own`` and ``around`` hold the spins of the colour and of the other one; the new ones go to ``spins``, which may
    be the same memory. All three are packed spins of both colours, contiguous.

    ``thresholds``: see `acceptance.thresholds`, contiguous.
    ``satisfied``: the sign of the coupling; a bond is satisfied if the product of its spins has this sign.
    ``first_word``: the number of the first lattice's first word in the stream; those of all lattices follow it.
    ``first_row``, ``rows``: the rows to update, of every lattice; the others keep their spins in ``spins``.
    """

    own: Tensor
    around: Tensor
    spins: Tensor
    width: int
    thresholds: Tensor
    satisfied: int
    colour: int
    seed: int
    step: int
    first_word: int
    first_row: int
    rows: int
