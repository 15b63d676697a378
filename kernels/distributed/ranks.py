"""The ranks of a `torch.distributed` group: what every algorithm over ranks is made of.

- *Shares*: ``n`` items fall to the ranks in contiguous ranges that differ by one item at most.
- *Exchanges*: rows gathered in the order of the ranks, rows moved, and sums in an order that does not depend on the
  number of ranks.
- *Failures*: each exchange begins with a header of 24 bytes from each rank. It says what the rank is about to do, or
  that it failed, so that every rank raises the same sentence and none waits for a message that never comes.

Every rank gets the headers of all, by ``ceil(log2(size))`` messages one after the other. First a rank sends its header
to the rank before it, then all that it has to the ranks 2, 4, 8, ... places before it: each message doubles what a rank
has. So every rank sees by itself who failed and who differs. Only then do ranks send more: the words of the failure, or
both values.

A rank that ends breaks its connections. The ranks that wait for it then close theirs, and so do the ranks that wait for
those, until every rank has heard. A rank that stops, or is cut off, is silent until the first rank has waited for
``timeout``. That rank says in the group's store that it is still there, and closes its connections. Every rank that
waits looks into the store twice a second and does the same. Who has not said so within 3 seconds is lost, and named.
The group is of no use afterwards.

Headers travel by the group's backend for CPU tensors, so a group for GPUs is ``cpu:gloo,cuda:nccl``, which is also
torch's own choice.
"""

import functools
import hashlib
import importlib.metadata
import math
import os
import platform
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from ..numbers import integer, real

__all__ = ["TIMEOUT", "RankError", "Ranks", "join", "software"]

TIMEOUT = 300.0
"""Seconds that a rank waits for the others, by default."""
LOOK = 0.5
"""Seconds between looks at whether another rank has lost the connection."""
LAST_WORDS = 3.0
"""Seconds in which ranks that lost the connection say that they are still there."""
MESSAGE = 1024
"""Bytes of a message about a failure."""
FAILED = -1
HEADER_TAG, HANG_UP_TAG = 1 << 20, 1 << 21
"""Of messages between two ranks, apart from those of a caller."""
LOST = "boltzbench: a rank lost the connection"
"""A key of the group's store."""

T = TypeVar("T")


class RankError(RuntimeError):
    """A rank failed, does not answer, or does something else than the others. The message names it."""


class Ranks:
    """The ranks of ``group``, and this process among them.

    ``group`` is a group of `torch.distributed`; None is the default group, or where none was initialized this process
    alone. ``size`` is the number of ranks and ``rank`` the place of this one, both within the group.

    Raises ValueError if this process is not in ``group``, or the group has no backend for CPU tensors.
    """

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        if group is None and dist.is_available() and dist.is_initialized():
            group = dist.group.WORLD
        self.group = group
        self.rank = dist.get_rank(group) if group is not None else 0
        if self.rank < 0:
            raise ValueError("group must include this process")
        self.size = dist.get_world_size(group) if group is not None else 1
        if group is not None and "cpu:" not in dist.get_backend_config(group):
            raise ValueError(
                "group must have a backend for CPU tensors, which carry headers: initialize it as cpu:gloo,cuda:nccl"
            )

    def __repr__(self) -> str:
        return f"rank {self.rank} of {self.size}"

    def share(self, count: int, rank: int | None = None, *, multiple: int = 1) -> range:
        """The numbers, of 0 to ``count - 1``, that fall to this rank, or to ``rank``.

        Shares are contiguous, in the order of the ranks, and the first may have one more than the others; a share is
        empty where ranks outnumber items. With ``multiple``, which must divide ``count``, shares begin and end at
        multiples of it: 32 for walkers packed into words.
        """
        count, multiple = integer("count", count), integer("multiple", multiple, 1)
        if count % multiple:
            raise ValueError(f"count must be a multiple of {multiple}, got {count}")
        rank = self.rank if rank is None else integer("rank", rank, 0, self.size - 1)
        whole, left = divmod(count // multiple, self.size)
        first = rank * whole + min(rank, left)
        return range(first * multiple, (first + whole + (rank < left)) * multiple)

    def gather(self, rows: Tensor) -> Tensor:
        """The rows of all ranks, in the order of the ranks: (rows of all, ...), the same bits on every rank.

        ``rows`` is (rows, ...), of one dtype and row shape on all ranks; the number of rows may differ. Each rank
        sends its rows to each other, padded to the largest number of rows.
        """
        rows = rows.detach()
        counts = self._meet(f"gather {_name(rows.dtype)} rows of shape {tuple(rows.shape[1:])}", len(rows))
        if self.size == 1:
            return rows
        padded = rows.new_zeros((max(counts), *rows.shape[1:]))
        if not padded.numel():
            return rows.new_empty((sum(counts), *rows.shape[1:]))
        padded[: len(rows)] = rows
        every = self._every(padded)
        if len(set(counts)) == 1:
            return every.flatten(0, 1)
        return torch.cat([part[:count] for part, count in zip(every, counts, strict=True)])

    def sum(self, blocks: Tensor) -> Tensor:
        """The sum of all blocks of all ranks: (...), the same bits on every rank, for every number of ranks.

        ``blocks`` is (blocks of this rank, ...), the `share` of this rank in a number of blocks that does not depend on
        the number of ranks. They are added as a balanced binary tree over all blocks, in ``blocks``'s dtype. A rank
        adds up the branches that it holds as a whole, each rank then adds one slice of the elements, and the slices are
        gathered. With one branch for each rank (as many ranks as a power of two that divides the blocks) a rank sends
        ``2 (size - 1) / size`` times the bytes of the result, as a ring does.
        """
        blocks = blocks.detach()
        counts = self._meet(f"sum {_name(blocks.dtype)} blocks of shape {tuple(blocks.shape[1:])}", len(blocks))
        total = sum(counts)
        if counts != [len(self.share(total, rank)) for rank in range(self.size)]:
            raise ValueError(f"blocks must be the share of each rank, got {counts} blocks on the ranks")
        if not total:
            return blocks.new_zeros(blocks.shape[1:])
        branches = [_branches(self.share(total, rank), total) for rank in range(self.size)]
        own = self.share(total)
        mine = {
            branch: _tree_sum(branch, total, {(i, 1): blocks[i - own.start] for i in own})
            for branch in branches[self.rank]
        }
        if self.size == 1:
            return mine[branches[0][0]]
        elements = math.prod(blocks.shape[1:])
        width = -(-elements // self.size)
        sent = blocks.new_zeros((self.size, len(mine), width))  # a row of slices for each rank
        for place, part in enumerate(mine.values()):
            flat = blocks.new_zeros(self.size * width)
            flat[:elements] = part.flatten()
            sent[:, place] = flat.view(self.size, width)
        found = self._exchange(sent, [len(mine)] * self.size, [len(each) for each in branches], width)
        known = dict(zip((branch for each in branches for branch in each), found, strict=True))
        slices = self._every(_tree_sum((0, 1 << (total - 1).bit_length()), total, known))
        return slices.flatten()[:elements].view(blocks.shape[1:])

    def take(self, rows: Tensor, numbers: Tensor) -> Tensor:
        """This rank's share of the rows ``numbers`` of all ranks: (its share of ``len(numbers)``, ...).

        Args:
            rows: this rank's share of all rows, (rows, ...).
            numbers: which rows, int64 (n,), in ascending order, the same on every rank.

        A row crosses to another rank once, however often it is taken there; rows that stay are not sent.
        """
        rows = rows.detach()
        what = f"take {_name(rows.dtype)} rows of shape {tuple(rows.shape[1:])}, numbers {_fingerprint(numbers):x}"
        counts = self._meet(what, len(rows))
        if counts != [len(self.share(sum(counts), rank)) for rank in range(self.size)]:
            raise ValueError(f"rows must be the share of each rank, got {counts} rows on the ranks")
        if self.size == 1:
            return rows[numbers.to(rows.device)]
        wanted = numbers.cpu()
        ends = torch.tensor(counts, device="cpu").cumsum(0)
        own = slice(int(ends[self.rank]) - counts[self.rank], int(ends[self.rank]))

        def distinct(rank: int) -> tuple[Tensor, Tensor]:
            share = self.share(len(wanted), rank)
            found: tuple[Tensor, Tensor] = torch.unique_consecutive(
                wanted[share.start : share.stop], return_inverse=True
            )
            return found

        leaving = [distinct(rank)[0] for rank in range(self.size)]
        leaving = [each[(each >= own.start) & (each < own.stop)] - own.start for each in leaving]
        arriving, place = distinct(self.rank)
        owners = torch.bincount(torch.searchsorted(ends, arriving, right=True), minlength=self.size)
        flat = rows.reshape(len(rows), math.prod(rows.shape[1:]))
        sent = flat[torch.cat(leaving).to(rows.device)]
        found = self._exchange(sent, [len(each) for each in leaving], owners.tolist(), flat.shape[1])
        return found[place.to(rows.device)].view(-1, *rows.shape[1:])

    def require_same(self, **values: object) -> None:
        """Raise RankError on every rank unless all run the same software with the same ``values``.

        A tensor counts by its bits, anything else by its ``repr``. That takes a header, and more only if ranks differ.
        """
        if self.size == 1:
            return
        values = {"software": software(), **values}
        prints = [_fingerprint(value) for value in values.values()]
        if len(set(self._meet(f"compare {', '.join(values)}", _fingerprint(prints)))) == 1:
            return
        every = self._every(torch.tensor(prints, device="cpu"))
        column = int((every != every[0]).any(0).nonzero()[0])
        rank = int((every[:, column] != every[0, column]).nonzero()[0])
        name, value = list(values.items())[column]
        shown = self._texts(_shown(value))
        raise RankError(f"{name} must be the same on every rank: rank 0 has {shown[0]}, rank {rank} {shown[rank]}")

    @contextmanager
    def together(self) -> Iterator[None]:
        """A block that all ranks enter and leave together: if one raises, every one raises.

        The rank that failed raises its own exception. The others raise RankError, with the rank's number and message,
        at their next exchange or at the end of the block.
        """
        try:
            yield
            self._meet("leave the block")
        except Exception as error:
            if not isinstance(error, RankError) and not getattr(error, "ranks_know", False):
                try:
                    self._headers(FAILED, 0, 0)
                    self._texts(f"{type(error).__name__}: {error}")
                except RankError as lost:
                    error.add_note(f"and then: {lost}")
                error.ranks_know = True  # type: ignore[attr-defined]  # blocks around this one
            raise

    def _meet(self, what: str, count: int = 0) -> list[int]:
        """``count`` of each rank. Raise RankError on each unless all are about to do ``what``."""
        if self.size == 1:
            return [count]
        states, counts, plans = self._headers(0, count, _fingerprint(what))
        if FAILED in states:
            words = self._texts("")
            failed = [rank for rank, state in enumerate(states) if state == FAILED]
            raise RankError("; ".join(f"rank {rank} of {self.size} failed: {words[rank]}" for rank in failed))
        if len(set(plans)) > 1:
            words = self._texts(what)
            other = next(rank for rank, plan in enumerate(plans) if plan != plans[0])
            raise RankError(f"the ranks are out of step: rank 0 is about to {words[0]}, rank {other} to {words[other]}")
        return counts

    def _headers(self, *words: int) -> list[list[int]]:
        """Each of the words, of all ranks in their order.

        A rank gets those of the ranks that follow it, in a ring: of one, two, four, ... more by each message. Source:
        Bruck et al., IEEE Trans. Parallel Distrib. Syst. 8 (1997).
        """
        every = torch.tensor([words] * self.size, device="cpu")  # this rank's first
        rounds = [(1 << k, min(2 << k, self.size)) for k in range((self.size - 1).bit_length())]
        with self.answering():
            arriving = [
                dist.irecv(every[have:end], group=self.group, group_src=(self.rank + have) % self.size, tag=HEADER_TAG)
                for have, end in rounds
            ]
            leaving = []
            for (have, end), work in zip(rounds, arriving, strict=True):
                to, some = (self.rank - have) % self.size, every[: end - have]
                leaving.append(dist.isend(some, group=self.group, group_dst=to, tag=HEADER_TAG))
                _wait(work)
            _wait(*leaving)
        found: list[list[int]] = every.roll(self.rank, 0).t().tolist()
        return found

    def _texts(self, text: str) -> list[str]:
        """The texts of all ranks, cut to `MESSAGE` bytes."""
        if self.size == 1:
            return [text]
        mine = torch.zeros(MESSAGE, dtype=torch.uint8, device="cpu")
        data = text.encode()[:MESSAGE]
        mine[: len(data)] = torch.tensor(list(data), dtype=torch.uint8, device="cpu")
        return [bytes(each.tolist()).rstrip(b"\0").decode(errors="ignore") for each in self._every(mine)]

    def _every(self, mine: Tensor) -> Tensor:
        """The tensors of all ranks, which have one shape: (ranks, ...)."""
        every = mine.new_empty((self.size, *mine.shape))
        parts = list(every.view(self.size, mine.numel()).view(torch.uint8).unbind())
        with self.answering():
            dist.all_gather(parts, _bytes(mine), group=self.group)
        return every

    def _exchange(self, sent: Tensor, leaving: Sequence[int], arriving: Sequence[int], width: int) -> Tensor:
        """Send ``leaving[r]`` rows of ``width`` to rank r, in order; return those that arrive, by rank."""
        found = sent.new_empty((sum(arriving), width))
        row = width * sent.element_size()
        into, out_of = ([count * row for count in counts] for counts in (arriving, leaving))
        with self.answering():
            dist.all_to_all_single(_bytes(found), _bytes(sent), into, out_of, group=self.group)
        return found

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Messages between ranks: a RuntimeError of `torch.distributed` becomes a RankError that names who is lost.

        If another rank says meanwhile that it lost the connection, this one hangs up and raises too.
        """
        try:
            with _watched(self):
                yield
        except RuntimeError as error:
            self._hang_up()
            raise RankError(self._lost(error)) from error

    def _hang_up(self) -> None:
        """Close the connections to the others, so that those that wait for this rank hear of it at once.

        gloo closes all connections of a group when a message does not arrive in time. What this rank itself waits for
        then fails. A connection that the other side closed, before or meanwhile, says nothing to the rest.
        """
        message = torch.zeros(1, dtype=torch.uint8, device="cpu")
        for other in set(range(self.size)) - {self.rank}:
            with suppress(RuntimeError):
                work = dist.irecv(message, group=self.group, group_src=other, tag=HANG_UP_TAG)
                assert work is not None
                work.wait(timedelta(milliseconds=1))

    def _lost(self, error: RuntimeError) -> str:
        """A sentence about the ranks that do not answer. The group is of no use afterwards."""
        others = set(range(self.size)) - {self.rank}
        try:
            self._ask(lambda store: (store.set(LOST, ""), store.set(_still_here(self.rank), "")))
            end = time.monotonic() + LAST_WORDS
            while others and time.monotonic() < end:
                others -= self._still_here(others)
                time.sleep(0.05)
        except RuntimeError:
            if 0 in others:  # else it has said that it is still here, waited, and left
                return f"rank 0 of {self.size}, which keeps the rendezvous, does not answer; start the run again"
        if not others:
            return f"rank {self.rank} of {self.size} lost the connection to the others ({error}); start the run again"
        names = ", ".join(map(str, sorted(others)))
        words = f"ranks {names} of {self.size} do" if len(others) > 1 else f"rank {names} of {self.size} does"
        return f"{words} not answer; start the run again"

    def _still_here(self, ranks: Iterable[int]) -> set[int]:
        """Those of ``ranks`` that have lost the connection, and said so."""
        return self._ask(lambda store: {rank for rank in ranks if store.check([_still_here(rank)])})

    def _ask(self, question: Callable[[Any], T]) -> T:
        """What the group's store answers; RuntimeError if it does not within `LAST_WORDS`.

        The store itself waits for ever if its host is cut off.
        """
        assert self.group is not None
        store, found = self.group.get_group_store(), queue.Queue[T | RuntimeError]()

        def ask() -> None:
            try:
                found.put(question(store))
            except RuntimeError as error:
                found.put(error)

        threading.Thread(target=ask, daemon=True).start()
        try:
            answer = found.get(timeout=LAST_WORDS)
        except queue.Empty:
            raise RuntimeError(f"the rendezvous does not answer in {LAST_WORDS:g} s") from None
        if isinstance(answer, RuntimeError):
            raise answer
        return answer


def _still_here(rank: int) -> str:
    return f"boltzbench: rank {rank} is still here"


def _wait(*works: dist.Work | None) -> None:
    for work in works:
        assert work is not None  # it is for ranks that are not in the group
        work.wait()


_WAITING: dict[Ranks, float] = {}
"""Those of this process that wait for other ranks, and since when."""


@contextmanager
def _watched(ranks: Ranks) -> Iterator[None]:
    """A block that waits for other ranks. It fails once another rank has said that it lost the connection.

    Such a rank may not be the one that this rank waits for, so that this rank's own connections say nothing.
    """
    if ranks.size > 1:
        _start_to_watch()
        _WAITING[ranks] = time.monotonic()
    try:
        yield
    finally:
        _WAITING.pop(ranks, None)


@functools.cache
def _start_to_watch() -> None:
    threading.Thread(target=_watch, daemon=True).start()


def _watch() -> None:
    while True:
        time.sleep(LOOK)
        _look()


def _look() -> None:
    """Hang up for all that have waited for some time, if a rank lost the connection or the rendezvous ended.

    A rendezvous that is silent ends no wait: it may be slow.
    """
    for ranks, since in list(_WAITING.items()):
        if time.monotonic() - since < LOOK:
            continue
        assert ranks.group is not None
        try:
            lost = ranks.group.get_group_store().check([LOST])
        except RuntimeError:
            lost = True
        if lost and _WAITING.get(ranks) == since:
            ranks._hang_up()


@contextmanager
def join(*, timeout: float = TIMEOUT, device: str | None = None) -> Iterator[tuple[Ranks, torch.device]]:
    """Join the ranks that torchrun, or a launcher with its variables, started; leave them at the end of the block.

    Yields the ranks and this one's device: GPU ``LOCAL_RANK`` where there are GPUs, else the CPU. Without the variables
    ``RANK`` and ``WORLD_SIZE`` this process is the only rank.

    Args:
        timeout: seconds that a rank waits for another, in each exchange and when it joins; positive.
        device: ``cpu`` or ``cuda``; by default ``cuda`` where torch finds GPUs.

    Raises:
        ValueError: a variable is missing or wrong, ``device`` is unknown, or there is no GPU for this rank.
        RankError: the ranks do not come together in time, or one runs other software.
    """
    timeout = real("timeout", timeout, positive=True)
    size = _variable("WORLD_SIZE", 1) if "RANK" in os.environ or "WORLD_SIZE" in os.environ else 1
    place = _device(device)
    if place.type == "cuda":
        torch.cuda.set_device(place)
    if size == 1 and "RANK" not in os.environ:
        yield Ranks(), place
        return
    rank = _variable("RANK", 0, size - 1)
    if "MASTER_ADDR" not in os.environ or not 0 < _variable("MASTER_PORT", 0) < 1 << 16:
        raise ValueError("MASTER_ADDR and MASTER_PORT must name the rendezvous: start the ranks by torchrun")
    backend = "cpu:gloo,cuda:nccl" if place.type == "cuda" else "gloo"
    limit = timedelta(seconds=timeout)
    try:
        dist.init_process_group(backend, timeout=limit, rank=rank, world_size=size)
    except RuntimeError as error:
        where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise RankError(f"rank {rank} of {size} found no rendezvous at {where} in {timeout:g} s: {error}") from error
    try:
        ranks = Ranks()
        ranks.require_same(device=place.type)
        yield ranks, place
    finally:
        dist.destroy_process_group()


def _variable(name: str, least: int, most: int = 1 << 20) -> int:
    text = os.environ.get(name, "")
    try:
        value = int(text)
    except ValueError:
        raise ValueError(
            f"{name} must be set to an integer for a run over ranks, got {text!r}: start it by torchrun"
        ) from None
    return integer(name, value, least, most)


def _device(wanted: str | None) -> torch.device:
    if wanted not in (None, "cpu", "cuda"):
        raise ValueError(f"device must be cpu or cuda, got {wanted!r}")
    gpus = torch.cuda.device_count() if wanted != "cpu" else 0
    if wanted == "cpu" or (wanted is None and not gpus):
        return torch.device("cpu")
    local = _variable("LOCAL_RANK", 0) if "LOCAL_RANK" in os.environ else 0
    if local >= gpus:
        raise ValueError(
            f"LOCAL_RANK must be below {gpus}, the number of GPUs here, got {local}: one rank for each GPU"
        )
    return torch.device("cuda", local)


@functools.cache
def software() -> str:
    """What must be the same on every rank: versions, and a hash of the kernels' source."""
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        if path.suffix in (".py", ".cu", ".cuh", ".cpp", ".hpp"):
            digest.update(f"{path.relative_to(root)}\n".encode() + path.read_bytes())
    try:
        triton = importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        triton = "none"
    return (
        f"boltzbench {importlib.metadata.version('boltzbench')} (kernels {digest.hexdigest()[:12]}), "
        f"torch {torch.__version__}, triton {triton}, Python {platform.python_version()}"
    )


def _fingerprint(value: object) -> int:
    """64 bits, signed, of a tensor's dtype, shape and bits, or of the ``repr`` of anything else."""
    if not isinstance(value, Tensor):
        return int.from_bytes(hashlib.sha256(repr(value).encode()).digest()[:8], "little", signed=True)
    x = value.detach().contiguous().flatten()
    sized = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    bits = x.view(sized[x.element_size()]).to(torch.int64)
    place = 2 * torch.arange(len(bits), device=bits.device) + 1
    return int(((bits + 1) * place).sum()) ^ _fingerprint((value.dtype, tuple(value.shape)))


def _shown(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a {_name(value.dtype)} tensor of shape {tuple(value.shape)} with fingerprint {_fingerprint(value):x}"
    return f"{value!s:.200}"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _bytes(x: Tensor) -> Tensor:
    return x.contiguous().view(-1).view(torch.uint8)


Branch = tuple[int, int]
"""The first block of a branch of the tree, and how many it spans: a power of two; blocks beyond the last are none."""


def _branches(share: range, total: int) -> list[Branch]:
    """The largest branches of the tree over ``total`` blocks that hold blocks of ``share`` alone."""
    found: list[Branch] = []
    first = share.start
    while first < share.stop:
        span = first & -first or 1 << (total - 1).bit_length()
        while min(first + span, total) > share.stop:
            span //= 2
        found.append((first, span))
        first += span
    return found


def _tree_sum(branch: Branch, total: int, known: dict[Branch, Tensor]) -> Tensor:
    """The sum of a branch from branches that are known."""
    if branch in known:
        return known[branch]
    first, half = branch[0], branch[1] // 2
    left = _tree_sum((first, half), total, known)
    return left if first + half >= total else left + _tree_sum((first + half, half), total, known)
