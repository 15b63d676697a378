"""Samplers of other libraries. Each uses its own random stream, so the law of its draws is tested.

- ``bernoulli_rbm`` (``rbm_gibbs``): `sklearn.neural_network.BernoulliRBM`, NumPy on the CPU.
- ``thrml`` (``rbm_gibbs``): block Gibbs of thrml, in JAX on the CPU. It samples spins -1 and 1 on any graph; the exact
  mapping of a machine is J = W / 4, fields b / 2 + sum_j W / 4 and c / 2 + sum_i W / 4.
- ``torchebm`` (``sgld``): the Euler-Maruyama step of torchebm's Langevin sampler, tensor by tensor.
- ``blackjax`` (``sgld``): blackjax's SGLD kernel for all tensors at once, compiled by JAX, on the CPU.

torchebm samples no binary units, and thrml no continuous ones. thrml returns no probabilities, so torch computes them.
JAX takes all cores. posteriors has an SGLD too, which takes no gradient: it differentiates a log density in each
update, so it cannot do the same work.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from boltzbench.harness import Implementation, Inputs, Launch, Tensors, Unsupported, hookimpl
from boltzbench.kernels.rbm_gibbs import probabilities
from boltzbench.plugins.support.libraries import own_seed, require_graph, unavailable

BOLTZBENCH_API = 1


def _require_plain_machine(inputs: Inputs) -> None:
    if "clamped" in inputs:
        raise Unsupported("it cannot clamp single units of a layer")
    if inputs["weights"].dtype is not torch.float32:
        raise Unsupported("it has no 16-bit weights")
    if not inputs["states"].numel() or not inputs["weights"].numel():
        raise Unsupported("it takes no empty batch or layer")


def prepare_bernoulli_rbm(inputs: Inputs, outputs: Tensors) -> Launch:
    """One Gibbs step for each sweep. Each launch scales the parameters by the inverse temperature."""
    _require_plain_machine(inputs)
    import numpy as np
    from sklearn.neural_network import BernoulliRBM

    class Machine(BernoulliRBM):  # type: ignore[misc]  # scikit-learn is untyped
        """Keeps the hidden states, which ``gibbs`` draws but does not return."""

        def _sample_hiddens(self, v: Any, rng: Any) -> Any:
            self.hidden = super()._sample_hiddens(v, rng)
            return self.hidden

    machine = Machine(n_components=inputs["weights"].shape[1])
    machine.random_state_ = np.random.RandomState(own_seed(inputs, "first_sweep"))
    states, weights, visible_bias, hidden_bias = (
        inputs[name].numpy() for name in ("states", "weights", "visible_bias", "hidden_bias")
    )
    beta = np.float32(inputs["beta"])

    def scaled(parameter: Any) -> Any:
        return parameter if beta == 1 else beta * parameter

    def launch() -> Tensors:
        machine.components_ = scaled(weights).T
        machine.intercept_visible_, machine.intercept_hidden_ = scaled(visible_bias), scaled(hidden_bias)
        visible = states
        for _ in range(inputs["sweeps"]):
            visible = machine.gibbs(visible.astype(np.float32))
        outputs["visible"].numpy()[...] = visible
        outputs["hidden"].numpy()[...] = machine.hidden
        outputs["hidden_probability"].numpy()[...] = machine.transform(visible.astype(np.float32))
        return outputs

    return launch


def prepare_thrml(inputs: Inputs, outputs: Tensors) -> Launch:
    _require_plain_machine(inputs)
    require_graph(len(inputs["states"]), inputs["weights"].numel())
    import jax
    from thrml import Block, SamplingSchedule, SpinNode, sample_states
    from thrml.models import IsingEBM, IsingSamplingProgram

    visible, hidden = ([SpinNode() for _ in range(units)] for units in inputs["weights"].shape)
    pairs = [(v, h) for v in visible for h in hidden]
    blocks = [Block(hidden), Block(visible)]
    schedule = SamplingSchedule(n_warmup=inputs["sweeps"], n_samples=1, steps_per_sample=1)

    @jax.jit  # type: ignore[untyped-decorator, unused-ignore]
    def sample(key: Any, states: Any, weights: Any, visible_bias: Any, hidden_bias: Any) -> Any:
        fields = (visible_bias / 2 + weights.sum(1) / 4, hidden_bias / 2 + weights.sum(0) / 4)
        energy = IsingEBM(
            visible + hidden,
            pairs,
            jax.numpy.concatenate(fields),
            weights.flatten() / 4,
            jax.numpy.array(inputs["beta"]),
        )
        program = IsingSamplingProgram(energy, blocks, [])
        anything = jax.numpy.zeros(len(hidden), dtype=bool)  # the hidden layer is drawn first

        def one(key: Any, start: Any) -> Any:
            return sample_states(key, program, schedule, [anything, start], [], blocks)

        return jax.vmap(one)(jax.random.split(key, len(states)), states)

    keys = [jax.random.key(own_seed(inputs, "first_sweep"))]
    names = ("weights", "visible_bias", "hidden_bias")

    def launch() -> Tensors:
        keys[0], key = jax.random.split(keys[0])
        arguments = [jax.numpy.asarray(inputs[name].numpy(), copy=True) for name in names]
        drawn = sample(key, jax.numpy.asarray(inputs["states"].numpy() != 0), *arguments)
        for name, states in zip(("hidden", "visible"), drawn, strict=True):
            outputs[name].numpy()[...] = states[:, 0]
        visible_states, weights = outputs["visible"], inputs["weights"]
        p = probabilities(visible_states, weights, inputs["hidden_bias"], inputs["beta"])
        outputs["hidden_probability"].copy_(p)
        return outputs

    launch()
    return launch


def prepare_torchebm(inputs: Inputs, outputs: Tensors) -> Launch:
    """The step ``x + eps' drift + sqrt(2 eps') s xi`` with eps' = eps / 2, drift = -g and s = sqrt(T)."""
    from torchebm.integrators import EulerMaruyamaIntegrator

    noise_scale = math.sqrt(inputs["temperature"]) if inputs["temperature"] else None
    first = outputs["parameter_0"]
    generator = torch.Generator(first.device).manual_seed(own_seed(inputs, "step"))
    steps = []
    for number in range(len(outputs)):
        x, g = outputs[f"parameter_{number}"], inputs[f"gradient_{number}"]
        if x.dtype.itemsize < 4:
            raise Unsupported("it computes 16-bit parameters in 16 bits instead of float32 with one rounding")
        if not x.numel():
            raise Unsupported("it takes no empty tensor")
        integrator = EulerMaruyamaIntegrator(device=x.device, dtype=x.dtype)
        steps.append((x, integrator.step, lambda x, t, g=g: -g))

    def launch() -> Tensors:
        for x, step, drift in steps:
            state = step({"x": x}, inputs["step_size"] / 2, drift=drift, noise_scale=noise_scale, generator=generator)
            x.copy_(state["x"])
        return outputs

    return launch


def prepare_blackjax(inputs: Inputs, outputs: Tensors) -> Launch:
    """The step ``x + eps' g' + sqrt(2 eps' T) xi`` with eps' = eps / 2 and g' = -g.

    A launch ends when the new positions are there: they are JAX's arrays, which torch reads in place. JAX also reads
    the inputs in place where they begin at a multiple of 64 bytes, and copies them elsewhere.
    """
    given = [(outputs[f"parameter_{i}"], inputs[f"gradient_{i}"]) for i in range(len(outputs))]
    for x, _ in given:
        if x.dtype is not torch.float32:
            raise Unsupported("it computes in the dtype of the parameters, and JAX by default in float32 at most")
        if not x.numel():
            raise Unsupported("it takes no empty tensor")
    import jax
    from blackjax import sgld

    kernel, numbers = sgld.build_kernel(), (inputs["step_size"] / 2, inputs["temperature"])

    def downhill(position: Any, gradients: Any) -> Any:
        return [-each for each in gradients]

    @jax.jit  # type: ignore[untyped-decorator, unused-ignore]
    def step(key: Any, position: Any, gradients: Any) -> Any:
        return kernel(key, position, downhill, gradients, *numbers)

    keys = [jax.random.key(own_seed(inputs, "step"))]

    def launch() -> Tensors:
        keys[0], key = jax.random.split(keys[0])
        position, gradients = ([jax.numpy.asarray(each.numpy()) for each in of] for of in zip(*given, strict=True))
        moved = jax.block_until_ready(step(key, position, gradients))
        return {f"parameter_{i}": torch.utils.dlpack.from_dlpack(each) for i, each in enumerate(moved)}

    launch()  # compiles
    return launch


@hookimpl
def register_implementations(register: Callable[[Implementation], None]) -> None:
    for operation, name, backend, module, distribution, prepare, runs_on in (
        ("rbm_gibbs", "bernoulli_rbm", "numpy", "sklearn", "scikit-learn", prepare_bernoulli_rbm, "cpu"),
        ("rbm_gibbs", "thrml", "jax", "thrml", "thrml", prepare_thrml, "cpu"),
        ("sgld", "torchebm", "torch", "torchebm", "torchebm", prepare_torchebm, None),
        ("sgld", "blackjax", "jax", "blackjax", "blackjax", prepare_blackjax, "cpu"),
    ):
        reason = partial(unavailable, module, distribution, backend, runs_on)
        register(Implementation(operation, name, backend, prepare, reason, own_stream=True))
