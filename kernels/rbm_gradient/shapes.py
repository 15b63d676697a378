"""How the work of a gradient is shared out: by shapes alone, so that equal arguments are summed alike everywhere."""

from dataclasses import dataclass

BLOCKS_WANTED = 128
LEAST_CHAINS = 256
"""Of both phases, for a part: with fewer, writing and adding parts takes longer than it saves."""


@dataclass(frozen=True)
class Split:
    """Chains in ``parts`` parts, each of so many of the data's and of the model's."""

    parts: int
    data_chains: int
    model_chains: int


def split_chains(data_chains: int, model_chains: int, tiles: int, step: int) -> Split:
    """Parts of whole steps of ``step`` chains, for ``tiles`` tiles of weights."""
    wanted = max(1, min(BLOCKS_WANTED // max(tiles, 1), (data_chains + model_chains) // LEAST_CHAINS))
    lengths = [-(-chains // (wanted * step)) * step for chains in (data_chains, model_chains)]
    parts = max(-(-data_chains // lengths[0]), -(-model_chains // lengths[1]))
    return Split(parts, *lengths)
