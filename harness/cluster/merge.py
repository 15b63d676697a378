"""Joins the results files of shards or machines into one.

Records are read twice and written one by one: neither memory nor the time of a merge depends on the samples of more
than one. The output is replaced only when all of it is on the disk.
"""

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from ..api.messages import UsageError
from ..api.records import Outcome, Part, Record, Run, Shard, Standing
from ..results.environment import device_name, identity
from ..results.file import SCHEMA, read_records, record_lines, run_text, write_text
from ..results.parts import as_parts, folded
from ..results.slow_devices import compared_again, slow_devices

OF_DEVICE = ("device", "gpu uuid", "cpu", "cores", "threads")
"""The fields of the identity that say which device it was. The others are software."""

NAMED = 3
"""Values or files that a sentence names."""

Key = tuple[Hashable, ...]


@dataclass(frozen=True)
class Merged:
    """A merged run without its records, and their number.

    ``notes`` are differences of the parts and cases taken from the later of two files. ``gaps`` are sentences on what
    is missing.
    """

    run: Run
    records: int
    notes: tuple[str, ...]
    gaps: tuple[str, ...]


@dataclass
class _Input:
    """A file: its run, its parts, and for records, standings and outcomes the key of each; None to leave it out."""

    path: Path
    run: Run
    parts: Sequence[Part]
    keys: dict[str, list[Key | None]]


def merge(paths: Sequence[Path], out: Path, *, last_wins: bool = False) -> Merged:
    """Write the runs in ``paths`` to ``out`` as one. A merged run may be merged again.

    A case that two files hold, timed on the same kind of device, is an error, or is taken from the later of them if
    ``last_wins``. Missing and unfinished shards are gaps, and so is an interrupted run: the merged run is then
    ``incomplete``. Raises ResultsError for files that cannot be read or written, UsageError for shards of different
    plans, for cases held twice and for a file given twice; nothing is written then.
    """
    if any(path.resolve() == out.resolve() for path in paths):
        raise UsageError(f"{out} is an input and would be overwritten: give --out another name")
    given = [path.resolve() for path in paths]
    if twice := [path for place, path in enumerate(paths) if given[place] in given[:place]]:
        raise UsageError(f"{twice[0]} is given twice: name each file once")
    inputs = [_read(path) for path in paths]
    _require_one_plan(inputs)
    notes = _without_overlaps(inputs, last_wins)
    parts = compared_again([part for each in inputs for part in each.parts])
    gaps = _gaps(inputs)
    commands = [each.run.command for each in inputs]
    run = Run(
        *(SCHEMA, "complete", {}, ()),
        problems=tuple(dict.fromkeys(words for each in inputs for words in each.run.problems)),
        command=commands[0] if all(each == commands[0] for each in commands) else None,
        standings=tuple(_kept(inputs, "standings")),
        outcomes=tuple(_kept(inputs, "outcomes")),
        left_out=tuple(step for each in inputs for step in each.run.left_out),
        controls=tuple(control for each in inputs for control in each.run.controls),
    )
    run = replace(folded(run, parts), status="incomplete" if gaps else "complete")
    notes += _differences(run)
    write_text(out, run_text(run, _lines(inputs)))
    return Merged(run, sum(part.records for part in parts), tuple(notes), tuple(gaps))


def _read(path: Path) -> _Input:
    run, keys = read_records(path, _key)
    parts = as_parts(str(path), run, len(keys))
    own: dict[str, list[Key | None]] = {
        "records": [*keys],
        "standings": [*map(_key, run.standings)],
        "outcomes": [*map(_key, run.outcomes)],
    }
    for name, found in own.items():  # results on different kinds of device do not overlap
        kinds = [device_name(part.environment) for part in parts for _ in range(getattr(part, name))]
        own[name] = [(*(key or ()), kind) for key, kind in zip(found, kinds, strict=True)]
    return _Input(path, run, parts, own)


def _key(result: Record | Standing | Outcome) -> Key:
    """What two files hold in common if they hold the same; of several words the first two name it."""
    if isinstance(result, Record):
        return f"{result.operation} {result.implementation}", result.case, result.purpose
    if isinstance(result, Standing):
        return f"{result.sampler} on {result.target}", f"T = {result.temperature:g}"
    return "experiment", result.experiment


def _require_one_plan(inputs: Sequence[_Input]) -> None:
    """Raise UsageError for shards of different plans."""
    seen: tuple[Path, Shard] | None = None
    for each in inputs:
        for shard in (part.shard for part in each.parts if part.shard):
            path, first = seen = seen or (each.path, shard)
            if (shard.plan, shard.of) != (first.plan, first.of):
                raise UsageError(
                    f"shards of different plans cannot be merged: {path} is {first} of plan {first.plan}, "
                    f"{each.path} {shard} of plan {shard.plan}"
                )


def _without_overlaps(inputs: Sequence[_Input], last_wins: bool) -> list[str]:
    """Leave out of the earlier file what a later one holds too. Returns what was left out, in words.

    Raises UsageError unless ``last_wins``.
    """
    held: dict[Key, tuple[_Input, str, list[int]]] = {}
    twice: dict[tuple[Path, Path], list[Key]] = {}
    for each in inputs:
        own: dict[Key, tuple[_Input, str, list[int]]] = {}
        for name, keys in each.keys.items():
            for place, key in enumerate(keys):
                assert key is not None
                own.setdefault(key, (each, name, []))[2].append(place)
        for key in own.keys() & held.keys():
            earlier, name, places = held[key]
            twice.setdefault((earlier.path, each.path), []).append(key)
            for place in places:
                earlier.keys[name][place] = None
        held.update(own)
    words = []
    for (one, other), both in twice.items():
        example = ", ".join(map(str, min(both, key=str)[:2]))
        count = "a result is" if len(both) == 1 else f"{len(both)} results are"
        words.append(f"{count} both in {one} and in {other}, such as {example}")
    if words and not last_wins:
        raise UsageError(f"{'; '.join(words)}: leave one out, or add --last-wins to take it from the file named last")
    for each in inputs if words else ():
        each.parts = _counted_again(each)
    return [f"{each}: taken from the latter" for each in words]


def _counted_again(each: _Input) -> list[Part]:
    """The parts with the numbers of what is kept."""
    parts, begin = [], dict.fromkeys(each.keys, 0)
    for part in each.parts:
        numbers: dict[str, Any] = {}
        for name, keys in each.keys.items():
            end = begin[name] + getattr(part, name)
            numbers[name] = sum(key is not None for key in keys[begin[name] : end])
            begin[name] = end
        parts.append(replace(part, **numbers))
    return parts


def _kept(inputs: Iterable[_Input], name: str) -> Iterator[Any]:
    for each in inputs:
        for item, key in zip(getattr(each.run, name), each.keys[name], strict=True):
            if key is not None:
                yield item


def _lines(inputs: Iterable[_Input]) -> Iterator[str]:
    for each in inputs:
        # A run in progress may have got more records meanwhile: only those with a key have been read.
        for line, key in zip(record_lines(each.path), each.keys["records"], strict=False):
            if key is not None:
                yield line


def _differences(run: Run) -> list[str]:
    """Sentences on different devices and software."""
    parts = run.parts
    notes = []
    kinds: dict[str, int] = {}
    for part in parts:
        kind = device_name(part.environment)
        kinds[kind] = kinds.get(kind, 0) + part.records
    if len(kinds) > 1:
        words = ", ".join(f"{kind} ({count} records)" for kind, count in kinds.items())
        notes.append(f"{len(kinds)} kinds of device, whose times are not comparable: {words}")
    notes += slow_devices(run)
    for field in (*identity({}), "commit"):
        found: dict[str, list[str]] = {}
        for part in parts:
            value = part.environment.get("commit") if field == "commit" else identity(part.environment)[field]
            if field not in OF_DEVICE and value is not None:
                found.setdefault(str(value), []).append(part.file)
        if len(found) > 1:
            words = ", ".join(f"{value} in {_named(files)}" for value, files in found.items())
            notes.append(f"{field} differs: {words}")
    return notes


def _gaps(inputs: Sequence[_Input]) -> list[str]:
    """Sentences on missing shards, unfinished shards and interrupted runs."""
    gaps = []
    of_shard: dict[int, tuple[Shard, list[tuple[Part, _Input]], set[Key]]] = {}
    for each in inputs:
        kept = (key for key in each.keys["records"] if key is not None)
        for part in each.parts:
            own = [*islice(kept, part.records)]
            if part.shard:
                _, parts, keys = of_shard.setdefault(part.shard.number, (part.shard, [], set()))
                parts.append((part, each))
                keys.update(key[:-1] for key in own)
            elif part.status == "incomplete":
                gaps.append(f"{part.file} is incomplete")
    if of_shard:
        of = next(iter(of_shard.values()))[0].of
        if missing := [number for number in range(1, of + 1) if number not in of_shard]:
            gaps.append(f"missing of {of} shards: {', '.join(map(str, missing))}")
    for shard, parts, keys in of_shard.values():
        if shard.steps and len(keys) < shard.steps:
            found = f"{len(keys)} of {shard.steps} checks"
        elif shard.steps or any(part.status == "complete" for part, _ in parts):
            continue
        else:
            found = "interrupted"
        last, source = max(parts, key=lambda pair: pair[0].started)
        if source.run.command:
            words = f"continue it with: boltzbench bench --resume {last.file}"
        else:  # of `check` or `validate`
            words = f"run its command with --shard {shard.number}/{shard.of} again"
        gaps.append(f"{shard} is incomplete ({found}); {words}")
    return gaps


def _named(files: Sequence[str]) -> str:
    more = f" and {len(files) - NAMED} more" if len(files) > NAMED else ""
    return ", ".join(files[:NAMED]) + more
