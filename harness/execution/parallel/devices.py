"""Times the cases of a run on several devices at once. All implementations of a case are timed on the same device."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from typing import Any

import torch

from ...api.operations import Cost
from ...api.records import Control, Measurement, Record, UsedDevice
from ...results.slow_devices import slower_than_peers
from .. import session
from ..child import Died
from ..plan import Mode, Step
from ..trial import TrialProtocol
from ..worker import Workers
from .lanes import CountsKept, Found, Going, LongestFirst, Queue, at_once, share_out

Share = Callable[[Measurement, Cost], Measurement]


@dataclass(frozen=True)
class DeviceLane:
    """A device, the processes that use it, and the display of its progress."""

    device: torch.device
    workers: Workers
    display: session.Display


def examine(
    lanes: Sequence[DeviceLane], gpus: Mapping[str, Mapping[str, Any] | None]
) -> tuple[list[DeviceLane], tuple[UsedDevice, ...], tuple[str, ...]]:
    """The lanes whose devices work, what is known of all devices, and problems in words.

    Times fixed work on all devices at once, and measures their limits. ``gpus`` describes them. If none works, the
    first lane remains, and its records say what is wrong.
    """
    found = {str(lane.device): UsedDevice(str(lane.device), gpus[str(lane.device)]) for lane in lanes}
    problems: list[str] = []

    def look(lane: DeviceLane, going: Going) -> None:
        try:
            reference = lane.workers.reference()
        except Died as death:
            with going:
                problems.append(f"{lane.device} does not work and is not used: {death}")
            return
        overheads, ceilings, own = lane.workers.limits()
        with going:
            name = str(lane.device)
            found[name] = replace(found[name], overheads=overheads, ceilings=ceilings, reference=reference)
            problems.extend(own)

    at_once(lanes, look)
    slow = slower_than_peers({name: each.reference for name, each in found.items() if each.reference})
    used = tuple(replace(each, slow=slow.get(name, "")) for name, each in found.items())
    working = [lane for lane in lanes if found[str(lane.device)].reference]
    return working or list(lanes[:1]), used, tuple(problems)


def carry_out(
    lanes: Sequence[DeviceLane],
    steps: Sequence[Step],
    *,
    draws: int,
    modes: Collection[Mode],
    shares: Mapping[str, Share],
    keep: Callable[[Record], None],
    keep_control: Callable[[Control], None],
    controlled: Collection[str],
    lost: Callable[[torch.device], None],
) -> None:
    """As `session.carry_out`, with a case on each device at a time. ``shares`` has the ``share`` of each device.

    ``lost`` is called with a device that no longer works; the others repeat its case.
    """
    cases = [tuple(own) for _, own in groupby(steps, key=lambda step: (step.operation.name, step.purpose, step.label))]
    claimed = dict.fromkeys(controlled, "")  # operations that have a control, or get one, and the device

    def act(lane: DeviceLane, case: Sequence[Step], going: Going, found: Found) -> None:
        name, place = case[0].operation.name, str(lane.device)
        controls: list[Control] = []
        with going:
            first = name not in claimed
            claimed.setdefault(name, place)

        def trial(step: Step) -> TrialProtocol:
            going.require()
            return lane.workers.trial(step)

        def control(each: Control) -> None:
            controls.append(each)
            found(partial(keep_control, each))

        session.carry_out(
            case,
            lane.device,
            trial,
            draws=draws,
            modes=modes,
            share=shares[place],
            keep=lambda record: found(partial(keep, record)),
            display=CountsKept(lane.display, found),
            keep_control=control if first else None,
        )
        if first and not controls:  # nothing was timed
            claimed.pop(name, None)

    def leave(lane: DeviceLane) -> None:
        for name, place in [*claimed.items()]:  # a copy: other lanes change it
            if place == str(lane.device):
                claimed.pop(name, None)
        lost(lane.device)

    choose = LongestFirst(len(lanes), lanes[0].device.type, [*modes])
    share_out(lanes, Queue(cases, len(lanes), choose), act, leave)
