"""The baseline ``torch_compile``: torch code that ``torch.compile`` turns into fused kernels.

The code is written for the compiler. In samplers, each element computes its own words of the suite's random stream, so
that only states and parameters pass through memory. The seed is a constant of the compiled code. The position in the
stream is a tensor: with a constant, the compiler spends half a minute on folding the random words.

Compilation takes seconds, so only sizes that are timed are compiled.
"""

import importlib.util
import math
from collections.abc import Callable
from dataclasses import astuple
from functools import partial
from types import FunctionType
from typing import Any

import torch
from boltzbench.harness import Implementation, Inputs, Launch, Tensors, Unsupported, hookimpl
from boltzbench.kernels.common.triton_runtime import missing_compiler, missing_headers
from boltzbench.kernels.generalised_cross_entropy import reference as cross_entropy_reference
from boltzbench.kernels.logsumexp import reference as logsumexp_reference
from boltzbench.kernels.philox import Stream, fractions, philox4x32, polar, uniforms
from boltzbench.kernels.rbm_free_energy import reference as free_energy_reference
from boltzbench.kernels.rbm_gibbs import probabilities
from boltzbench.kernels.rbm_gradient import hidden_probabilities, statistics
from boltzbench.kernels.sgld import Numbers, computing_dtype, updated
from boltzbench.kernels.thermodynamics import reference as thermodynamics_reference
from torch import Tensor

BOLTZBENCH_API = 1

SMALLEST = 1 << 17
"""Fewest elements of a compiled log-sum-exp, loss or Langevin update, or walkers."""
SMALLEST_MACHINE = 1 << 12
"""Fewest weights of a compiled machine."""
SMALLEST_BATCH = 64
"""Fewest chains of a compiled batch."""


def unavailable(device: torch.device) -> str | None:
    """Why torch.compile does not work for ``device``, or None. Compiled GPU code needs a C++ compiler for launches."""
    user = "torch.compile"
    if reason := missing_compiler(user, "C++", "CXX", ("clang++", "g++")) or missing_headers(user):
        return reason
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        return "torch.compile needs Triton, which is not installed: install triton"
    return None


def compiled(function: Callable[..., None]) -> Callable[..., None]:
    """A compiled copy of ``function``.

    Dynamo compiles a code object eight times at most, and runs it uncompiled from then on. So each call here copies the
    code object, and ``fullgraph`` raises an error if something cannot be compiled. Numbers such as the seed stay
    constants, since code for a seed of any value does not compile on a CPU.
    """
    copy = FunctionType(function.__code__.replace(), function.__globals__, function.__name__, function.__defaults__)
    optimised: Callable[..., None] = torch.compile(copy, fullgraph=True, dynamic=False)
    return optimised


def _launching(
    outputs: Tensors, function: Callable[..., None], *arguments: Any, first: Callable[[], None] = lambda: None
) -> Launch:
    """The launch, after a first call that compiles outside of the timed region. Each calls ``first``."""

    def launch() -> Tensors:
        first()
        function(*arguments)
        return outputs

    launch()
    return launch


def _require_size(size: int, smallest: int, what: str) -> None:
    if size < smallest:
        raise Unsupported(f"too small to compile: at least {smallest} {what} are needed")


def prepare_logsumexp(inputs: Inputs, outputs: Tensors) -> Launch:
    x, dim, beta = inputs["x"], inputs["dim"], inputs["beta"]
    _require_size(x.numel(), SMALLEST, "elements")
    if "grad" in inputs:
        backward = compiled(logsumexp_reference.backward)
        return _launching(
            outputs, backward, inputs["grad"], x, inputs["log_total"], inputs["peak"], dim, beta, outputs["dx"]
        )
    return _launching(outputs, compiled(logsumexp_reference.forward), x, dim, beta, outputs["y"], None, None)


def prepare_thermodynamics(inputs: Inputs, outputs: Tensors) -> Launch:
    _require_size(inputs["x"].numel(), SMALLEST, "elements")
    arguments = (inputs["x"], inputs["dim"], inputs["beta"], outputs["log_z"], outputs["energy"], outputs["variance"])
    return _launching(outputs, compiled(thermodynamics_reference.forward), *arguments)


def prepare_generalised_cross_entropy(inputs: Inputs, outputs: Tensors) -> Launch:
    logits, labels = inputs["logits"], inputs["labels"]
    _require_size(logits.numel(), SMALLEST, "elements")
    numbers = (1, inputs["q"], inputs["ignore_index"])
    if "grad" in inputs:
        backward = compiled(cross_entropy_reference.backward)
        rows = (logits, labels, inputs["log_total"], inputs["peak"])
        return _launching(outputs, backward, inputs["grad"], *rows, *numbers, outputs["dlogits"])
    forward = compiled(cross_entropy_reference.forward)
    return _launching(outputs, forward, logits, labels, *numbers, *outputs.values())


def prepare_free_energy(inputs: Inputs, outputs: Tensors) -> Launch:
    _require_size(inputs["weights"].numel(), SMALLEST_MACHINE, "weights")
    names = ("states", "weights", "visible_bias", "hidden_bias", "beta")
    arguments = (inputs[name] for name in names)
    return _launching(outputs, compiled(free_energy_reference.forward), *arguments, outputs["free_energy"])


def prepare_rbm_gradient(inputs: Inputs, outputs: Tensors) -> Launch:
    _require_size(inputs["weights"].numel(), SMALLEST_MACHINE, "weights")
    tensors = (inputs["data"], inputs["model"], inputs.get("data_hidden"), inputs.get("model_hidden"))
    return _launching(
        outputs, compiled(_rbm_gradient), *tensors, inputs["weights"], inputs["hidden_bias"], inputs["beta"],
        *outputs.values(),
    )  # fmt: skip


def _rbm_gradient(
    data: Tensor, model: Tensor, data_hidden: Tensor | None, model_hidden: Tensor | None, weights: Tensor,
    hidden_bias: Tensor, beta: float, weights_out: Tensor, visible_out: Tensor, hidden_out: Tensor,
) -> None:  # fmt: skip
    found = []
    for visible, given in ((data, data_hidden), (model, model_hidden)):
        if given is None:
            hidden = hidden_probabilities(visible, weights.to(torch.float32), hidden_bias.to(torch.float32), beta)
        else:
            hidden = given.to(torch.float32)
        found.append(statistics(visible, hidden))
    for tensor, of_data, of_model in zip((weights_out, visible_out, hidden_out), *found, strict=True):
        tensor.copy_(of_data - of_model)


def prepare_gibbs(inputs: Inputs, outputs: Tensors) -> Launch:
    _require_size(inputs["weights"].numel(), SMALLEST_MACHINE, "weights")
    _require_size(len(inputs["states"]), SMALLEST_BATCH, "chains")
    if "clamped" in inputs:
        raise Unsupported("compiled without clamped units, which no timed case has")
    tensors = (inputs["states"], inputs["weights"], inputs["visible_bias"], inputs["hidden_bias"])
    results = (outputs["visible"], outputs["hidden"], outputs["hidden_probability"])
    place = torch.tensor([int(inputs["first_sweep"]), inputs["first_chain"]], device=inputs["states"].device)
    numbers = (inputs["sweeps"], inputs["beta"], inputs["seed"])

    def move_on() -> None:
        place[0] = inputs["first_sweep"]

    return _launching(outputs, compiled(_gibbs), *tensors, *results, place, *numbers, first=move_on)


def _gibbs(
    states: Tensor, weights: Tensor, visible_bias: Tensor, hidden_bias: Tensor,
    visible_out: Tensor, hidden_out: Tensor, probability_out: Tensor,
    place: Tensor, sweeps: int, beta: float, seed: int,
) -> None:  # fmt: skip
    """``place`` holds the first sweep and the first chain."""
    wide, b, c = (part.to(torch.float32) for part in (weights, visible_bias, hidden_bias))
    visible = states
    for sweep in range(sweeps):
        p = probabilities(visible, wide, c, beta)
        hidden = (_unit_uniforms(p, place, sweep, Stream.HIDDEN, seed) < p).to(torch.uint8)
        p = probabilities(hidden, wide.t(), b, beta)
        visible = (_unit_uniforms(p, place, sweep, Stream.VISIBLE, seed) < p).to(torch.uint8)
    hidden_out.copy_(hidden)
    visible_out.copy_(visible)
    probability_out.copy_(probabilities(visible, wide, c, beta))


def _unit_uniforms(like: Tensor, place: Tensor, sweep: int, stream: Stream, seed: int) -> Tensor:
    """Like ``rbm_gibbs.reference.draw_uniforms``, element by element, in the shape of ``like``."""
    chains, units = like.shape
    chain = torch.arange(chains, device=like.device)[:, None] + place[1]
    unit = torch.arange(units, device=like.device)
    w = philox4x32(_counter(chain * ((units + 3) // 4) + (unit >> 2), place[0] + sweep, int(stream)), seed)
    odd, second = (unit & 1) != 0, (unit & 2) != 0
    return uniforms(torch.where(second, torch.where(odd, w[3], w[2]), torch.where(odd, w[1], w[0])))


def _counter(group: Tensor, step: Tensor, purpose: int | Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The four counter words of `boltzbench.kernels.philox`."""
    zero = torch.zeros_like(group)
    return group & 0xFFFFFFFF, (group >> 32) & 0xFFFFFFFF, zero + step, zero + purpose


def _normal_numbers(index: Tensor, step: Tensor, purpose: int | Tensor, seed: int, dtype: torch.dtype) -> Tensor:
    """The normal number of each index: like `boltzbench.kernels.philox.normals`, element by element."""
    w = philox4x32(_counter(index >> 2, step, purpose), seed)
    second = (index & 2) != 0
    first_word, second_word = torch.where(second, w[2], w[0]), torch.where(second, w[3], w[1])
    radius, angle = polar(fractions(first_word, dtype), second_word)
    return radius * torch.where((index & 1) != 0, torch.sin(angle), torch.cos(angle))


def prepare_langevin(state: str, inputs: Inputs, outputs: Tensors) -> Launch:
    """One kernel call for each tensor; with several tensors, dynamic sizes let one compilation serve them all.

    ``state`` is the name of V or p of each parameter, or empty.
    """
    count = sum(name.startswith("parameter_") for name in outputs)
    if inputs.get("rounding", "nearest") != "nearest":
        raise Unsupported("compiled with rounding to nearest")
    parameters = [outputs[f"parameter_{number}"] for number in range(count)]
    _require_size(sum(x.numel() for x in parameters), SMALLEST, "elements")
    update, numbers = compiled(_langevin), _numbers(state, inputs)
    updates = []
    for number, x in enumerate(parameters):
        g = inputs[f"gradient_{number}"]
        if not g.is_contiguous():
            raise Unsupported("compiled for contiguous gradients")
        flat = [x.view(-1), g.view(-1), *([outputs[f"{state}_{number}"].view(-1)] if state else [])]
        if count > 1:
            for tensor in flat:
                torch._dynamo.mark_dynamic(tensor, 0)
        place = torch.tensor([inputs["step"], int(Stream.NOISE) | number << 8], device=x.device)
        updates.append((*flat[:2], flat[2] if state else None, place, inputs["seed"], *astuple(numbers)))

    def update_all() -> None:
        for arguments in updates:
            arguments[3][0] = inputs["step"]
            update(*arguments)

    return _launching(outputs, update_all)


def _numbers(state: str, inputs: Inputs) -> Numbers:
    step_size, scale = inputs["step_size"], math.sqrt(inputs["step_size"] * inputs["temperature"])
    if state == "square":
        decay = inputs["decay"]
        return Numbers("preconditioned", 0.5 * step_size, scale, decay, 1 - decay, inputs["damping"])
    if state == "momentum":
        friction = inputs["friction"]
        return Numbers("hamiltonian", step_size, math.sqrt(2 * friction) * scale, keep=1 - friction)
    return Numbers("langevin", 0.5 * step_size, scale)


def _langevin(x: Tensor, g: Tensor, state: Tensor | None, place: Tensor, seed: int, *numbers: Any) -> None:
    """``place`` holds the step, and the stream with the tensor's number."""
    wide = computing_dtype(x.dtype)
    xi = _normal_numbers(torch.arange(x.numel(), device=x.device), place[0], place[1], seed, wide)
    moved, new_state = updated(x.to(wide), g.to(wide), x if state is None else state, xi, Numbers(*numbers))
    x.copy_(moved)
    if state is not None:
        state.copy_(new_state)


def prepare_annealed_langevin(inputs: Inputs, outputs: Tensors) -> Launch:
    """One kernel call for each step: schedules are too long to compile whole."""
    x, temperatures, level = outputs["moved"], inputs["temperatures"], inputs["threshold"]
    _require_size(x.numel(), SMALLEST, "walkers")
    step, earlier = compiled(_walk), inputs.get("passages")
    passages = outputs.get("passed")
    level = None if level is None else float(torch.tensor(level, dtype=torch.float32))
    steps = torch.arange(len(temperatures), device=x.device)
    table = torch.stack((steps, torch.full_like(steps, inputs["first_walker"])), 1)
    places = table.unbind()
    constants = (-2.0 * inputs["step_size"], level, inputs["seed"])

    def walk() -> None:
        torch.add(steps, inputs["first_step"], out=table[:, 0])
        x.copy_(inputs["x"])
        if passages is not None:
            passages.copy_(torch.tensor(-1) if earlier is None else earlier)
        scales = torch.sqrt(inputs["step_size"] * temperatures).float()
        for place, scale in zip(places, scales.unbind(), strict=True):
            step(x, passages, place, scale, *constants)

    return _launching(outputs, walk)


def _walk(
    x: Tensor, passages: Tensor | None, place: Tensor, scale: Tensor, factor: float, threshold: float, seed: int
) -> None:
    """``place`` holds the step and the first walker."""
    walker = torch.arange(x.numel(), device=x.device) + place[1]
    xi = _normal_numbers(walker, place[0], int(Stream.WALKERS), seed, torch.float32)
    moved = x + (factor * x) * (x * x - 1.0) + scale * xi
    if passages is not None:
        first = (passages < 0) & (moved >= threshold)
        passages.copy_(torch.where(first, place[0] + 1, passages))
    x.copy_(moved)


PREPARE: dict[str, Callable[[Inputs, Tensors], Launch]] = {
    "annealed_langevin": prepare_annealed_langevin,
    "generalised_cross_entropy": prepare_generalised_cross_entropy,
    "logsumexp": prepare_logsumexp,
    "rbm_free_energy": prepare_free_energy,
    "rbm_gibbs": prepare_gibbs,
    "rbm_gradient": prepare_rbm_gradient,
    "psgld": partial(prepare_langevin, "square"),
    "sghmc": partial(prepare_langevin, "momentum"),
    "sgld": partial(prepare_langevin, ""),
    "thermodynamics": prepare_thermodynamics,
}


@hookimpl
def register_implementations(register: Callable[[Implementation], None]) -> None:
    for operation, prepare in PREPARE.items():
        register(Implementation(operation, "torch_compile", "torch", prepare, unavailable))
