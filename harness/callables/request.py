"""What the caller of `measure`, `compare` or `sweep` asks for, besides a callable and its arguments."""

import math
import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from .bounds import Bound

Mode = Literal["cold", "hot"]


@dataclass(frozen=True)
class Request:
    """The options of `measure`. Raises TypeError or ValueError for one that cannot be used, with its name."""

    reference: Callable[..., Any] | None = None
    bound: Bound | float | None = None
    bytes: float | None = None
    flops: float | None = None
    backward: bool = False
    mode: Mode = "cold"
    keep: Sequence[str] = ()
    seconds: float | None = None
    time_limit: float = 300.0
    timed: bool = True
    sizes: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.reference is not None and not callable(self.reference):
            raise TypeError(f"reference must be callable: got {reprlib.repr(self.reference)}")
        if self.bound is not None and not isinstance(self.bound, Bound):
            if not _is_number(self.bound):
                raise TypeError(
                    f"bound must be a number, or made by boltzbench.harness.bound: got {reprlib.repr(self.bound)}"
                )
            Bound(absolute=self.bound)  # raises if it is negative, infinite or NaN
        if self.bound is not None and self.reference is None:
            raise ValueError("bound needs a reference: without one no value is checked")
        if self.mode not in ("cold", "hot"):
            raise ValueError(f"mode must be 'cold' or 'hot': got {self.mode!r}")
        for name in ("bytes", "flops"):
            value = getattr(self, name)
            if value is not None and not (_is_number(value) and 0 <= value < math.inf):
                raise ValueError(f"{name} must be a finite number of at least 0: got {value!r}")
        for name in ("seconds", "time_limit"):
            value = getattr(self, name)
            if value is not None and not (_is_number(value) and 0 < value < math.inf):
                raise ValueError(f"{name} must be a positive, finite number of seconds: got {value!r}")
        if type(self.keep) is str or not all(isinstance(each, str) for each in self.keep):
            raise TypeError(f"keep must be a tuple of names of arguments: got {self.keep!r}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
