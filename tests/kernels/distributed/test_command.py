"""Every algorithm of `boltzbench distributed`, small, on some ranks."""

import pytest
import torch
from boltzbench.harness.cli.distributed.measure import measure
from boltzbench.kernels.distributed import Ranks
from boltzbench.plugins.samplers import distributed as plugin

SMALL = {"LATTICE": 64, "SIDE": 8, "CHAINS": 64, "REPLICAS": 32, "BATCH": 64, "VISIBLE": 24, "HIDDEN": 8}
SMALL |= {"SMALL": 8, "STEPS": 2}


def measured(group):
    for name, value in SMALL.items():
        setattr(plugin, name, value)
    algorithms = []
    plugin.register_distributed(algorithms.append)
    return [measure(each, Ranks(group), torch.device("cpu")) for each in algorithms]


@pytest.mark.parametrize("size", [1, 4])
def test_every_algorithm_has_the_bits_of_one_rank(pool, size):
    first, *others = pool.run(size, measured)
    assert all(other == first for other in others)
    assert [row.same_bits for row in first] == [True] * 7
    sent = {row.algorithm: row.bytes_per_step for row in first}
    assert [name for name, each in sent.items() if not each] == (["chains"] if size > 1 else list(sent))
    if size > 1:
        assert sent["lattice"] == 4 * 4  # a word of each border row, two rows and two colours
        assert sent["tempering"] == 3 * (
            8 * 8 + 24
        )  # the energies of a rank's replicas and a header, to each other rank
    assert all(row.seconds > 0 and row.seconds_alone > 0 and row.expected_seconds > 0 for row in first)
