"""Small operations with obvious answers, and the means to write right and wrong implementations."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from boltzbench.harness.api.operations import Case, Cost, Expected, Implementation, Inputs, Operation, Tensors
from boltzbench.harness.api.records import Measurement
from boltzbench.harness.timing.stopwatch import Stopwatch
from torch import Tensor

CPU = torch.device("cpu")

Body = Callable[[Inputs, Tensors], Tensors | None]
"""What one launch does. It returns the results; None stands for ``outputs``."""


def implementation(body: Body, *, operation: str = "scale", backend: str = "torch") -> Implementation:
    """An implementation that prepares nothing and runs ``body`` in each launch."""

    def prepare(inputs: Inputs, outputs: Tensors) -> Callable[[], Tensors]:
        def launch() -> Tensors:
            result = body(inputs, outputs)
            return outputs if result is None else result

        return launch

    return prepared_by(prepare, operation=operation, backend=backend)


def prepared_by(prepare: Any, *, operation: str = "scale", backend: str = "torch") -> Implementation:
    return Implementation(operation=operation, name="candidate", backend=backend, prepare=prepare)


def element(tensor: Tensor, places: int) -> Tensor:
    """The memory that lies ``places`` elements from the tensor's start, inside of it or not."""
    return tensor.as_strided((1,), (1,), tensor.storage_offset() + places)


def case(operation: str = "scale", scenario: str = "", dtype: str = "float32", **sizes: int) -> Case:
    return Case(operation=operation, sizes=sizes or {"rows": 5, "columns": 7}, dtype=dtype, scenario=scenario)


# y = 3 x, for x in every layout that torch knows -----------------------------------------------------------


def _scale_inputs(case: Case, device: torch.device) -> Inputs:
    rows, columns = case.sizes["rows"], case.sizes["columns"]
    generator = torch.Generator(device).manual_seed(case.seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=device).to(case.torch_dtype)

    layouts: Mapping[str, Callable[[], Tensor]] = {
        "": lambda: draw(rows, columns),
        "sliced": lambda: draw(rows, 2 * columns + 3)[:, 3::2],
        "transposed": lambda: draw(columns, rows).T,
        "expanded rows": lambda: draw(1, columns).expand(rows, columns),
        "one number": lambda: draw(1, 1).expand(rows, columns),
        "unaligned": lambda: draw(rows * columns + 1)[1:].view(rows, columns),
        "windows": lambda: draw(rows + columns).as_strided((rows, columns), (1, 1)),
    }
    return {"x": layouts[case.scenario](), "factor": 3.0}


def scale_with(
    make_output: Callable[[Tensor], Tensor] = torch.empty_like, bound: float | Tensor = 1e-6, **replaced: Any
) -> Operation:
    """``y = factor x``. ``make_output`` makes y's memory; ``replaced`` overrides fields of the operation."""
    fields: dict[str, Any] = {
        "name": "scale",
        "summary": "",
        "formula": "y = 3 x",
        "source": "",
        "kind": "map",
        "cases": (case(),),
        "make_inputs": _scale_inputs,
        "make_outputs": lambda inputs: {"y": make_output(inputs["x"])},
        "reference": lambda inputs, outputs: {"y": Expected(inputs["x"].double() * inputs["factor"], bound)},
        "cost": lambda case: Cost(items=35, unit="elements", bytes_read=140, bytes_written=140, flops=35),
    }
    return Operation(**fields | replaced)


def gappy(x: Tensor) -> Tensor:
    """Memory for an output with a gap after each element."""
    return torch.empty(x.shape[0], 2 * x.shape[1], dtype=x.dtype)[:, ::2]


def scale_rightly(inputs: Inputs, outputs: Tensors) -> None:
    torch.mul(inputs["x"], inputs["factor"], out=outputs["y"])


# A state advanced in place: s <- s + kick ------------------------------------------------------------------


def _kick_inputs(case: Case, device: torch.device) -> Inputs:
    generator = torch.Generator(device).manual_seed(case.seed)
    return {"state": torch.randn(6, generator=generator), "kick": torch.randn(6, generator=generator)}


KICK = Operation(
    name="kick",
    summary="",
    formula="s <- s + kick",
    source="",
    kind="sampler",
    cases=(case("kick", atoms=6),),
    make_inputs=_kick_inputs,
    make_outputs=lambda inputs: {"state": torch.empty_like(inputs["state"])},
    reference=lambda inputs, outputs: {"state": Expected(inputs["state"].double() + inputs["kick"].double(), 1e-6)},
    cost=lambda case: Cost(items=6, unit="atoms"),
)


def kick_rightly(inputs: Inputs, outputs: Tensors) -> None:
    outputs["state"].add_(inputs["kick"])


# Given values, for the rules of comparison ------------------------------------------------------------------


def constant(value: Tensor, bound: float | Tensor = 0.0, dtype: torch.dtype = torch.float32) -> Operation:
    """Its output, of dtype ``dtype``, should be ``value`` within ``bound``. There is nothing to read."""
    return scale_with(
        name="constant",
        make_inputs=lambda case, device: {},
        make_outputs=lambda inputs: {"y": torch.empty(value.shape, dtype=dtype)},
        reference=lambda inputs, outputs: {"y": Expected(value, bound)},
    )


def giving(value: Tensor) -> Implementation:
    def body(inputs: Inputs, outputs: Tensors) -> None:
        outputs["y"].copy_(value)

    return implementation(body, operation="constant")


def measure(
    operation: Operation, implementation: Implementation, case: Case, device: torch.device, **how: Any
) -> Measurement:
    """A `Stopwatch` from its start to its end."""
    stopwatch = Stopwatch(operation, implementation, case, device, **how)
    stopwatch.warm_up()
    while stopwatch.take_block():
        pass
    return stopwatch.finish()
