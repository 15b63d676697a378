"""Shares, exchanges and sums over ranks, and what every rank hears when one of them fails."""

import os
import signal
import time

import pytest
import torch
from boltzbench.kernels.distributed import RankError, Ranks
from boltzbench.kernels.distributed import ranks as module
from support.ranks import SIZES, Failed, alone


def rows(first: int, end: int) -> torch.Tensor:
    return torch.arange(first, end)[:, None] * torch.tensor([1, 100])


def gathered(group, count, dtype):
    ranks = Ranks(group)
    share = ranks.share(count)
    return ranks.gather(rows(share.start, share.stop).to(dtype))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("count", "dtype"), [(24, torch.float64), (7, torch.uint8), (0, torch.int64)])
def test_rows_are_gathered_in_the_order_of_their_numbers(pool, size, count, dtype):
    for found in pool.run(size, gathered, count, dtype):
        assert found.dtype is dtype
        assert torch.equal(found, rows(0, count).to(dtype))


@pytest.mark.parametrize("size", SIZES)
def test_shares_cover_every_number_once(pool, size):
    for count, multiple in ((0, 1), (5, 1), (8, 1), (9, 1), (96, 32)):
        shares = pool.run(size, share, count, multiple)
        assert [number for each in shares for number in each] == list(range(count))
        lengths = [len(each) for each in shares]
        assert max(lengths) - min(lengths) <= multiple
        assert all(each.start % multiple == 0 for each in shares)


def share(group, count, multiple):
    return Ranks(group).share(count, multiple=multiple)


def numbers(blocks: int) -> torch.Tensor:
    """Numbers whose sum depends on the order."""
    generator = torch.Generator().manual_seed(blocks)
    return torch.randn(blocks, 3, 5, generator=generator) * 10.0 ** torch.arange(-4, 1)


def summed(group, blocks):
    ranks = Ranks(group)
    share = ranks.share(blocks)
    return ranks.sum(numbers(blocks)[share.start : share.stop])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("blocks", [1, 5, 8, 13])
def test_sums_have_the_same_bits_for_every_number_of_ranks(pool, size, blocks):
    def tree(parts):
        half = 1 << (len(parts) - 1).bit_length() >> 1
        return parts[0] if len(parts) == 1 else tree(parts[:half]) + tree(parts[half:])

    for found in pool.run(size, summed, blocks):
        assert torch.equal(found, tree(list(numbers(blocks))))


def taken(group, parents):
    ranks = Ranks(group)
    share = ranks.share(11)
    return ranks.take(rows(share.start, share.stop), torch.tensor(parents))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("parents", [list(range(11)), [0, 0, 3, 3, 3, 7, 9, 9, 9, 9, 10], [5] * 11, [10] * 4])
def test_rows_move_to_where_they_are_taken(pool, size, parents):
    found = torch.cat(pool.run(size, taken, parents))
    assert torch.equal(found, rows(0, 11)[parents])


def failing(group, where):
    ranks = Ranks(group)
    with ranks.together():
        ranks.gather(torch.zeros(1))
        with ranks.together():
            if ranks.rank == where:
                raise ValueError("no state here")
            ranks.gather(torch.zeros(1))


def outcome_of_failing(group, where):
    try:
        failing(group, where)
    except Exception as error:
        message = f"{type(error).__name__}: {error}"
    return message, Ranks(group).gather(torch.tensor([3])).tolist()  # the group is of use still


@pytest.mark.parametrize("size", SIZES)
def test_an_error_on_one_rank_is_raised_on_every_rank(pool, size):
    found = pool.run(size, outcome_of_failing, size - 1)
    message = f"RankError: rank {size - 1} of {size} failed: ValueError: no state here"
    assert [words for words, _ in found] == [message] * (size - 1) + ["ValueError: no state here"]
    assert [still for _, still in found] == [[3] * size] * size


def out_of_step(group):
    ranks = Ranks(group)
    with ranks.together():
        ranks.gather(torch.zeros(1, 1 + ranks.rank // 3))


def other_seed(group):
    Ranks(group).require_same(weights=torch.ones(3), seed=7 + Ranks(group).rank // 2)


def other_weights(group):
    Ranks(group).require_same(weights=torch.ones(3) * (1 - Ranks(group).rank % 2), seed=7)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (
            out_of_step,
            "rank 0 is about to gather float32 rows of shape (1,), rank 3 to gather float32 rows of shape (2,)",
        ),
        (other_seed, "seed must be the same on every rank: rank 0 has 7, rank 2 8"),
        (other_weights, "weights must be the same on every rank: rank 0 has a float32 tensor of shape (3,)"),
    ],
)
def test_ranks_that_differ_are_told_apart(pool, function, words):
    for found in pool.outcomes(4, function):
        assert isinstance(found, Failed)
        assert (found.kind, words in found.message) == ("RankError", True), found


def killed(group, victim, how):
    module.LAST_WORDS = 1.0
    ranks = Ranks(group)
    processes = ranks.gather(torch.tensor([os.getpid()])).tolist()
    if ranks.rank == victim:
        os.kill(os.getpid(), how)
    start = time.monotonic()
    try:
        ranks.gather(torch.zeros(1))
    except RankError as error:
        found = str(error), time.monotonic() - start
        if how == signal.SIGSTOP and ranks.rank == 0:
            os.kill(processes[victim], signal.SIGKILL)
        return found


@pytest.mark.parametrize(("how", "timeout", "least"), [(signal.SIGKILL, 60.0, 0.0), (signal.SIGSTOP, 2.0, 1.0)])
def test_a_rank_that_ends_or_stops_is_named_by_the_others(how, timeout, least):
    found = alone(4, killed, 2, how, timeout=timeout)
    assert found.pop(2) is None
    for words, seconds in found:
        assert words == "rank 2 of 4 does not answer; start the run again"
        assert least <= seconds < 8
