"""Samplers of other libraries. Each uses its own random stream, so the law of its draws is tested.

- ``bernoulli_rbm`` (``rbm_gibbs``): `sklearn.neural_network.BernoulliRBM`, NumPy on the CPU.
- ``thrml`` (``rbm_gibbs``): block Gibbs of thrml, in JAX on the CPU. It samples spins -1 and 1 on any graph; the exact
  mapping of a machine is J = W / 4, fields b / 2 + sum_j W / 4 and c / 2 + sum_i W / 4.
- ``torchebm`` (``sgld``): the Euler-Maruyama step of torchebm's Langevin sampler, tensor by tensor.
- ``curand`` (``sgld``): a loop over the tensors of the suite's kind with cuRAND's Philox generators (`curand.cu`).
- ``blackjax`` (``sgld``): blackjax's SGLD kernel for all tensors at once, compiled by JAX, on the CPU.

torchebm samples no binary units, and thrml no continuous ones. thrml returns no probabilities, so torch computes them.
JAX takes all cores. posteriors has an SGLD too, which takes no gradient: it differentiates a log density in each
update, so it cannot do the same work.
"""

import functools
import math
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from boltzbench.harness import Implementation, Inputs, Launch, Tensors, Unsupported, hookimpl
from boltzbench.kernels.common.dispatch import unavailable as backend_unavailable
from boltzbench.kernels.common.variants import CudaVariant
from boltzbench.kernels.cuda_module import CudaModule
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


def curand_headers() -> tuple[Path, ...]:
    """The folders of cuRAND's headers and of what they include: those of the CUDA toolkit, or of the packages
    nvidia-curand, triton and cupy; empty if they are not there."""
    toolkits = [Path(os.environ[name], "include") for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    packages = [Path(folder) for folder in sys.path if folder]
    places = [*toolkits, *(found for each in packages for found in each.glob("nvidia/*/include"))]
    runtime = [*toolkits, *(each / "triton/backends/nvidia/include" for each in packages)]
    standard = [*toolkits, *(each / "cupy/_core/include/cupy/_cccl/libcudacxx" for each in packages)]
    wanted = (("curand_kernel.h", places), ("library_types.h", runtime), ("nv/target", standard))
    found = [next((folder for folder in folders if (folder / name).is_file()), None) for name, folders in wanted]
    return tuple(dict.fromkeys(each for each in found if each)) if all(found) else ()


def curand_unavailable(device: torch.device) -> str | None:
    """Why the kernel with cuRAND cannot run."""
    if not curand_headers():
        return "cuRAND's headers were not found: set CUDA_HOME, or pip install nvidia-curand"
    return "cuRAND needs a GPU" if device.type != "cuda" else backend_unavailable("cupy", device)


CURAND_THREADS = 256


class CurandModule(CudaModule):
    """`curand.cu`, compiled with cuRAND's headers."""

    def _keyed_options(self) -> tuple[str, ...]:
        return (*super()._keyed_options(), *(f"-I{folder}" for folder in curand_headers()))


@functools.cache
def curand_module() -> CudaModule:
    return CurandModule(Path(__file__).with_name("curand.cu"), ["update"])


def curand_variants() -> Sequence[CudaVariant]:
    if not curand_headers():
        return ()
    return [
        CudaVariant(
            name="langevin float32, with noise", threads=CURAND_THREADS, items=4, unit="parameters", bytes_per_item=12,
            access_bytes=16, module=curand_module(), kernel="update",
        )
    ]  # fmt: skip


def prepare_curand(inputs: Inputs, outputs: Tensors) -> Launch:
    """One launch for each tensor, with a generator for each thread. The seed of a launch depends on the step."""
    pairs = [(outputs[f"parameter_{i}"], inputs[f"gradient_{i}"]) for i in range(len(outputs))]
    for x, g in pairs:
        if x.dtype is not torch.float32 or not x.numel() or x.numel() % 4:
            raise Unsupported("the kernel with cuRAND takes float32 tensors of whole groups of four elements")
        if not g.is_contiguous() or (x.data_ptr() | g.data_ptr()) % 16:
            raise Unsupported("the kernel with cuRAND takes contiguous tensors that begin at multiples of 16 bytes")
    module, device = curand_module(), pairs[0][0].device
    drift = np.float32(inputs["step_size"] / 2)
    noise = np.float32(math.sqrt(inputs["step_size"] * inputs["temperature"]))

    def launch() -> Tensors:
        seed = own_seed(inputs, "step")
        for number, (x, g) in enumerate(pairs):
            quads = x.numel() // 4
            blocks = min(-(-quads // CURAND_THREADS), MOST_BLOCKS)
            module.launch(
                "update", (blocks,), (CURAND_THREADS,), [x, g, quads, drift, noise, seed, number], device=device
            )
        return outputs

    return launch


MOST_BLOCKS = 8 * 132
"""Eight blocks for each multiprocessor of an H200; each thread then loops over its elements."""


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
    register(
        Implementation(
            *("sgld", "curand", "cupy", prepare_curand, curand_unavailable), own_stream=True, variants=curand_variants
        )
    )
