"""Two kernels side by side, and whether the second is worse: for the records that `inspect` writes as JSON."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import log
from typing import Any

from .prediction import SPREAD, WITHIN

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Difference:
    """One line of the comparison. ``worse`` is by how much the new value is worse: 0.05 for 5 %, or 0."""

    what: str
    base: str
    new: str
    worse: float = 0.0

    def fails(self, bound: float) -> bool:
        return self.worse > bound


def identity(record: Record) -> tuple[str, ...]:
    """What names a kernel in both files."""
    return tuple(str(record.get(name, "")) for name in ("operation", "implementation", "arch", "case"))


def instructions_per_item(record: Record) -> float:
    """Of the hot path."""
    return sum(record["mix"].values()) / record["items"] if record["items"] else 0.0


def differences(base: Record, new: Record) -> list[Difference]:
    """All that can be compared. A kernel gets worse by more instructions per item, more registers, more spilled bytes
    or a lower expected rate. New spills are infinitely worse, and so is a kernel that no longer compiles."""
    if "error" in (base["status"], new["status"]):
        worse = float("inf") if new["status"] == "error" and base["status"] != "error" else 0.0
        return [Difference("status", base["status"], new["status"], worse)]
    found = []
    same_items = base.get("unit") == new.get("unit")
    spilled = [float(each["stack_bytes"] or each["local_accesses"]) for each in (base, new)]
    if same_items:
        per_item = instructions_per_item(base), instructions_per_item(new)
        found.append(_count(f"instructions per {singular(new['unit'])}", *per_item))
        for kind in sorted({*base["mix"], *new["mix"]}):
            shares = [each["mix"].get(kind, 0) / each["items"] for each in (base, new)]
            found.append(Difference(f"  {kind}", f"{shares[0]:.3g}", f"{shares[1]:.3g}"))
    found.append(_count("registers", base["registers"], new["registers"]))
    found.append(_count("spilled bytes", *spilled))
    for what in ("loads", "stores"):
        found.append(Difference(f"widest of the {what}, bytes", _widest(base[what]), _widest(new[what])))
    found.append(Difference("resident warps", str(base["warps"]), str(new["warps"])))
    before, after = base.get("prediction"), new.get("prediction")
    if before and after:
        found.append(Difference("decides", before["decides"], after["decides"]))
        if same_items:
            slower = _more(after["rate"], before["rate"])
            found.append(
                Difference(f"expected {new['unit']}/s", f"{before['rate']:.3g}", f"{after['rate']:.3g}", slower)
            )
    return found


def singular(unit: str) -> str:
    """``item`` for ``items``."""
    return "pass" if unit == "passes" else unit.removesuffix("s")


def verdict(base: Record, new: Record) -> str:
    """Whether the model can tell the two apart: its error is that of a group, and smaller between similar kernels."""
    was, is_now = base.get("prediction"), new.get("prediction")
    if not (was and is_now) or base.get("unit") != new.get("unit"):
        return ""
    ratio = is_now["rate"] / was["rate"]
    if abs(ratio - 1) < 0.02:
        return "The model expects the same rate of both, within 2 %."
    words = f"The model expects {ratio:.2f} times the rate of the base"
    known = abs(log(ratio)) > WITHIN * SPREAD
    return f"{words}{'' if known else ', which is within its error of a single kernel'}."


def _count(what: str, was: float, is_now: float) -> Difference:
    return Difference(what, f"{was:.3g}", f"{is_now:.3g}", _more(was, is_now))


def _more(was: float, is_now: float) -> float:
    if is_now <= was:
        return 0.0
    return is_now / was - 1 if was else float("inf")


def _widest(widths: Mapping[Any, int]) -> str:
    return str(max((int(width) for width in widths), default="-"))
