"""Shares, exchanges and sums over ranks, and what every rank hears when one of them fails."""

import contextlib
import io
import itertools
import os
import re
import signal
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from boltzbench.kernels import distributed
from boltzbench.kernels.distributed import Exchange, RankError, Ranks, join
from boltzbench.kernels.distributed import ranks as module
from support.ranks import SIZES, Failed, alone, free_port, variables


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


def of_every_size(group):
    """For 2 to 8 ranks: the numbers of the ranks, each as often as it says, and the bytes of each message for that."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        sent = messages_of_headers(patch)
        for size in range(2, 9):
            some = dist.new_group(list(range(size)))
            if dist.get_rank() < size:
                sent.clear()
                ranks = Ranks(some)
                numbers = ranks.gather(torch.full((ranks.rank,), ranks.rank)).tolist()
                found[size] = numbers, list(sent)
                ranks.require_same(size=size)
                assert len(sent) == 2 * len(found[size][1])
    return found


def messages_of_headers(patch):
    """The bytes of each message that this rank sends for headers from now on."""
    sent, honest = [], dist.isend

    def isend(tensor, **place):
        sent.append(tensor.nbytes)
        return honest(tensor, **place)

    patch.setattr(dist, "isend", isend)
    return sent


def test_a_header_takes_a_message_for_each_doubling_of_the_ranks(pool):
    for rank, found in enumerate(pool.run(8, of_every_size)):
        assert list(found) == [size for size in range(2, 9) if rank < size]
        for size, (numbers, sent) in found.items():
            assert numbers == [number for number in range(size) for _ in range(number)]
            assert len(sent) == {2: 1, 3: 2, 4: 2, 5: 3, 6: 3, 7: 3, 8: 3}[size]
            assert sum(sent) == Exchange("header", 24).sent(size)


def failing(group, where, exchanges):
    ranks = Ranks(group)
    with ranks.together():
        ranks.gather(torch.zeros(1))
        with ranks.together():
            if ranks.rank == where:
                raise ValueError("no state here")
            for _ in range(exchanges):
                ranks.gather(torch.zeros(1))


def outcome_of_failing(group, where, exchanges):
    message = ""
    try:
        failing(group, where, exchanges)
    except Exception as error:
        message = f"{type(error).__name__}: {error}"
    return message, Ranks(group).gather(torch.tensor([3])).tolist()  # the group is of use still


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("exchanges", [0, 2])
def test_an_error_on_one_rank_is_raised_on_every_rank(pool, size, exchanges):
    """Whether or not the others have exchanges left in the block."""
    found = pool.run(size, outcome_of_failing, size - 1, exchanges)
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


def other_software(group):
    ranks, own = Ranks(group), module.software
    if ranks.rank == 1:
        module.software = lambda: "boltzbench 9"
    try:
        ranks.require_same()
    finally:
        module.software = own


def test_a_rank_with_other_software_is_refused(pool):
    for found in pool.outcomes(2, other_software):
        assert f"software must be the same on every rank: rank 0 has {module.software()}, rank 1 boltzbench 9" in str(
            found
        )


def killed(group, victim, how, timeout, messages):
    """The victim ends or stops after this number of messages of a header. Rank 1 comes late if the victim stops."""
    module.LAST_WORDS = 1.0 if victim else 0.4
    module.LOOK = 0.2 if how == signal.SIGSTOP else 60.0  # of one that ends, connections tell
    try:
        with join(timeout=timeout) as (ranks, _):
            start = time.monotonic()  # on every rank before the exchange that is lost begins on any
            processes = ranks.gather(torch.tensor([os.getpid()])).tolist()
            honest, sent = dist.isend, itertools.count()

            def isend(*arguments, **place):
                if ranks.rank == victim and next(sent) == messages:
                    os.kill(os.getpid(), how)
                return honest(*arguments, **place)

            dist.isend = isend
            if how == signal.SIGSTOP and ranks.rank == 1:
                time.sleep(timeout - 0.5)
            with ranks.together():
                ranks.gather(torch.zeros(1))
    except RankError as error:
        found = str(error), time.monotonic() - start
        if how == signal.SIGSTOP and ranks.rank == (victim + 1) % 4:
            os.kill(processes[victim], signal.SIGKILL)
        return found


@pytest.mark.parametrize(
    ("victim", "how", "timeout", "messages", "words"),
    [
        (2, signal.SIGKILL, 60.0, 0, "rank 2 of 4 does not answer"),
        (2, signal.SIGKILL, 60.0, 1, "rank 2 of 4 does not answer"),
        (0, signal.SIGKILL, 60.0, 0, "rank 0 of 4, which keeps the rendezvous, does not answer"),
        (2, signal.SIGSTOP, 2.0, 0, "rank 2 of 4 does not answer"),
        (0, signal.SIGSTOP, 2.5, 0, "rank 0 of 4, which keeps the rendezvous, does not answer"),
    ],
)
def test_a_rank_that_ends_or_stops_is_named_by_the_others(victim, how, timeout, messages, words):
    """Rank 3 of 4 waits for no message of rank 2, and for one of rank 1, which waits for rank 2 and came late."""
    found = alone(4, killed, victim, how, timeout, messages, timeout=None)
    assert found.pop(victim) is None
    for message, seconds in found:
        assert message == f"{words}; start the run again"
        assert timeout * (how == signal.SIGSTOP) <= seconds < 30


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE must be set to an integer for a run over ranks, got 'two'"),
        ({"RANK": "2"}, "RANK must lie in [0, 1], got 2"),
        ({"RANK": None}, "RANK must be set to an integer for a run over ranks, got ''"),
        ({"MASTER_ADDR": None}, "MASTER_ADDR and MASTER_PORT must name the rendezvous"),
        ({"MASTER_PORT": None}, "MASTER_PORT must be set to an integer"),
        ({}, "rank 1 of 2 found no rendezvous at 127.0.0.1:"),
        ({"RANK": "0"}, "rank 0 of 2 found no rendezvous at 127.0.0.1:"),
    ],
)
def test_a_rendezvous_that_is_missing_is_named(monkeypatch, changes, words):
    for name, value in (variables(1, 2, free_port()) | changes).items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    with pytest.raises((ValueError, RankError), match=re.escape(words)), join(timeout=0.2, device="cpu"):
        pass


def test_a_process_by_itself_is_the_only_rank(monkeypatch):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    with join(device="cpu") as (ranks, device):
        assert (ranks.rank, ranks.size, device.type) == (0, 1, "cpu")
        assert ranks.gather(torch.arange(3)).tolist() == [0, 1, 2]
        with pytest.raises(ValueError, match="nothing"), ranks.together():
            raise ValueError("nothing")


def test_each_rank_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert module._device(None) == torch.device("cuda", 1)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ValueError, match="LOCAL_RANK must be below 2, the number of GPUs here, got 2"):
        module._device("cuda")
    assert module._device("cpu") == torch.device("cpu")


def readme_example(group):
    """What the README's example prints."""
    code = re.search(r"```python\n(.*?)```", (Path(distributed.__file__).parent / "README.md").read_text(), re.DOTALL)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code[1], {})
    return printed.getvalue()


def test_the_readme_shows_what_works():
    found, other = alone(2, readme_example, timeout=None)
    assert other == ""
    estimate, error, exact = map(float, re.search(r"log Z (.*) \+- (.*), exactly (.*)", found).groups())
    assert abs(estimate - exact) < 6 * error
