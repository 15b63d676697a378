"""What gets through: the README at the top says so, and these tests show that it is still so."""

from dataclasses import replace
from itertools import cycle
from typing import Any

import pytest
import torch
from boltzbench.harness import Dynamics
from boltzbench.harness.agreement.agreement import GuardedCall
from boltzbench.harness.api.operations import Agreement, Expected, Inputs, Launch, Status, Tensors
from boltzbench.harness.api.samplers import temperature_at
from boltzbench.harness.execution.plan import Step
from boltzbench.harness.execution.trial import Trial
from boltzbench.harness.execution.worker import Workers
from boltzbench.harness.timing import stopwatch
from boltzbench.harness.timing.launch_audit import LaunchAudit
from boltzbench.harness.validation.claims import Claims
from boltzbench.harness.validation.judge import validate
from support.attacks import QUICK, SCALE, FakeTime, SteadyClock, outcome
from support.small_operations import CPU, case, implementation, measure, prepared_by, scale_rightly, scale_with
from support.wrong_samplers import as_normal, gaussian, langevin, uniform_noise
from torch import Tensor

# A random stream of its own --------------------------------------------------------------------------------------

OWN = scale_with(
    formula="y = x + xi",
    kind="sampler",
    reference=lambda inputs, outputs: {"y": Expected(inputs["x"].double(), 10.0)},
    judge_draws=lambda inputs, outputs: Agreement(Status.PASSED),
)


def prepared_numbers(pool: int) -> Any:
    def prepare(inputs: Inputs, outputs: Tensors) -> Launch:
        numbers = cycle(torch.randn(pool, *inputs["x"].shape))
        return lambda: {"y": torch.add(inputs["x"], next(numbers), out=outputs["y"])}

    return replace(prepared_by(prepare), own_stream=True)


def test_the_same_numbers_of_its_own_stream_in_every_launch_are_noticed() -> None:
    (suspicion,) = outcome(prepared_numbers(1), OWN).suspicions
    assert suspicion == "each launch drew the same random numbers: they may have been drawn in advance"


def test_a_pool_of_numbers_of_its_own_stream_gets_through() -> None:
    found = outcome(prepared_numbers(64), OWN)
    assert (found.agreement.passed, found.suspicions) == (True, ())


# Results that vary -----------------------------------------------------------------------------------------------


def test_a_wrong_launch_between_checked_ones_gets_through_where_results_vary() -> None:
    """It writes its outputs. Where results do not vary, every launch is compared: see `test_launch_audit`."""
    generator, turns = torch.Generator().manual_seed(0), iter([False] * 24 + [True] + [False] * 100)

    def body(inputs: Inputs, outputs: Tensors) -> None:
        scale_rightly(inputs, outputs)
        outputs["y"].add_(1e-7 * torch.rand(outputs["y"].shape, generator=generator))
        if next(turns):
            outputs["y"].zero_()

    audit = LaunchAudit(scale_with(bound=1e-5), implementation(body), case(), CPU)
    for launches in (1,) * 20 + (9,):
        for _ in range(launches):
            audit.restore()
            audit.launch()
            audit.fingerprint()
        audit.compare()
    audit.judge_last()
    assert not next(turns)
    assert audit.suspicion is None


# Small gains, and few samples --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("gain", "seconds"), [(1.15, 1e-3), (2, 3.5e-6)])
def test_results_kept_by_content_get_through_with_a_small_gain(gain: float, seconds: float) -> None:
    host = FakeTime()
    answers: dict[bytes, Tensor] = {}

    def body(inputs: Inputs, outputs: Tensors) -> None:
        key = inputs["x"].numpy().tobytes()
        host.spend(seconds / gain if key in answers else seconds)
        outputs["y"].copy_(answers.setdefault(key, inputs["x"] * inputs["factor"]))

    assert outcome(implementation(body), clock=host.clock()).suspicions == ()


def test_results_kept_by_content_get_through_with_few_samples() -> None:
    """Three of ten samples are on new values: chance would make these the slowest once in 120 times."""
    host = FakeTime()
    answers: dict[bytes, Tensor] = {}

    def body(inputs: Inputs, outputs: Tensors) -> None:
        key = inputs["x"].numpy().tobytes()
        host.spend(0.1 if key in answers else 0.5)
        outputs["y"].copy_(answers.setdefault(key, inputs["x"] * inputs["factor"]))

    protocol = replace(QUICK, most_samples=10)
    found = measure(SCALE, implementation(body), case(), CPU, protocol=protocol, clock=host.clock())
    assert found.suspicions == ()


# A forger ----------------------------------------------------------------------------------------------------------


def test_a_forger_who_also_replaces_the_alarm_gets_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """Code in the process of the harness can replace anything there."""

    class Clock(SteadyClock):
        pass

    def prepare(inputs: Inputs, outputs: Tensors) -> Launch:
        honest = Clock.sample
        monkeypatch.setattr(stopwatch, "replaced_functions", list)
        monkeypatch.setattr(Clock, "sample", lambda self, work, count: [1e-3 * x for x in honest(self, work, count)])
        return lambda: {"y": torch.mul(inputs["x"], inputs["factor"], out=outputs["y"])}

    assert measure(SCALE, prepared_by(prepare), case(), CPU, protocol=QUICK, clock=Clock()).suspicions == ()


def test_a_forger_who_replaces_the_verdict_gets_through_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """No referee shares the memory of a GPU: a worker there runs `Trial.verdict` on itself, as this process does."""

    def prepare(inputs: Inputs, outputs: Tensors) -> Launch:
        monkeypatch.setattr(GuardedCall, "judge", lambda self, result: Agreement(Status.PASSED, error=0.0, bound=1.0))
        return lambda: {"y": outputs["y"].zero_()}

    assert Trial(Step(SCALE, prepared_by(prepare), case(), 0), CPU).verdict(draws=1).passed
    for device, referees in (("cpu", True), ("cuda:0", False)):
        workers = Workers.__new__(Workers)
        workers._device = torch.device(device)
        assert workers.has_referees is referees


# Samplers ----------------------------------------------------------------------------------------------------------


def test_a_sampler_that_replaces_its_judge_gets_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """`validate` judges in the process that holds the sampler."""

    def init(target: Any, x: Tensor, seed: int, first_chain: int) -> Any:
        honest = Claims.judged
        monkeypatch.setattr(
            Claims, "judged", lambda self: [replace(each, status=Status.PASSED) for each in honest(self)]
        )
        return {"x": x}

    idle = replace(langevin(), init=init, advance=lambda state, steps, temperature: state)
    claims = validate(idle, gaussian(), CPU, 3, chains=400)
    assert {each.status for each in claims} == {Status.PASSED}


def test_exact_draws_by_the_targets_own_law_get_through() -> None:
    """A sampler is given the target. One that knows its law and draws from it is right, and as quick as can be."""

    def advance(state: Any, steps: int, temperature: Any) -> Any:
        for number in range(steps):
            t = temperature_at(temperature, number)
            t = t[:, None].double() if isinstance(t, Tensor) else t
            spread = (t / state["target"].parameters["stiffness"].double()) ** 0.5
            drawn = spread * as_normal(uniform_noise(state))[:, :2]
            state = {**state, "x": drawn.to(state["x"]), "step": state["step"] + 1}
        return state

    oracle = replace(langevin(), advance=advance, dynamics=lambda target: Dynamics())
    claims = validate(oracle, gaussian(), CPU, 3, chains=4000)
    assert {each.status for each in claims} <= {Status.PASSED, Status.UNAVAILABLE}
