"""The cost model: its formulas by hand, the table of the README, and the link as it is here."""

import math

import pytest
import torch
from boltzbench.kernels.distributed import Exchange, Ranks, measured_link
from boltzbench.kernels.distributed.cost import INFINIBAND, NVLINK, STEPS, TCP, Step, table
from support import ROOT


def test_the_table_of_the_readme_is_that_of_the_code():
    text = (ROOT / "kernels" / "distributed" / "README.md").read_text()
    assert table() in text, f"write this to kernels/distributed/README.md:\n{table()}"


@pytest.mark.parametrize(
    ("exchange", "ranks", "seconds", "sent"),
    [
        (Exchange("neighbours", 900, 2), 8, 2 * (7.2e-6 + 900 / 450e9), 1800),
        (Exchange("neighbours", 900, 2), 16, 2 * (9.3e-6 + 900 / 50e9), 1800),
        (Exchange("gather", 1000), 4, 6.6e-6 + 3 * 0.6e-6 + 3000 / 450e9, 3000),
        (Exchange("gather", 1000), 16, 6.6e-6 + 14 * 0.6e-6 + 2.7e-6 + 15000 / 50e9, 15000),
        (Exchange("reduce", 1000), 4, 7.2e-6 + 6.6e-6 + 3 * 0.6e-6 + 1500 / 450e9, 1500),
        (Exchange("reduce", 1000), 16, 9.3e-6 + 6.6e-6 + 14 * 0.6e-6 + 2.7e-6 + 1875 / 50e9, 1875),
        (Exchange("header", 24, 2), 8, 2 * (3 * 30e-6 + 7 * 24 / 3e9), 2 * 7 * 24),
        (Exchange("header", 24), 9, 4 * 30e-6 + 8 * 24 / 3e9, 8 * 24),
        (Exchange.halo(130), 8, 2 * (7.2e-6 + 24 / 450e9), 48),
    ],
)
def test_an_exchange_by_hand(exchange, ranks, seconds, sent):
    assert exchange.seconds(ranks) == pytest.approx(seconds, rel=1e-12)
    assert exchange.sent(ranks) == pytest.approx(sent)
    assert exchange.seconds(1) == exchange.sent(1) == 0


def test_efficiency():
    hidden = Step("a", "", 1e6, 1e9, hidden=(Exchange("neighbours", 0),))  # 1 ms of work, beside a message
    shown = Step("b", "", 1e6, 1e9, Exchange.gathered(8000) + Exchange.reduced(8000))
    assert hidden.efficiency(1024) == 1
    assert shown.efficiency(1) == 1
    slow = sum(each.seconds(8) for each in shown.exchanges)
    assert shown.efficiency(8) == pytest.approx(1e-3 / (1e-3 + slow))
    for step in STEPS:
        found = [step.efficiency(ranks) for ranks in (1, 8, 64, 1024)]
        assert found == sorted(found, reverse=True)
        assert found[0] == 1


def test_links_are_ordered_as_they_are():
    assert NVLINK.latency < INFINIBAND.latency < TCP.latency
    assert NVLINK.bandwidth > INFINIBAND.bandwidth > TCP.bandwidth


def test_an_unknown_exchange():
    with pytest.raises(ValueError, match="kind must be neighbours, gather, reduce or header, got 'broadcast'"):
        Exchange("broadcast").seconds(2)


def link(group):
    return measured_link(Ranks(group), torch.device("cpu"))


def test_the_link_is_measured_alike_on_every_rank(pool):
    first, second = pool.run(2, link)
    assert first == second
    assert 1e-6 < first.latency < 1
    assert 1e6 < first.bandwidth < 1e16
    assert pool.run(1, link)[0].bandwidth == math.inf
