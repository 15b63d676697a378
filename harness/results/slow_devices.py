"""The devices of a run that are slower than others of their kind, also across the parts of a merged run."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from statistics import median

from ..api.records import Part, Run, UsedDevice
from .environment import device_name, identity

SLOW = 0.05
"""The fraction by which a device is slower than the median of the others from which on it counts as slow."""

Seconds = Mapping[str, float]
"""The times of fixed work on a device, by the name of the work."""
Key = tuple[object, ...]


def slower_than_peers(seconds: Mapping[str, Seconds]) -> dict[str, str]:
    """In words, by how much a device is slower than the median of the others, if that is more than `SLOW`."""
    found = {
        device: _beside(own, [each for other, each in seconds.items() if other != device])
        for device, own in seconds.items()
    }
    return {device: words for device, words in found.items() if words}


def compared_again(parts: Sequence[Part]) -> list[Part]:
    """The parts of a merged run, with each device compared with all others of its kind.

    Times of the fixed work are comparable if they are of the same source and the same torch. A card in several parts
    counts once among the others, with its best times. A device whose times are unknown keeps its words.
    """
    best: dict[Key, dict[Key, Seconds]] = {}
    for part in parts:
        cards = best.setdefault(_kind(part), {})
        for each in part.devices:
            card = _card(part, each)
            cards[card] = _shortest(cards.get(card, {}), each.reference)

    def judged(part: Part, each: UsedDevice) -> UsedDevice:
        if not each.reference:
            return each
        card = _card(part, each)
        others = [seconds for other, seconds in best[_kind(part)].items() if other != card]
        return replace(each, slow=_beside(each.reference, others))

    return [replace(part, devices=tuple(judged(part, each) for each in part.devices)) for part in parts]


def slow_devices(run: Run) -> list[str]:
    """A sentence for each device of a run, or of the parts of a merged run, that is slower than others of its kind."""
    named = [(each.device, each) for each in run.devices]
    named += [(f"{each.device} of {part.file}", each) for part in run.parts for each in part.devices]
    return [f"{name} is {each.slow}" for name, each in named if each.slow]


def slow_records(run: Run) -> list[str]:
    """For each record, by how much the device that it ran on is slower than others; empty if it is not."""
    records, found = iter(run.records), list[str]()
    for count, devices in [(part.records, part.devices) for part in run.parts] or [(len(run.records), run.devices)]:
        slow = {each.device: each.slow for each in devices}
        found += [slow.get(record.device, "") for record in islice(records, count)]
    return found


def _beside(own: Seconds, others: Sequence[Seconds]) -> str:
    excess: dict[str, float] = {}
    for name, time in own.items():
        theirs = [each[name] for each in others if name in each]
        if theirs and time > (1 + SLOW) * median(theirs):
            excess[name] = time / median(theirs) - 1
    if not excess:
        return ""
    worst = max(excess, key=lambda name: excess[name])
    return f"{excess[worst]:.0%} slower than the median of the others ({worst})"


def _shortest(one: Seconds, other: Seconds) -> Seconds:
    return {**one, **{name: min(seconds, one.get(name, seconds)) for name, seconds in other.items()}}


def _kind(part: Part) -> Key:
    software = identity(part.environment)
    return device_name(part.environment), software["torch"], software["harness"]


def _card(part: Part, each: UsedDevice) -> Key:
    """The UUID of a card; without one the device of this part."""
    uuid = (each.gpu or {}).get("uuid")
    return (uuid,) if uuid else (part.file, part.started, each.device)
