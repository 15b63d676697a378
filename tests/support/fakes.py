"""Small operations, implementations and installed plugins for the tests of the harness."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from boltzbench.harness import (
    Advance,
    Agreement,
    Case,
    Cost,
    Curve,
    Estimate,
    Expected,
    Experiment,
    Findings,
    Implementation,
    Inputs,
    Launch,
    Law,
    Operation,
    Picture,
    Plot,
    Status,
    Tensors,
)
from boltzbench.harness.api.records import Measurement
from boltzbench.harness.execution.plan import Mode, Step

if TYPE_CHECKING:  # plugins of the tests import this file, and `list` imports them: it must stay quick
    from boltzbench.harness.discovery.registry import Registry
    from boltzbench.harness.execution.trial import AnnouncePhase, Trial

CPU = torch.device("cpu")


def case(n: int = 5, operation: str = "double", dtype: str = "float32", **fields: Any) -> Case:
    return Case(operation, {"n": n}, dtype, **fields)


def operation(name: str = "double", *, cases: Sequence[Case] | None = None, **fields: Any) -> Operation:
    """y = 2 x, with two check cases, two bench cases of different presets, and a real one."""
    if cases is None:
        cases = (
            case(3),
            case(7, scenario="outliers"),
            case(64, purpose="bench"),
            case(128, purpose="bench", preset="full"),
            case(32, purpose="real", scenario="digits"),
        )
    whole = Operation(
        name=name,
        summary="Twice the input.",
        formula="y = 2 x",
        source="arithmetic",
        kind="map",
        cases=tuple(replace(each, operation=name) for each in cases),
        make_inputs=_inputs,
        make_outputs=lambda inputs: {"y": torch.empty_like(inputs["x"])},
        reference=lambda inputs, outputs: {"y": Expected(2 * inputs["x"].double(), 1e-6)},
        cost=lambda case: Cost(case.sizes["n"], "elements", 4 * case.sizes["n"], 4 * case.sizes["n"], case.sizes["n"]),
        case=lambda n, dtype="float32", scenario="": case(n, name, dtype, scenario=scenario),
    )
    return replace(whole, **fields)


def implementation(name: str = "torch", *, factor: float = 2.0, of: str = "double", **fields: Any) -> Implementation:
    """Multiplies by ``factor``: right if that is 2."""

    def prepare(inputs: Inputs, outputs: Tensors) -> Launch:
        def launch() -> Tensors:
            torch.mul(inputs["x"], factor, out=outputs["y"])
            return outputs

        return launch

    whole: dict[str, Any] = {"operation": of, "name": name, "backend": "torch", "prepare": prepare}
    return Implementation(**{**whole, **fields})


def interrupting(name: str = "zz_interrupting") -> Implementation:
    """As if the user pressed Ctrl-C while it runs."""

    def prepare(inputs: Inputs, outputs: Tensors) -> Launch:
        raise KeyboardInterrupt

    return implementation(name, prepare=prepare)


def law(name: str = "doubles one") -> Law:
    def test(advance: Advance, device: torch.device, seed: int) -> Agreement:
        y = advance({"x": torch.ones(1, device=device)})["y"]
        passed = y.item() == 2.0
        status = Status.PASSED if passed else Status.WRONG_LAW
        return Agreement(status, "" if passed else f"got {y.item()}", error=abs(y.item() - 2), bound=0.5, p_value=0.1)

    return Law(name, "Twice one is two.", test)


def experiment(name: str = "dice", *, faces: int = 6) -> Experiment:
    """The mean of dice, right for six faces; a number within a bound; and one that is only reported."""

    def run(device: torch.device, seed: int) -> Findings:
        generator = torch.Generator(device).manual_seed(seed)
        drawn = torch.randint(1, faces + 1, (6000,), generator=generator, device=device).double()
        mean, error = float(drawn.mean()), float(drawn.std()) / 6000**0.5
        estimates = (
            Estimate("mean of a die", mean, error, exact=3.5),
            Estimate("faces", faces, exact=6.0, bound=0.5),
            Estimate("most often", float(drawn.mode().values)),
        )
        curves = (
            Curve("frequency", (1.0, 6.0), (1 / 6, 1 / 6), exact=True),
            Curve("frequency", (1.0, 2.0), (0.16, 0.17), (0.005, 0.005)),
        )
        plots = (Plot("Dice", "face", "frequency", curves),)
        return Findings(estimates, plots, (Picture("A three", ((0.0, 1.0, 0.0), (0.5, 0.5, 0.5))),))

    return Experiment(name, "Do dice show three and a half?", "de Moivre 1718", run)


IMPORTS = """from boltzbench.harness import Case, Implementation, Operation, hookimpl
from support import fakes"""


def install(
    folder: Path, plugins: Mapping[str, str], distribution: str = "fake-samplers", version: str = "1.2"
) -> list[metadata.EntryPoint]:
    """Put a distribution into ``folder``, which must be on sys.path: for each plugin a module of that source.

    A source without ``BOLTZBENCH_API`` in it gets one, and the usual imports. Returns its entry points.
    """
    info = folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
    lines = ["[boltzbench]"]
    for name, source in plugins.items():
        module = f"{info.stem.replace('.', '_').replace('-', '_')}_{name}"
        source = textwrap.dedent(source)
        if "BOLTZBENCH_API" not in source:
            source = f"{IMPORTS}\n\nBOLTZBENCH_API = 1\n{source}"
        (folder / f"{module}.py").write_text(source)
        lines.append(f"{name} = {module}")
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    (found,) = (d for d in metadata.distributions(path=[str(folder)]) if d.name == distribution)
    return list(found.entry_points)


def _inputs(case: Case, device: torch.device) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(case.seed)
    return {"x": torch.randn(case.sizes["n"], generator=generator).to(device, case.torch_dtype)}


def carried_out(steps: Sequence[Step]) -> list[Any]:
    """The records of ``steps``, judged and timed (hot) in this process."""
    from boltzbench.harness.execution.session import carry_out
    from boltzbench.harness.execution.trial import Trial

    class Silent:
        step = block = done = staticmethod(lambda *arguments: None)

    records: list[Any] = []
    modes: tuple[Mode, ...] = ("hot",)
    carry_out(
        steps, CPU, lambda step: Trial(step, CPU), draws=2, modes=modes, keep=records.append, display=Silent(),
        share=lambda measurement, cost: measurement,
    )  # fmt: skip
    return records


def timed(trial: Any) -> Measurement:
    """The hot times of a trial, from its start to its end."""
    trial.start("hot")
    while trial.take_block().more:
        pass
    found: Measurement = trial.finish()
    return found


class Stopwatch:
    """A stopwatch that is done after one block and always returns the same measurement."""

    samples, noise = (1.0,), 0.0

    def __init__(self, *what: object, mode: Literal["cold", "hot"], **how: object) -> None:
        self.mode = mode

    def warm_up(self) -> None:
        pass

    def take_block(self) -> bool:
        return False

    def finish(self) -> Measurement:
        return Measurement("cpu", self.mode, (1.23e-5, 1.23e-5), 1.23e-5, 1.1e-5, 1.4e-5, 5e6, "elements", 4e9, 9.0)


class Here:
    """Replaces the workers: trials in this process, on a device with fixed limits."""

    def __init__(
        self,
        device: torch.device,
        announce: AnnouncePhase,
        time_limit: float,
        registry: Registry,
        shared: bool = False,
        threads: int = 0,
    ) -> None:
        from boltzbench.harness.discovery.axes import with_other_sizes
        from boltzbench.harness.discovery.registry import load_registry

        self.device, self.announce, self.deaths = device, announce, 0
        self.plugins = with_other_sizes(load_registry(), registry.other_sizes)

    def build(self, steps: Sequence[Step]) -> None:
        pass

    def release(self, steps: Iterable[Step]) -> None:
        pass

    def limits(self) -> tuple[dict[str, float], dict[str, float], tuple[str, ...]]:
        return {"timer": 4e-8}, {"copy": 1e10}, ()

    def reference(self) -> dict[str, float]:
        return {"copy": 1e-3}

    def answers(self) -> bool:
        return True

    def trial(self, step: Step) -> Trial:
        from boltzbench.harness.execution.plan import find_subject
        from boltzbench.harness.execution.trial import Trial

        ((operation, (implementation,)),) = self.plugins.select([step.operation.name], [step.implementation.name])
        subject = find_subject(operation, step.label, step.purpose == "law")
        return Trial(replace(step, operation=operation, implementation=implementation, subject=subject), self.device)

    def close(self) -> None:
        pass

    kill = close
