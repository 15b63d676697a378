"""Honest implementations that do what cheats do, too: they pass, and nothing is flagged."""

import pytest
import torch
from boltzbench.harness.api.operations import Case, Implementation, Inputs, Launch, Operation, Tensors
from support.attacks import SCALE, FakeTime, audit_on_the_stack, outcome
from support.replay import Recorder
from support.small_operations import KICK, case, implementation, kick_rightly, prepared_by, scale_rightly


def in_one_buffer_of_its_own(inputs: Inputs, outputs: Tensors) -> Launch:
    """Every launch returns the same tensor, which is not the harness's."""
    buffer = torch.empty_like(inputs["x"])
    return lambda: {"y": torch.mul(inputs["x"], inputs["factor"], out=buffer)}


def in_views_of_a_buffer(inputs: Inputs, outputs: Tensors) -> Launch:
    """The result and its scratch memory share one allocation."""
    both = torch.empty(2, *inputs["x"].shape)

    def launch() -> Tensors:
        both[0].copy_(inputs["x"])
        torch.mul(both[0], inputs["factor"], out=both[1])
        return {"y": both[1]}

    return launch


def in_two_buffers_in_turn(inputs: Inputs, outputs: Tensors) -> Launch:
    buffers = [torch.empty_like(inputs["x"]) for _ in range(2)]

    def launch() -> Tensors:
        buffers.reverse()
        return {"y": torch.mul(inputs["x"], inputs["factor"], out=buffers[0])}

    return launch


def with_memory_allocated_at_the_first_launch(inputs: Inputs, outputs: Tensors) -> Launch:
    made: dict[str, torch.Tensor] = {}

    def launch() -> Tensors:
        if "buffer" not in made:
            made["buffer"] = torch.empty_like(inputs["x"])
        made["buffer"].copy_(inputs["x"])
        torch.mul(made["buffer"], inputs["factor"], out=outputs["y"])
        return outputs

    return launch


def tuned_at_the_first_launch(inputs: Inputs, outputs: Tensors) -> Launch:
    """The first launch runs every plan several times."""
    plans = [lambda: torch.mul(inputs["x"], inputs["factor"], out=outputs["y"]), lambda: scale_rightly(inputs, outputs)]
    chosen: list[int] = []

    def launch() -> Tensors:
        if not chosen:
            for plan in plans * 3:
                plan()
            chosen.append(1)
        plans[chosen[0]]()
        return outputs

    return launch


def as_a_graph_of_its_own(inputs: Inputs, outputs: Tensors) -> Launch:
    """Captured in `prepare`, replayed in each launch, on copies of the inputs at fixed addresses."""
    given = inputs["x"].clone()
    with Recorder() as recorder:
        result = torch.mul(given, inputs["factor"])

    def launch() -> Tensors:
        given.copy_(inputs["x"])
        recorder.replay()
        outputs["y"].copy_(result)
        return outputs

    return launch


def compiled_to_fixed_numbers(inputs: Inputs, outputs: Tensors) -> Launch:
    """Numbers that do not move on may be read in `prepare`."""
    factor, x = inputs["factor"], inputs["x"]
    return lambda: {"y": torch.mul(x, factor, out=outputs["y"])}


def with_garbage(inputs: Inputs, outputs: Tensors) -> Launch:
    def launch() -> Tensors:
        ring: list[object] = []
        ring.append(ring)
        scale_rightly(inputs, outputs)
        return dict(outputs)

    return launch


HONEST = (
    in_one_buffer_of_its_own, in_views_of_a_buffer, in_two_buffers_in_turn, with_memory_allocated_at_the_first_launch,
    tuned_at_the_first_launch, as_a_graph_of_its_own, compiled_to_fixed_numbers, with_garbage,
)  # fmt: skip


def require_clean(candidate: Implementation, operation: Operation, where: Case, mode: str) -> None:
    found = outcome(candidate, operation, where, mode=mode)
    assert found.agreement.passed, found.agreement.message
    assert found.suspicions == ()


@pytest.mark.parametrize("mode", ["cold", "hot"])
@pytest.mark.parametrize("prepare", HONEST, ids=lambda each: each.__name__)
def test_honest_work_is_not_flagged(prepare: object, mode: str) -> None:
    require_clean(prepared_by(prepare), SCALE, case(), mode)


@pytest.mark.parametrize("scenario", ["sliced", "transposed", "expanded rows", "one number", "unaligned", "windows"])
def test_inputs_of_every_layout_are_rewritten(scenario: str) -> None:
    require_clean(implementation(scale_rightly), SCALE, case(scenario=scenario, rows=5, columns=7), "cold")


@pytest.mark.parametrize("mode", ["cold", "hot"])
def test_a_state_in_place(mode: str) -> None:
    require_clean(implementation(kick_rightly, operation="kick"), KICK, case("kick", atoms=6), mode)


def test_a_slow_first_launch_of_every_block_is_not_taken_for_a_cache() -> None:
    """Clock rates drop during a full check. New values come up at random places of a block."""
    for _ in range(20):
        host = FakeTime()

        def after_a_pause(inputs: Inputs, outputs: Tensors, host: FakeTime = host) -> None:
            audit = audit_on_the_stack()
            host.spend(2e-3 if audit and audit._place == 1 else 5e-4)
            scale_rightly(inputs, outputs)

        assert outcome(implementation(after_a_pause), clock=host.clock()).suspicions == ()
