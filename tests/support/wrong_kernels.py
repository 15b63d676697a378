"""Kernels that are wrong in ways that kernels go wrong, each with the verdict that the shipped check must give it.

Two kinds: an honest torch implementation with one thing spoiled, and a *mutant*, a shipped kernel file with one line
changed. Each names the case (or law) that has to catch it, so that no case is there for nothing.
"""

import importlib
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import boltzbench.kernels
import torch
from boltzbench.harness import Implementation, Inputs, Launch, Status, Tensors
from boltzbench.kernels.boltzmann_gibbs import PreparedMachine
from boltzbench.kernels.ising import reference as ising_reference
from boltzbench.kernels.ising.request import LaunchRequest
from boltzbench.kernels.logsumexp import logsumexp
from boltzbench.kernels.philox import Stream, random_words
from boltzbench.kernels.sgld import reference as sgld_reference
from boltzbench.kernels.spin_glass import energies, pack_walkers, unpack_walkers
from boltzbench.kernels.spin_glass import reference as glass_reference
from boltzbench.plugins.operations.langevin import annealed_langevin as annealed_plugin
from boltzbench.plugins.operations.langevin import psgld, sghmc
from boltzbench.plugins.operations.langevin import sgld as sgld_plugin
from boltzbench.plugins.operations.machines import boltzmann_gibbs as boltzmann_plugin
from boltzbench.plugins.operations.machines import enumeration as enumeration_plugin
from boltzbench.plugins.operations.machines import gaussian_rbm as gaussian_plugin
from boltzbench.plugins.operations.machines import rbm_free_energy as free_energy_plugin
from boltzbench.plugins.operations.machines import rbm_gibbs as rbm_plugin
from boltzbench.plugins.operations.machines import rbm_gradient as gradient_plugin
from boltzbench.plugins.operations.rows import generalised_cross_entropy as cross_entropy_plugin
from boltzbench.plugins.operations.rows import logsumexp as logsumexp_plugin
from boltzbench.plugins.operations.rows import thermodynamics as thermodynamics_plugin
from boltzbench.plugins.operations.spins import ising as ising_plugin
from boltzbench.plugins.operations.spins import parallel_tempering as tempering_plugin
from boltzbench.plugins.operations.spins import spin_glass as glass_plugin
from boltzbench.plugins.support import langevin
from torch import Tensor
from torch.nn.functional import softplus

PLUGINS = {
    "gaussian_rbm": gaussian_plugin,
    "enumeration": enumeration_plugin,
    "annealed_langevin": annealed_plugin,
    "boltzmann_gibbs": boltzmann_plugin,
    "generalised_cross_entropy": cross_entropy_plugin,
    "ising": ising_plugin,
    "logsumexp": logsumexp_plugin,
    "parallel_tempering": tempering_plugin,
    "rbm_free_energy": free_energy_plugin,
    "rbm_gibbs": rbm_plugin,
    "rbm_gradient": gradient_plugin,
    "sgld": sgld_plugin,
    "psgld": SimpleNamespace(OPERATION=psgld.OPERATION, prepare=partial(langevin.prepare, psgld.SCHEME)),
    "sghmc": SimpleNamespace(OPERATION=sghmc.OPERATION, prepare=partial(langevin.prepare, sghmc.SCHEME)),
    "spin_glass": glass_plugin,
    "thermodynamics": thermodynamics_plugin,
}
FOLDERS = {"gaussian_rbm": "rbm_gibbs", "psgld": "sgld", "sghmc": "sgld"}
"""Where the kernels of an operation are, if not in a folder of its name."""
KERNELS = Path(boltzbench.kernels.__file__).parent
Prepare = Callable[[Inputs, Tensors], Launch]


@dataclass(frozen=True)
class WrongKernel:
    name: str
    operation: str
    caught_by: str
    """The label of the case, or the name of the law."""
    status: Status
    prepare: Prepare

    @property
    def implementation(self) -> Implementation:
        return Implementation(self.operation, self.name, "torch", self.prepare)


# --- log-sum-exp: each takes (x, beta) and returns what it wrongly believes


def drops_the_last_column(x: Tensor, beta: float) -> Tensor:
    return torch.logsumexp(x[:, :-1] * beta, 1)


def drops_the_last_block(x: Tensor, beta: float) -> Tensor:
    return torch.logsumexp(x[:, : x.shape[1] // 256 * 256] * beta, 1)


def sums_in_float16(x: Tensor, beta: float) -> Tensor:
    peak = x.amax(1, keepdim=True)
    terms = torch.exp((x - peak) * beta).to(torch.float16)
    return (peak[:, 0] * beta + torch.log(terms.cumsum(1, dtype=torch.float16)[:, -1].float())).to(x.dtype)


def never_rescales(x: Tensor, beta: float) -> Tensor:
    peak, total = x[:, :256].amax(1), torch.zeros(len(x))
    for start in range(0, x.shape[1], 256):
        block = x[:, start : start + 256]
        peak = torch.maximum(peak, block.amax(1))
        total += torch.exp((block - peak[:, None]) * beta).sum(1)
    return peak * beta + torch.log(total)


def does_not_shift(x: Tensor, beta: float) -> Tensor:
    return torch.log(torch.exp(x * beta).sum(1))


def has_the_sign_wrong(x: Tensor, beta: float) -> Tensor:
    return torch.logsumexp(-x * beta, 1)


def ignores_beta(x: Tensor, beta: float) -> Tensor:
    return torch.logsumexp(x, 1)


def answers_a_constant(x: Tensor, beta: float) -> Tensor:
    return torch.full((len(x),), 7.0, dtype=x.dtype)


def skips_nan(x: Tensor, beta: float) -> Tensor:
    return torch.logsumexp(torch.nan_to_num(x, nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf) * beta, 1)


def _forward(compute: Callable[[Tensor, float], Tensor]) -> Prepare:
    def prepare(inputs: Inputs, outputs: Tensors) -> Launch:
        def launch() -> Tensors:
            outputs["y"].copy_(compute(inputs["x"], inputs["beta"]))
            return outputs

        return launch

    return prepare


def no_operation(inputs: Inputs, outputs: Tensors) -> Launch:
    return lambda: outputs


def computes_in_prepare(inputs: Inputs, outputs: Tensors) -> Launch:
    y = logsumexp(inputs["x"], 1, inputs["beta"])
    return lambda: {"y": outputs["y"].copy_(y)}


_cache: dict[int, Tensor] = {}


def caches_by_pointer(inputs: Inputs, outputs: Tensors) -> Launch:
    _cache.clear()

    def launch() -> Tensors:
        x = inputs["x"]
        if x.data_ptr() not in _cache:
            _cache[x.data_ptr()] = logsumexp(x, 1, inputs["beta"])
        return {"y": outputs["y"].copy_(_cache[x.data_ptr()])}

    return launch


def writes_past_the_end(inputs: Inputs, outputs: Tensors) -> Launch:
    def launch() -> Tensors:
        y = outputs["y"]
        y.copy_(logsumexp(inputs["x"], 1, inputs["beta"]))
        y.as_strided((1,), (1,), y.storage_offset() + y.numel()).fill_(0.0)
        return outputs

    return launch


def leaves_a_row_unwritten(inputs: Inputs, outputs: Tensors) -> Launch:
    def launch() -> Tensors:
        outputs["y"][:-1].copy_(logsumexp(inputs["x"], 1, inputs["beta"])[:-1])
        return outputs

    return launch


def shifts_its_input_in_place(inputs: Inputs, outputs: Tensors) -> Launch:
    def launch() -> Tensors:
        x = inputs["x"]
        x -= x.amax(1, keepdim=True)
        return {"y": torch.logsumexp(x, 1)}

    return launch


def keeps_the_dimension(inputs: Inputs, outputs: Tensors) -> Launch:
    return lambda: {"y": logsumexp(inputs["x"], 1, inputs["beta"], keepdim=True)}


def returns_float64(inputs: Inputs, outputs: Tensors) -> Launch:
    return lambda: {"y": logsumexp(inputs["x"], 1, inputs["beta"]).double()}


def raises(inputs: Inputs, outputs: Tensors) -> Launch:
    def launch() -> Tensors:
        raise RuntimeError("out of resources")

    return launch


def gradient_from_a_rounded_result(inputs: Inputs, outputs: Tensors) -> Launch:
    def launch() -> Tensors:
        lse = inputs["lse"].to(inputs["x"].dtype).float()
        weights = torch.exp(inputs["x"].float() * inputs["beta"] - lse[:, None])
        outputs["dx"].copy_(inputs["grad"].float()[:, None] * inputs["beta"] * weights)
        return outputs

    return launch


# --- thermodynamics: each takes (x, p, log Z), with p the law, and returns energy and variance


def subtracts_large_squares(x: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    mean = (p * x).sum(1)
    return -mean, (p * x * x).sum(1) - mean * mean


def squares_distances_from_the_peak(x: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    distance = x - x.amax(1, keepdim=True)
    mean = (p * distance).sum(1)
    return -(x.amax(1) + mean), (p * distance**2).sum(1) - mean**2


def weighs_all_alike(x: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    return -x.mean(1), x.var(1, correction=0)


def takes_the_sample_variance(x: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    energy = -(p * x).sum(1)
    n = x.shape[1]
    return energy, (p * (x + energy[:, None]) ** 2).sum(1) * n / (n - 1)


def has_the_sign_of_energy_wrong(x: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    energy = (p * x).sum(1)
    return energy, (p * (x - energy[:, None]) ** 2).sum(1)


def lets_weightless_states_count(x: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    energy = -(p * x).sum(1)
    return energy, (p * (x + energy[:, None]) ** 2).sum(1)


def _moments(compute: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> Prepare:
    def prepare(inputs: Inputs, outputs: Tensors) -> Launch:
        def launch() -> Tensors:
            x = inputs["x"].to(outputs["log_z"].dtype)
            log_z = torch.logsumexp(x * inputs["beta"], 1)
            energy, variance = compute(x, torch.softmax(x * inputs["beta"], 1))
            for name, value in (("log_z", log_z), ("energy", energy), ("variance", variance)):
                outputs[name].copy_(torch.where(log_z.isfinite() | (value is log_z), value, torch.nan))
            return outputs

        return launch

    return prepare


# --- generalised cross-entropy: each takes (logits, labels, q) and returns loss or gradient of each row


def takes_plain_powers(x: Tensor, labels: Tensor, q: float) -> Tensor:
    p = torch.softmax(x, 1).gather(1, labels.clamp(min=0)[:, None])[:, 0]
    return (1 - p**q) / q


def is_cross_entropy_throughout(x: Tensor, labels: Tensor, q: float) -> Tensor:
    return torch.nn.functional.cross_entropy(x, labels, reduction="none")


def counts_ignored_rows(x: Tensor, labels: Tensor, q: float) -> Tensor:
    log_p = torch.log_softmax(x.nan_to_num(), 1).gather(1, labels.clamp(min=0)[:, None])[:, 0]
    return -torch.expm1(q * log_p) / q


def takes_the_softmax_without_its_maximum(x: Tensor, labels: Tensor, q: float) -> Tensor:
    log_p = x.gather(1, labels.clamp(min=0)[:, None])[:, 0] - torch.log(torch.exp(x).sum(1))
    return -torch.expm1(q * log_p) / q


def forgets_the_power(x: Tensor, labels: Tensor, q: float) -> Tensor:
    return torch.softmax(x, 1) - torch.nn.functional.one_hot(labels, x.shape[1])


def has_the_sign_at_the_label_wrong(x: Tensor, labels: Tensor, q: float) -> Tensor:
    p = torch.softmax(x, 1)
    power = p.gather(1, labels[:, None]) ** q
    return power * (p + torch.nn.functional.one_hot(labels, x.shape[1]))


def sends_gradients_to_ignored_rows(x: Tensor, labels: Tensor, q: float) -> Tensor:
    p = torch.softmax(x.nan_to_num(), 1)
    power = p.gather(1, labels.clamp(min=0)[:, None]) ** q
    return power * (p - torch.nn.functional.one_hot(labels.clamp(min=0), x.shape[1]))


def _of_labels(compute: Callable[[Tensor, Tensor, float], Tensor]) -> Prepare:
    def prepare(inputs: Inputs, outputs: Tensors) -> Launch:
        def launch() -> Tensors:
            x = inputs["logits"].to(torch.promote_types(inputs["logits"].dtype, torch.float32))
            result = compute(x, inputs["labels"], inputs["q"])
            if "grad" in inputs:
                outputs["dlogits"].copy_(inputs["grad"][:, None] * result)
            else:
                outputs["loss"].copy_(result)
                outputs["lse"].copy_(torch.logsumexp(x, 1))
            return outputs

        return launch

    return prepare


# --- the free energy: each takes the inputs, and the fields with beta for each chain, (chains, 1)


def forgets_the_visible_bias(inputs: Inputs, x: Tensor, beta: Tensor) -> Tensor:
    return -(softplus(beta * x) / beta).sum(1)


def forgets_to_divide_by_beta(inputs: Inputs, x: Tensor, beta: Tensor) -> Tensor:
    return -(inputs["states"].float() @ inputs["visible_bias"].float()) - softplus(beta * x).sum(1)


def takes_the_first_beta_for_all(inputs: Inputs, x: Tensor, beta: Tensor) -> Tensor:
    return -(inputs["states"].float() @ inputs["visible_bias"].float()) - (softplus(beta[:1] * x) / beta[:1]).sum(1)


def overflows_at_large_fields(inputs: Inputs, x: Tensor, beta: Tensor) -> Tensor:
    terms = torch.log(1 + torch.exp(beta * x)) / beta
    return -(inputs["states"].float() @ inputs["visible_bias"].float()) - terms.sum(1)


def rounds_fields_to_bfloat16(inputs: Inputs, x: Tensor, beta: Tensor) -> Tensor:
    terms = softplus(beta * x.to(torch.bfloat16).float()) / beta
    return -(inputs["states"].float() @ inputs["visible_bias"].float()) - terms.sum(1)


def drops_the_last_hidden_unit(inputs: Inputs, x: Tensor, beta: Tensor) -> Tensor:
    return -(inputs["states"].float() @ inputs["visible_bias"].float()) - (softplus(beta * x[:, :-1]) / beta).sum(1)


def _free_energy(compute: Callable[[Inputs, Tensor, Tensor], Tensor]) -> Prepare:
    def prepare(inputs: Inputs, outputs: Tensors) -> Launch:
        def launch() -> Tensors:
            beta = torch.as_tensor(inputs["beta"], dtype=torch.float32).expand(len(inputs["states"]))[:, None]
            x = inputs["hidden_bias"].float() + inputs["states"].float() @ inputs["weights"].float()
            outputs["free_energy"].copy_(compute(inputs, x, beta))
            return outputs

        return launch

    return prepare


# --- the gradient: each takes states and hidden probabilities of both phases, and returns dW


def has_the_phases_swapped(v: Tensor, h: Tensor, v_model: Tensor, h_model: Tensor) -> Tensor:
    return v_model.t() @ h_model / len(v_model) - v.t() @ h / len(v)


def divides_by_the_wrong_count(v: Tensor, h: Tensor, v_model: Tensor, h_model: Tensor) -> Tensor:
    return (v.t() @ h - v_model.t() @ h_model) / len(v)


def forgets_the_negative_phase(v: Tensor, h: Tensor, v_model: Tensor, h_model: Tensor) -> Tensor:
    return v.t() @ h / len(v)


def takes_states_for_probabilities(v: Tensor, h: Tensor, v_model: Tensor, h_model: Tensor) -> Tensor:
    return v.t() @ h.round() / len(v) - v_model.t() @ h_model.round() / len(v_model)


def drops_the_last_chain(v: Tensor, h: Tensor, v_model: Tensor, h_model: Tensor) -> Tensor:
    return v[:-1].t() @ h[:-1] / len(v) - v_model.t() @ h_model / len(v_model)


def rounds_probabilities_to_bfloat16(v: Tensor, h: Tensor, v_model: Tensor, h_model: Tensor) -> Tensor:
    h, h_model = h.to(torch.bfloat16).float(), h_model.to(torch.bfloat16).float()
    return v.t() @ h / len(v) - v_model.t() @ h_model / len(v_model)


def adds_chains_as_they_come(v: Tensor, h: Tensor, v_model: Tensor, h_model: Tensor) -> Tensor:
    order = torch.randperm(len(v_model))
    return v.t() @ h / len(v) - (v_model[order, :, None] * h_model[order, None, :]).cumsum(0)[-1] / len(v_model)


def _gradient(compute: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]) -> Prepare:
    def prepare(inputs: Inputs, outputs: Tensors) -> Launch:
        def launch() -> Tensors:
            gradient_plugin.prepare("torch", inputs, outputs)()
            phases = []
            for name in ("data", "model"):
                v = inputs[name].float()
                x = inputs["hidden_bias"].float() + v @ inputs["weights"].float()
                given = inputs.get(f"{name}_hidden")
                phases += [v, torch.sigmoid(inputs["beta"] * x) if given is None else given.float()]
            outputs["weights_gradient"].copy_(compute(*phases))
            return outputs

        return launch

    return prepare


# --- block Gibbs and SGLD: the shipped torch backend, given spoiled inputs or with spoiled results


def _with_inputs(operation: str, spoil: Callable[[Inputs], dict[str, object]]) -> Prepare:
    def prepare(inputs: Inputs, outputs: Tensors) -> Launch:
        return lambda: PLUGINS[operation].prepare("torch", {**inputs, **spoil(inputs)}, outputs)()

    return prepare


def freezes_a_unit(inputs: Inputs, outputs: Tensors) -> Launch:
    def launch() -> Tensors:
        rbm_plugin.prepare("torch", inputs, outputs)()
        outputs["visible"][:, 5] = inputs["states"][:, 5]
        return outputs

    return launch


def shares_uniforms_between_chains(inputs: Inputs, outputs: Tensors) -> Launch:
    def launch() -> Tensors:
        for chain in range(len(inputs["states"])):
            part = {name: tensor[chain : chain + 1] for name, tensor in outputs.items()}
            rbm_plugin.prepare("torch", {**inputs, "states": inputs["states"][chain : chain + 1]}, part)()
        return outputs

    return launch


def shares_uniforms_between_chains_of_units(inputs: Inputs, outputs: Tensors) -> Launch:
    def launch() -> Tensors:
        for chain in range(len(inputs["states"])):
            part = {"advanced": outputs["advanced"][chain : chain + 1]}
            boltzmann_plugin.prepare("torch", {**inputs, "states": inputs["states"][chain : chain + 1]}, part)()
        return outputs

    return launch


def _with_colours(merge: Callable[[tuple[int, ...]], tuple[int, ...]]) -> Prepare:
    """Sweeps whose colours are others, of as many units in the same order; each draws its numbers as before."""
    honest = boltzmann_plugin._prepared

    def prepared(inputs: Inputs) -> PreparedMachine:
        machine = honest(inputs)
        return replace(machine, sizes=merge(machine.sizes))

    def prepare(inputs: Inputs, outputs: Tensors) -> Launch:
        def launch() -> Tensors:
            with mock.patch.object(boltzmann_plugin, "_prepared", prepared):
                return boltzmann_plugin.prepare("torch", inputs, outputs)()

        return launch

    return prepare


gives_coupled_units_one_colour = _with_colours(lambda sizes: (sum(sizes[:2]), *sizes[2:]))
draws_all_from_the_states_before = _with_colours(lambda sizes: (sum(sizes),))


def shares_bits_between_lattices(inputs: Inputs, outputs: Tensors) -> Launch:
    def launch() -> Tensors:
        for lattice in range(len(inputs["spins"])):
            one = {name: inputs[name][lattice : lattice + 1] for name in ("spins", "beta")}
            part = {"advanced": outputs["advanced"][lattice : lattice + 1]}
            ising_plugin.prepare("torch", {**inputs, **one}, part)()
        return outputs

    return launch


def updates_both_colours_at_once(inputs: Inputs, outputs: Tensors) -> Launch:
    honest = ising_reference.half_sweep
    before: list[Tensor] = []

    def blind_half_sweep(half: LaunchRequest) -> None:
        """Of the odd sites, which come second, as if the even ones were what they were before the sweep."""
        if half.colour == 0:
            before.append(half.spins.clone())
            honest(half)
        else:
            odd = before.pop()
            honest(replace(half, spins=odd))
            half.spins[:, 1] = odd[:, 1]

    def launch() -> Tensors:
        with mock.patch.object(ising_reference, "half_sweep", blind_half_sweep):
            return ising_plugin.prepare("torch", inputs, outputs)()

    return launch


def updates_all_spins_at_once(inputs: Inputs, outputs: Tensors) -> Launch:
    def launch() -> Tensors:
        spins, couplings = unpack_walkers(inputs["spins"]).double(), inputs["couplings"].double()
        groups = torch.arange(inputs["spins"].shape[1])
        for sweep, temperature in enumerate(inputs["temperatures"]):
            number = glass_reference.draw_numbers(groups, spins.shape[1], inputs["seed"], sweep)
            change = 2 * spins * (spins @ couplings)
            spins = torch.where(number < 2.0**32 * torch.exp(-change / temperature), -spins, spins)
        outputs["annealed"].copy_(pack_walkers(spins))
        outputs["energies"].copy_(energies(outputs["annealed"], couplings))
        return outputs

    return launch


def shares_noise_between_neighbours(inputs: Inputs, outputs: Tensors) -> Launch:
    def launch() -> Tensors:
        x, g = inputs["parameter_0"], inputs["gradient_0"]
        half = {"parameter_0": torch.zeros(len(x) // 2), "gradient_0": torch.zeros(len(x) // 2)}
        moved = {"parameter_0": torch.zeros(len(x) // 2)}
        sgld_plugin.prepare("torch", {**inputs, **half}, moved)()
        noise = moved["parameter_0"].repeat_interleave(2)
        outputs["parameter_0"].copy_(x - 0.5 * inputs["step_size"] * g + noise)
        return outputs

    return launch


def _with_rounding_bits(bits: Callable[..., Tensor]) -> Prepare:
    def prepare(inputs: Inputs, outputs: Tensors) -> Launch:
        def launch() -> Tensors:
            with mock.patch.object(sgld_reference, "rounding_bits", bits):
                return sgld_plugin.prepare("torch", inputs, outputs)()

        return launch

    return prepare


rounds_half_of_all_up = _with_rounding_bits(
    lambda elements, seed, step, number, device: torch.arange(elements, device=device) % 2 * 0xFFFF
)
rounds_by_the_noise = _with_rounding_bits(
    lambda elements, seed, step, number, device: (
        random_words(torch.arange((elements + 3) // 4), seed, step, Stream.NOISE, number).flatten()[:elements] & 0xFFFF
    )
)


# --- mutants


def mutant(operation: str, file: str, old: str, new: str) -> Prepare:
    """The shipped implementation of ``operation`` whose ``file`` has ``new`` in place of ``old``."""
    backend = "triton" if file.startswith("triton_") else "cupy"
    module_name = "triton_kernels" if backend == "triton" else "cuda_kernels"

    def prepare(inputs: Inputs, outputs: Tensors) -> Launch:
        temporary = tempfile.TemporaryDirectory(prefix="mutant-")
        folder = Path(temporary.name)
        folder_name = FOLDERS.get(operation, operation)
        shutil.copytree(KERNELS / folder_name, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        for source in (KERNELS / "common").glob("*.cuh"):
            shutil.copy(source, folder)
        shutil.copytree(KERNELS / "rows", folder / "rows")
        (changed,) = folder.rglob(file)
        text = changed.read_text()
        assert text.count(old) >= 1, f"{file} no longer holds {old!r}"
        changed.write_text(text.replace(old, new))
        package = importlib.import_module(f"boltzbench.kernels.{folder_name}")
        importlib.import_module(f"{package.__name__}.{module_name}")  # so that all else is there, and is not undone
        with (
            mock.patch.dict(sys.modules),
            mock.patch.dict(vars(package)),
            mock.patch.object(package, "__path__", [str(folder)]),
        ):
            for source in folder.glob("triton_*.py" if backend == "triton" else "[ct]*_*"):  # and tensor_cores/
                for name in [each for each in sys.modules if each.startswith(f"{package.__name__}.{source.stem}")]:
                    sys.modules.pop(name)
                vars(package).pop(source.stem, None)
            module = importlib.import_module(f"{package.__name__}.{module_name}")
        launch_shipped = PLUGINS[operation].prepare(backend, inputs, outputs)

        def launch() -> Tensors:
            assert temporary  # the source lives as long as the launch: CUDA C is compiled when it first runs
            with mock.patch.dict(sys.modules, {f"{package.__name__}.{module_name}": module}):
                return launch_shipped()

        return launch

    return prepare


RESTRICTED, FRUSTRATED = "visible=13 hidden=30 float64", "frustrated visible=12 hidden=33 float32"
MACHINE, TWO_BATCHES = "machine units=18 float32", "blocks machine units=21 bfloat16"
LADDERS, ODD_ROUND = "ladders=300 rungs=12 float64", "odd round ladders=301 rungs=7 float64"
WALK, WALKED = "walkers=2003 steps=8 float32", "passages walkers=1027 steps=12 float32"
GLASS, DENSE = "spins=9 walkers=4128 sweeps=1 int32", "dense spins=6 walkers=1056 sweeps=1 int32"
CYCLIC = "cyclic spins=3 walkers=96 sweeps=4 int32"
LOGSUMEXP, SPLIT = "rows=37 columns=1031 float32", "split rows=3 columns=70001 float32"
LOSS, SLOPES = "rows=37 columns=1031 float32", "backward rows=37 columns=1031 float32"
IGNORED = "ignored rows=7 columns=512 float32"
INFINITE = "infinities rows=7 columns=512 float32"
FLAT = "beta-zero far split rows=1 columns=70003 float32"
WELL, ENUMERATION = "quadratic well", "enumeration beta=2"
ISING, TINY = "lattices=5 height=6 width=70 sweeps=1 int32", "lattices=70 height=4 width=4 sweeps=3 int32"
HOT = "beta-zero lattices=3 height=4 width=130 sweeps=1 int32"
LARGE_LATTICE = "lattices=2 height=64 width=128 sweeps=1 int32"
HEAT_BATH, FIELD = f"heat-bath {ISING}", "field lattices=3 height=4 width=130 sweeps=1 int32"
COLOURED, ALL_COUPLED = "chains=70 units=37 sweeps=1 float32", "dense chains=33 units=70 sweeps=1 float32"
UNITS_LATTICE = "lattice chains=40 units=64 sweeps=3 float32"
GAUSSIAN = GIBBS = "chains=70 visible=100 hidden=17 sweeps=1 float32"
FREE_ENERGY, FEW_TERMS = "chains=70 visible=100 hidden=17 float32", "outliers chains=40 visible=2 hidden=1 float32"
TILES_OF_UNITS = "cold chains=65 visible=33 hidden=130 float32"
GRADIENT, FEW_CHAINS = (
    "data=70 model=41 visible=100 hidden=17 float32",
    "sampled model data=2 model=1 visible=3 hidden=40 float32",
)
PARTS_OF_CHAINS = "data=300 model=700 visible=18 hidden=21 float32"
SQUARE = "chains=256 visible=64 hidden=64 sweeps=1 float32"
BF16, BF16X3, INT8X3 = (f"{precision} {GIBBS}" for precision in ("bf16", "bf16x3", "int8x3"))
PACKED = "packed chains=70 visible=100 hidden=17 sweeps=2 float32"
CLUSTER = "int8x3 chains=3 visible=70 hidden=560 sweeps=2 float32"
BF16_RESIDENT = "bf16 chains=9 visible=70 hidden=33 sweeps=2 float32"
BF16X3_RESIDENT = "bf16x3 chains=9 visible=70 hidden=33 sweeps=2 float32"
NO_TURNS = (
    "barrier_wait(1 + group, THREADS); }\n__device__ __forceinline__ void give_turn(int group, bool last) {\n"
    "    if (group == 0 || !last) barrier_arrive(2 - group, THREADS);",
    "}\n__device__ __forceinline__ void give_turn(int, bool) {",
)
CLAMPED_RESIDENT = "clamped bf16 chains=70 visible=100 hidden=17 sweeps=2 float32"
SGLD = "tensors=1 elements=5003 float32"
STOCHASTIC = "stochastic tensors=1 elements=5003 bfloat16"
PSGLD = SGHMC = "tensors=1 elements=2051 float32"
CONSTANT = "constant preconditioner"

WRONG_KERNELS = (
    *(
        WrongKernel(compute.__name__, "logsumexp", case, Status.WRONG_VALUES, _forward(compute))
        for compute, case in (
            (drops_the_last_column, LOGSUMEXP),
            (drops_the_last_block, LOGSUMEXP),
            (sums_in_float16, SPLIT),
            (never_rescales, LOGSUMEXP),
            (does_not_shift, "shifted rows=5 columns=512 float32"),
            (has_the_sign_wrong, LOGSUMEXP),
            (ignores_beta, "hot rows=5 columns=512 float32"),
            (answers_a_constant, LOGSUMEXP),
            (skips_nan, "nan rows=5 columns=512 float32"),
        )
    ),
    *(
        WrongKernel(compute.__name__, "thermodynamics", case, Status.WRONG_VALUES, _moments(compute))
        for compute, case in (
            (subtracts_large_squares, "shifted rows=5 columns=512 float32"),
            (squares_distances_from_the_peak, FLAT),
            (weighs_all_alike, LOGSUMEXP),
            (takes_the_sample_variance, LOGSUMEXP),
            (has_the_sign_of_energy_wrong, LOGSUMEXP),
            (lets_weightless_states_count, "infinities rows=5 columns=512 float32"),
        )
    ),
    *(
        WrongKernel(compute.__name__, "generalised_cross_entropy", case, Status.WRONG_VALUES, _of_labels(compute))
        for compute, case in (
            (takes_plain_powers, "tiny rows=33 columns=300 float32"),
            (is_cross_entropy_throughout, LOSS),
            (counts_ignored_rows, IGNORED),
            (takes_the_softmax_without_its_maximum, "shifted rows=7 columns=512 float32"),
            (forgets_the_power, SLOPES),
            (has_the_sign_at_the_label_wrong, SLOPES),
            (sends_gradients_to_ignored_rows, "ignored backward rows=7 columns=512 float32"),
        )
    ),
    *(
        WrongKernel(prepare.__name__, "logsumexp", case, status, prepare)
        for prepare, case, status in (
            (no_operation, LOGSUMEXP, Status.WRONG_VALUES),
            (computes_in_prepare, LOGSUMEXP, Status.WRONG_VALUES),
            (caches_by_pointer, LOGSUMEXP, Status.WRONG_VALUES),
            (leaves_a_row_unwritten, LOGSUMEXP, Status.WRONG_VALUES),
            (gradient_from_a_rounded_result, "backward rows=37 columns=1031 bfloat16", Status.WRONG_VALUES),
            (writes_past_the_end, LOGSUMEXP, Status.OUT_OF_BOUNDS),
            (shifts_its_input_in_place, LOGSUMEXP, Status.MODIFIED_INPUT),
            (keeps_the_dimension, LOGSUMEXP, Status.WRONG_SHAPE),
            (returns_float64, LOGSUMEXP, Status.WRONG_DTYPE),
            (raises, LOGSUMEXP, Status.ERROR),
        )
    ),
    *(
        WrongKernel(compute.__name__, "rbm_free_energy", case, Status.WRONG_VALUES, _free_energy(compute))
        for compute, case in (
            (forgets_the_visible_bias, FREE_ENERGY),
            (forgets_to_divide_by_beta, "cold chains=65 visible=33 hidden=130 float32"),
            (takes_the_first_beta_for_all, "betas chains=65 visible=33 hidden=130 float32"),
            (overflows_at_large_fields, "outliers chains=65 visible=33 hidden=130 float32"),
            (rounds_fields_to_bfloat16, FREE_ENERGY),
            (drops_the_last_hidden_unit, FREE_ENERGY),
        )
    ),
    *(
        WrongKernel(compute.__name__, "rbm_gradient", case, status, _gradient(compute))
        for compute, case, status in (
            (has_the_phases_swapped, GRADIENT, Status.WRONG_VALUES),
            (divides_by_the_wrong_count, GRADIENT, Status.WRONG_VALUES),
            (forgets_the_negative_phase, GRADIENT, Status.WRONG_VALUES),
            (takes_states_for_probabilities, GRADIENT, Status.WRONG_VALUES),
            (drops_the_last_chain, GRADIENT, Status.WRONG_VALUES),
            (rounds_probabilities_to_bfloat16, GRADIENT, Status.WRONG_VALUES),
            (adds_chains_as_they_come, "equal phases", Status.WRONG_LAW),
        )
    ),
    *(
        WrongKernel(name, operation, caught_by, status, _with_inputs(operation, spoil))
        for name, operation, caught_by, status, spoil in (
            ("ignores_beta", "enumeration", "cold visible=12 hidden=33 float32",
             Status.WRONG_VALUES, lambda inputs: {"beta": 1.0}),
            ("forgets_the_biases_it_enumerates", "enumeration", RESTRICTED,
             Status.WRONG_VALUES, lambda inputs: {"visible_bias": torch.zeros_like(inputs["visible_bias"])}),
            ("drops_the_last_unit", "enumeration", "fixture", Status.WRONG_LAW,
             lambda inputs: {"weights": inputs["weights"][:, :-1], "hidden_bias": inputs["hidden_bias"][:-1]}),
            ("counts_bonds_twice", "enumeration", MACHINE,
             Status.WRONG_VALUES, lambda inputs: {"weights": 2 * inputs["weights"]}),
            ("counts_bonds_twice", "enumeration", "Kaufman",
             Status.WRONG_LAW, lambda inputs: {"weights": 2 * inputs["weights"]}),
            ("rounds_to_float16", "enumeration", RESTRICTED,
             Status.WRONG_VALUES, lambda inputs: {"weights": inputs["weights"].half().double()}),
            ("ignores_q", "generalised_cross_entropy", "half rows=33 columns=300 float32",
             Status.WRONG_VALUES, lambda inputs: {"q": 0.7}),
            ("misses_the_ignore_index", "generalised_cross_entropy", "ignored backward rows=7 columns=512 float32",
             Status.WRONG_VALUES, lambda inputs: {"ignore_index": -1, "labels": inputs["labels"].clamp(min=0)}),
            ("ignores_sigma", "gaussian_rbm", GAUSSIAN,
             Status.WRONG_VALUES, lambda inputs: {"sigma": torch.ones_like(inputs["sigma"])}),
            ("divides_by_the_square_of_sigma", "gaussian_rbm", "mixture of normals",
             Status.WRONG_LAW, lambda inputs: {"weights": inputs["weights"] / inputs["sigma"][:, None]}),
            ("is_a_little_too_hot", "gaussian_rbm", "mixture of normals",
             Status.WRONG_LAW, lambda inputs: {"beta": 0.85 * inputs["beta"]}),
            ("forgets_the_visible_bias", "gaussian_rbm", "mixture of normals",
             Status.WRONG_LAW, lambda inputs: {"visible_bias": torch.zeros_like(inputs["visible_bias"])}),
            ("unclamps", "gaussian_rbm", "clamped chains=65 visible=33 hidden=65 sweeps=1 float32",
             Status.WRONG_VALUES, lambda inputs: {"clamped": None}),
            ("reads_its_number_once", "rbm_gibbs", "composition", Status.WRONG_LAW,
             lambda inputs: {"first_sweep": 0} if isinstance(inputs["first_sweep"], Tensor) else {}),
            ("swaps_beta_for_one", "rbm_gibbs", "hot chains=65 visible=33 hidden=65 sweeps=1 float32",
             Status.WRONG_VALUES, lambda inputs: {"beta": 1.0}),
            ("misses_a_sweep", "rbm_gibbs", "chains=33 visible=20 hidden=12 sweeps=5 float32",
             Status.WRONG_VALUES, lambda inputs: {"sweeps": 4}),
            ("repeats_the_first_sweep's_uniforms", "rbm_gibbs", "composition",
             Status.WRONG_LAW, lambda inputs: {"first_sweep": 0}),
            ("forgets_the_hidden_bias", "rbm_gibbs", GIBBS,
             Status.WRONG_VALUES, lambda inputs: {"hidden_bias": torch.zeros_like(inputs["hidden_bias"])}),
            ("swaps_the_biases", "rbm_gibbs", SQUARE, Status.WRONG_VALUES,
             lambda inputs: {"visible_bias": inputs["hidden_bias"], "hidden_bias": inputs["visible_bias"]}),
            ("takes_the_weights_transposed", "rbm_gibbs", SQUARE, Status.WRONG_VALUES,
             lambda inputs: {"weights": inputs["weights"].t()}),
            ("takes_one_part_for_three", "rbm_gibbs", BF16X3, Status.WRONG_VALUES,
             lambda inputs: {"precision": "bf16"}),
            ("rounds_its_weights", "rbm_gibbs", "enumeration int8x3", Status.WRONG_LAW,
             lambda inputs: {"weights": (4 * inputs["weights"]).round() / 4}),
            ("ignores_beta", "rbm_gibbs", "enumeration 10 x 8", Status.WRONG_LAW, lambda inputs: {"beta": 1.0}),
            ("swaps_the_biases", "rbm_gibbs", "enumeration 10 x 8", Status.WRONG_LAW,
             lambda inputs: {"hidden_bias": inputs["visible_bias"][: len(inputs["hidden_bias"])]}),
            ("unclamps", "rbm_gibbs", "clamped chains=65 visible=33 hidden=65 sweeps=1 float32",
             Status.WRONG_VALUES, lambda inputs: {"clamped": None}),
            ("is_a_little_too_cold", "rbm_gibbs", ENUMERATION,
             Status.WRONG_LAW, lambda inputs: {"beta": 1.05 * inputs["beta"]}),
            ("is_too_hot", "rbm_gibbs", "enumeration beta=0.5",
             Status.WRONG_LAW, lambda inputs: {"beta": 0.8 * inputs["beta"]}),
            ("stays_at_the_first_temperature", "annealed_langevin", WALK, Status.WRONG_VALUES,
             lambda inputs: {"temperatures": inputs["temperatures"][:1].expand(inputs["temperatures"].shape)}),
            ("takes_the_schedule_backwards", "annealed_langevin", "schedule", Status.WRONG_LAW,
             lambda inputs: {"temperatures": inputs["temperatures"].flip(0)}),
            ("takes_half_a_step", "annealed_langevin", "stationary", Status.WRONG_LAW,
             lambda inputs: {"step_size": 0.5 * inputs["step_size"]}),
            ("is_too_hot", "annealed_langevin", "first passage", Status.WRONG_LAW,
             lambda inputs: {"temperatures": 1.2 * inputs["temperatures"]}),
            ("forgets_earlier_passages", "annealed_langevin", "continued walkers=1027 steps=12 float32",
             Status.WRONG_VALUES, lambda inputs: {"passages": None}),
            ("reuses_its_noise", "annealed_langevin", "composition",
             Status.WRONG_LAW, lambda inputs: {"first_step": 0}),
            ("stays_at_the_first_temperature", "spin_glass", CYCLIC, Status.WRONG_VALUES,
             lambda inputs: {"temperatures": inputs["temperatures"][:1].expand(4)}),
            ("takes_all_couplings_for_positive", "spin_glass", "schedule",
             Status.WRONG_LAW, lambda inputs: {"couplings": inputs["couplings"].abs()}),
            ("takes_all_couplings_for_one", "spin_glass", "enumeration",
             Status.WRONG_LAW, lambda inputs: {"couplings": inputs["couplings"].sign()}),
            ("cools_too_fast", "spin_glass", "schedule",
             Status.WRONG_LAW, lambda inputs: {"temperatures": 0.7 * inputs["temperatures"]}),
            ("reuses_its_numbers", "spin_glass", "composition",
             Status.WRONG_LAW, lambda inputs: {"first_sweep": 0}),
            ("ignores_beta", "boltzmann_gibbs", f"cold {COLOURED}", Status.WRONG_VALUES, lambda inputs: {"beta": 1.0}),
            ("misses_a_sweep", "boltzmann_gibbs", UNITS_LATTICE, Status.WRONG_VALUES, lambda inputs: {"sweeps": 2}),
            ("counts_each_coupling_half", "boltzmann_gibbs", f"hot {COLOURED}",
             Status.WRONG_VALUES, lambda inputs: {"weights": inputs["weights"] / 2}),
            ("counts_each_coupling_half", "boltzmann_gibbs", "enumeration beta=1.5",
             Status.WRONG_LAW, lambda inputs: {"weights": inputs["weights"] / 2}),
            ("is_too_cold", "boltzmann_gibbs", "enumeration beta=0.5",
             Status.WRONG_LAW, lambda inputs: {"beta": 1.25 * inputs["beta"]}),
            ("forgets_the_fields", "boltzmann_gibbs", f"spins {COLOURED}",
             Status.WRONG_VALUES, lambda inputs: {"biases": torch.zeros_like(inputs["biases"])}),
            ("unclamps", "boltzmann_gibbs", f"clamped {COLOURED}",
             Status.WRONG_VALUES, lambda inputs: {"clamped": torch.zeros_like(inputs["clamped"])}),
            ("repeats_the_first_sweep's_uniforms", "boltzmann_gibbs", "composition",
             Status.WRONG_LAW, lambda inputs: {"first_sweep": 0}),
            ("ignores_beta", "ising", ISING,
             Status.WRONG_VALUES, lambda inputs: {"beta": torch.ones_like(inputs["beta"])}),
            ("is_too_cold", "ising", "enumeration metropolis",
             Status.WRONG_LAW, lambda inputs: {"beta": 1.25 * inputs["beta"]}),
            ("is_too_cold", "ising", "Kaufman", Status.WRONG_LAW, lambda inputs: {"beta": 1.25 * inputs["beta"]}),
            ("ignores_the_field", "ising", "enumeration metropolis field",
             Status.WRONG_LAW, lambda inputs: {"field": 0.0}),
            ("takes_metropolis_for_the_heat_bath", "ising", HEAT_BATH,
             Status.WRONG_VALUES, lambda inputs: {"rule": "metropolis"}),
            ("repeats_the_first_sweep's_bits", "ising", "composition",
             Status.WRONG_LAW, lambda inputs: {"first_sweep": 0}),
            ("takes_the_energies_of_rungs", "parallel_tempering", LADDERS, Status.WRONG_VALUES,
             lambda inputs: {"energies": inputs["energies"].gather(1, inputs["replica_at"].long())}),
            ("has_the_sign_of_energy_wrong", "parallel_tempering", "product law",
             Status.WRONG_LAW, lambda inputs: {"energies": -inputs["energies"]}),
            ("exchanges_too_often", "parallel_tempering", "product law",
             Status.WRONG_LAW, lambda inputs: {"betas": 0.8 * inputs["betas"]}),
            ("asks_the_same_pairs_always", "parallel_tempering", ODD_ROUND,
             Status.WRONG_VALUES, lambda inputs: {"round_number": 0}),
            ("shares_numbers_between_ladders", "parallel_tempering", "composition",
             Status.WRONG_LAW, lambda inputs: {"first_ladder": 0}),
            ("has_noise_of_variance_two", "sgld", WELL,
             Status.WRONG_LAW, lambda inputs: {"temperature": 2 * inputs["temperature"]}),
            ("ignores_the_temperature", "sgld", "hot tensors=1 elements=4097 float32",
             Status.WRONG_VALUES, lambda inputs: {"temperature": 1.0}),
            ("takes_a_whole_step_down", "sgld", SGLD,
             Status.WRONG_VALUES, lambda inputs: {"gradient_0": 2 * inputs["gradient_0"]}),
            ("reuses_its_noise", "sgld", WELL, Status.WRONG_LAW, lambda inputs: {"step": 0}),
            ("forgets_the_posterior's_noise", "sgld", "digits posterior",
             Status.WRONG_LAW, lambda inputs: {"temperature": 0.0}),
            ("rounds_to_nearest", "sgld", "unbiased rounding",
             Status.WRONG_LAW, lambda inputs: {"rounding": "nearest"}),
            ("rounds_to_nearest", "sgld", STOCHASTIC,
             Status.WRONG_VALUES, lambda inputs: {"rounding": "nearest"}),
            ("forgets_old_gradients", "psgld", CONSTANT, Status.WRONG_LAW, lambda inputs: {"decay": 0.5}),
            ("is_hardly_damped", "psgld", CONSTANT, Status.WRONG_LAW, lambda inputs: {"damping": 0.1}),
            ("reuses_its_noise", "psgld", CONSTANT, Status.WRONG_LAW, lambda inputs: {"step": 0}),
            ("has_no_friction", "sghmc", WELL, Status.WRONG_LAW, lambda inputs: {"friction": 0.0}),
            ("has_noise_of_variance_two", "sghmc", WELL,
             Status.WRONG_LAW, lambda inputs: {"temperature": 2 * inputs["temperature"]}),
            ("reuses_its_noise", "sghmc", WELL, Status.WRONG_LAW, lambda inputs: {"step": 0}),
        )
    ),
    WrongKernel(
        "shares_uniforms_between_chains", "boltzmann_gibbs", COLOURED, Status.WRONG_VALUES,
        shares_uniforms_between_chains_of_units,
    ),
    *(
        WrongKernel(name, "boltzmann_gibbs", caught_by, status, wrong)
        for name, wrong in (
            ("gives_coupled_units_one_colour", gives_coupled_units_one_colour),
            ("draws_all_from_the_states_before", draws_all_from_the_states_before),
        )
        for caught_by, status in ((COLOURED, Status.WRONG_VALUES), ("enumeration beta=1.5", Status.WRONG_LAW))
    ),
    WrongKernel(
        "shares_bits_between_lattices", "ising", ISING, Status.WRONG_VALUES, shares_bits_between_lattices
    ),
    *(
        WrongKernel("updates_both_colours_at_once", "ising", caught_by, status, updates_both_colours_at_once)
        for caught_by, status in ((TINY, Status.WRONG_VALUES), ("enumeration heat_bath", Status.WRONG_LAW))
    ),
    WrongKernel("updates_all_spins_at_once", "spin_glass", "schedule", Status.WRONG_LAW, updates_all_spins_at_once),
    WrongKernel("freezes_a_unit", "rbm_gibbs", GIBBS, Status.WRONG_VALUES, freezes_a_unit),
    WrongKernel(
        "shares_uniforms_between_chains", "rbm_gibbs", GIBBS, Status.WRONG_VALUES, shares_uniforms_between_chains
    ),
    WrongKernel("shares_noise_between_neighbours", "sgld", WELL, Status.WRONG_LAW, shares_noise_between_neighbours),
    WrongKernel("rounds_half_of_all_up", "sgld", "unbiased rounding", Status.WRONG_LAW, rounds_half_of_all_up),
    WrongKernel("rounds_by_the_bits_of_the_noise", "sgld", STOCHASTIC, Status.WRONG_VALUES, rounds_by_the_noise),
)  # fmt: skip

MUTANTS = tuple(
    WrongKernel(f"{file}: {old} -> {new}", operation, caught_by, Status.WRONG_VALUES, mutant(operation, file, old, new))
    for operation, file, old, new, caught_by in (
        ("logsumexp", "rows/softmax.cuh", "lanes > 0; lanes /= 2) total", "lanes > 1; lanes /= 2) total", LOGSUMEXP),
        ("logsumexp", "rows/rows.cuh", "__syncthreads();\n        own", "own", LOGSUMEXP),
        ("logsumexp", "rows/softmax.cuh", "if (old_peak == new_peak) return;", "return;", LOGSUMEXP),
        ("logsumexp", "rows/rows.cuh", "/ STRIDE) + 1;", "/ STRIDE);", LOGSUMEXP),
        ("logsumexp", "rows/rows.cuh", "k = whole + lane; k < end", "k = whole + lane; k < whole",
         "remainder rows=1 columns=4103 float32"),
        ("logsumexp", "rows/rows.cuh", "return row * stride2", "return row * stride", LOGSUMEXP),
        ("logsumexp", "rows/rows.cuh", "first + i * LANES < rows.splits", "first + i * LANES + 1 < rows.splits", SPLIT),
        ("logsumexp", "rows/rows.cuh", "!= rows.splits - 1", "!= rows.splits - 2", SPLIT),
        ("logsumexp", "rows/softmax.cuh", "beta * 0.7", "0.7", "cold backward rows=67 columns=300 float32"),
        ("logsumexp", "rows/rows.cuh", "k = first + i * STRIDE;\n        if (k >= n)",
         "k = first + i * STRIDE;\n        if (k >= n - WIDTH)", "backward rows=70 columns=128 bfloat16"),
        *(
            ("generalised_cross_entropy", "generalised_cross_entropy.cu", old, new, case)
            for old, new, case in (
                ("place == label_place", "place + 1 == label_place", SLOPES),
                ("label) - shift;", "label);", LOSS),
                ("- (level == -infinity() ? Real(0) : log_total)", "- log_total", INFINITE),
                ("for (auto& part : chunk) part = {};", "factor;", "ignored backward rows=7 columns=512 float32"),
            )
        ),
        ("enumeration", "enumeration.cu", "multiply<1>(p", "multiply<GROUP>(p", FRUSTRATED),
        ("enumeration", "enumeration.cu", "exponents += (more & 0x7f800000u) >> 7;", "", RESTRICTED),
        ("enumeration", "enumeration.cu", "total *= exp(peak - larger);", "", TWO_BATCHES),
        ("enumeration", "enumeration.cu", "k <= i; ++k)", "k < i; ++k)", MACHINE),
        ("enumeration", "triton_kernels.py", "p *= row_bias[:, None] * ", "p *= ", RESTRICTED),
        ("enumeration", "triton_kernels.py", "total *= tl.exp(peak - larger)", "", MACHINE),
        ("enumeration", "triton_kernels.py", "if each == 0:", "if each <= 1:", FRUSTRATED),
        ("parallel_tempering", "parallel_tempering.cu", "(rung ^ step) & 1", "rung & 1", ODD_ROUND),
        ("parallel_tempering", "parallel_tempering.cu", "fmin(log_ratio, 0.0)", "-fabs(log_ratio)", LADDERS),
        ("parallel_tempering", "triton_kernels.py", "number >> 2, seed", "number, seed", LADDERS),
        ("parallel_tempering", "triton_kernels.py", "is_lower, second, first", "is_lower, first, second", LADDERS),
        ("annealed_langevin", "annealed_langevin.cu", "at[i], at[i], -1.0f", "at[i], at[i], 1.0f", WALK),
        ("annealed_langevin", "annealed_langevin.cu", "scales[step]", "scales[0]", WALK),
        ("annealed_langevin", "annealed_langevin.cu", "group * GROUP - settings.offset", "group * GROUP", WALK),
        ("annealed_langevin", "annealed_langevin.cu", "(i32)number + 1", "(i32)number", WALKED),
        ("annealed_langevin", "annealed_langevin.cu", "passed[i] < 0 && ", "", WALKED),
        *(
            ("boltzmann_gibbs", "boltzmann_gibbs.cu", old, new, case)
            for old, new, case in (
                ("__syncthreads();  // all of a colour", "// all of a colour", UNITS_LATTICE),
                ("own_bit), random.word[i]", "own_bit), random.word[0]", COLOURED),
                ("settings.first_step + sweep", "settings.first_step", UNITS_LATTICE),
                ("settings.first_chain + chain", "chain", COLOURED),
                ("add_link(odd, state, b.z, b.w, own_bit);", "", UNITS_LATTICE),
                ("held[order[unit] *", "held[unit *", f"clamped {COLOURED}"),
                ("mine ? betas[chain]", "mine ? betas[0]", f"betas clamped {COLOURED}"),
                ("__syncthreads();  // all parts", "// all parts", ALL_COUPLED),
                ("part < WARPS; ++part", "part < WARPS - 1; ++part", ALL_COUPLED),
                ("warp & 2 ? upper : lower", "lower", ALL_COUPLED),
            )
        ),
        ("ising", "ising.cu", "if (CLASSES == 2) flips |= ~all;", "", TINY),
        ("ising", "ising.cu", "cell + (cells - words)", "cell", TINY),
        ("ising", "ising.cu", "masks[4 * part + i]", "masks[i]", LARGE_LATTICE),
        ("ising", "ising.cu", "part < PARTS && open", "part < 1 && open", LARGE_LATTICE),
        ("ising", "ising.cu", "masks[BITS].of[i], all", "0, all", HOT),
        ("ising", "ising.cu", "settings.first_lattice + lattice", "lattice", ISING),
        ("ising", "ising.cu", "settings.step + sweep", "settings.step", TINY),
        ("ising", "ising.cu", "count[i] & ~own", "count[i]", FIELD),
        ("spin_glass", "spin_glass.cu", "plane[0] ^= a ^ b;", "plane[0] ^= a;", GLASS),
        ("spin_glass", "spin_glass.cu", "(start & 1) * BITS", "0", DENSE),
        ("spin_glass", "spin_glass.cu", "settings.first_group + group", "group", GLASS),
        ("spin_glass", "spin_glass.cu", "part < PARTS && open", "part < 1 && open", GLASS),
        ("spin_glass", "spin_glass.cu", "sweep * 2 + odd", "odd", CYCLIC),
        ("spin_glass", "spin_glass.cu", "spin ^ flips", "spin ^ open", GLASS),
        ("thermodynamics", "thermodynamics.cu", "+ (difference * (share * total)) * difference", "", SPLIT),
        ("thermodynamics", "thermodynamics.cu", "spread *= factor;", "", SPLIT),
        ("thermodynamics", "thermodynamics.cu", "finite(mean + moved)", "mean", SPLIT),
        ("thermodynamics", "thermodynamics.cu", "return larger(distance, ", "return larger(distance, -1 / Real(0) + ",
         "infinities rows=5 columns=512 float32"),
        ("gaussian_rbm", "rbm_gibbs.cu", "x /= sigma", "x *= sigma", GAUSSIAN),
        ("gaussian_rbm", "rbm_gibbs.cu", "1.0 / sqrt(", "1.0 / (",
         "cold chains=65 visible=33 hidden=65 sweeps=1 float32"),
        ("gaussian_rbm", "triton_kernels.py", "* drawn + offset", "* (drawn + offset)", GAUSSIAN),
        ("gaussian_rbm", "triton_kernels.py", "state /= tl.load", "state *= tl.load", GAUSSIAN),
        ("rbm_gibbs", "rbm_gibbs.cu", "words.word[u]", "words.word[0]", GIBBS),
        ("rbm_gibbs", "rbm_gibbs.cu", "(units + 3) / 4", "units / 4", GIBBS),
        ("rbm_gibbs", "rbm_gibbs.cu", "start + k < given_units && tile_unit", "tile_unit", GIBBS),
        ("rbm_gibbs", "rbm_gibbs.cu", "        }\n        __syncthreads();", "        }\n", GIBBS),
        ("rbm_gibbs", "tile.cuh", "part < PRODUCTS; ++part)\n#pragma unroll\n                for (int j",
         "part < PRODUCTS - 1; ++part)\n#pragma unroll\n                for (int j", INT8X3),
        ("rbm_gibbs", "tile.cuh", "part * S::subs + sub", "sub", BF16X3),
        ("rbm_gibbs", "tile.cuh", "copy_async_wait<S::stages - 2>", "copy_async_wait<S::stages - 1>", BF16),
        ("rbm_gibbs", "tile.cuh", "__syncthreads();  // this", "// this", BF16),
        ("rbm_gibbs", "tile.cuh", "a[tile][1][half] = q.z", "a[tile][1][half] = q.x", INT8X3),
        ("rbm_gibbs", "tile.cuh", "first_unit = tile_unit + warp_unit", "first_unit = tile_unit", INT8X3),
        ("rbm_gibbs", "tensor_cores.cuh", "bits >> (8 * product + 4)", "bits >> 8 * product", PACKED),
        ("rbm_gibbs", "tile.cuh", "(PACKED ? 2 : 16) * quarter", "(PACKED ? 1 : 16) * quarter", PACKED),
        ("rbm_gibbs", "clusters.cu", "cluster_sync<CLUSTER>();  // all hidden", "// all hidden", CLUSTER),
        ("rbm_gibbs", "clusters.cu", "cluster_sync<CLUSTER>();  // all visible", "// all visible", CLUSTER),
        ("rbm_gibbs", "clusters.cu", "++sweep, ++step", "++sweep", CLUSTER),
        ("rbm_gibbs", "resident.cu", *NO_TURNS, BF16_RESIDENT),
        ("rbm_gibbs", "resident.cu", "number = 0;", "number = 2;", PACKED),
        ("rbm_gibbs", "resident.cu", "first_sweep + (u32)(number / 2)", "first_sweep", PACKED),
        ("rbm_gibbs", "resident.cu", "first_chain + block_chain", "first_chain", PACKED),
        ("rbm_gibbs", "resident.cu", "weights += K::products * part_bytes", "weights += part_bytes", PACKED),
        ("rbm_gibbs", "resident.cu", "load_matrices<true>", "load_matrices<false>", BF16_RESIDENT),
        ("rbm_gibbs", "resident.cu", "unit % SLAB / 8 + 2 * m", "2 * m", BF16X3_RESIDENT),
        ("rbm_gibbs", "resident.cu", "unit % 4 / 2 * 8 + unit % 16 / 4 * 2", "unit % 4 / 2 * 2 + unit % 16 / 4 * 4",
         BF16_RESIDENT),
        ("rbm_gibbs", "resident.cu", "S::unit(0, e) & 1", "e & 1", CLAMPED_RESIDENT),
        ("rbm_gibbs", "tensor_cores.cuh", "group_step = S::group_step / 4", "group_step = 1", BF16_RESIDENT),
        ("rbm_gibbs", "triton_tile.py", "bits << tl.arange(0, 32)", "bits << 31 - tl.arange(0, 32)", PACKED),
        ("rbm_gibbs", "triton_tile.py", "first * 256 + second", "first * 128 + second", INT8X3),
        ("rbm_gibbs", "triton_tile.py", "fma(u, exponential(logit, beta), u)", "fma(u, exponential(logit, beta), 0)",
         BF16),
        ("rbm_gibbs", "triton_resident.py", "% 4 * 4 + place // 8 % 2 * 2", "% 4 * 2 + place // 8 % 2 * 8",
         BF16_RESIDENT),
        ("rbm_gibbs", "triton_resident.py", "tl.trans(exact_dot_operand(w0))", "exact_dot_operand(w0)", BF16_RESIDENT),
        ("rbm_gibbs", "triton_resident.py", "fate & 2 != 0", "fate & 1 != 0", CLAMPED_RESIDENT),
        ("rbm_gibbs", "triton_resident.py", "number * rows", "0 * rows", PACKED),
        ("rbm_gibbs", "triton_resident.py", "first_chain + own", "own", BF16_RESIDENT),
        ("rbm_gibbs", "triton_resident.py", "step + half // 2", "step", PACKED),
        ("rbm_gibbs", "triton_kernels.py", "part + part_size + part_size", "part + part_size", INT8X3),
        ("rbm_gibbs", "triton_kernels.py", "part += part_size", "part += 0", BF16X3),
        ("rbm_gibbs", "philox.cuh", "round < 10", "round < 9", GIBBS),
        ("rbm_free_energy", "rbm_free_energy.cu", "lanes < 4; lanes *= 2", "lanes < 2; lanes *= 2", FREE_ENERGY),
        ("rbm_free_energy", "rbm_free_energy.cu", "part < gridDim.y && mine", "part + 1 < gridDim.y && mine",
         TILES_OF_UNITS),
        ("rbm_free_energy", "binary_product.cuh", "PARTS<float> = 3", "PARTS<float> = 2", FEW_TERMS),
        ("rbm_gradient", "rbm_gradient.cu", "other += UNITS)", "other += 2 * UNITS)", GRADIENT),
        ("rbm_gradient", "rbm_gradient.cu", "blockIdx.z * model_part", "0", PARTS_OF_CHAINS),
        ("rbm_gradient", "binary_product.cuh", "PARTS<float> = 3", "PARTS<float> = 2", FEW_CHAINS),
        ("rbm_gradient", "binary_product.cuh", "term + t + 1, row + r, end)", "term + t, row + r, end)", GRADIENT),
        ("sgld", "sgld.cu", "{x - n.drift * g, 0, 1}", "{x - 2 * n.drift * g, 0, 1}", SGLD),
        ("sgld", "sgld.cu", "(group + part)", "group", "tensors=1 elements=5003 bfloat16"),
        ("sgld", "sgld.cu", "(u32)tensor.number", "0", "mixed tensors=9 elements=1031 float32"),
        ("sgld", "sgld.cu", "draws.group += STRIDE / 4;", "", SGLD),
        ("sgld", "philox.cuh", "word1 ^ doubled", "word1", SGLD),
        ("sgld", "philox.cuh", "f > 0.75f ? near", "f > 0.875f ? 1.442695f * rest", SGLD),
        ("sgld", "sgld.cu", "random.word[j], true", "random.word[j], false", STOCHASTIC),
        ("sgld", "sgld.cu", "group >> 1 | group_high << 31", "group", STOCHASTIC),
        ("psgld", "sgld.cu", "element.scale * z", "z", PSGLD),
        ("psgld", "sgld.cu", "n.take * g * g", "n.take * g", PSGLD),
        ("sghmc", "sgld.cu", "n.keep * state - n.drift * g, 1", "state - n.drift * g, 1", SGHMC),
        ("sghmc", "sgld.cu", "element.x + element.state", "element.x", SGHMC),
        ("logsumexp", "triton_kernels.py", "rescale(total, peak, new_peak, scale) + tl.sum", "total + tl.sum", SPLIT),
        ("logsumexp", "triton_kernels.py", "column + whole < end", "column + whole < end - 1", LOGSUMEXP),
        ("logsumexp", "triton_kernels.py", "begin, whole, STEP", "begin, whole - STEP, STEP",
         "rows=70 columns=128 bfloat16"),
        ("logsumexp", "triton_kernels.py", "== splits - 1", "== splits - 2", SPLIT),
        *(
            ("generalised_cross_entropy", "triton_kernels.py", old, new, case)
            for old, new, case in (
                ("label_place = label - start", "label_place = label", "split backward rows=2 columns=70000 bfloat16"),
                ("tl.load(grad + row) * power", "tl.load(grad + row)", SLOPES),
                ("tl.where(label == ignore_index, 0.0, result)", "result", IGNORED),
                ("tl.where(y == 1.0, -x, tl.where(y < 0.5, 1.0 - y, near))", "1.0 - y",
                 "tiny rows=33 columns=300 float32"),
            )
        ),
        ("annealed_langevin", "triton_kernels.py", "_moved(x3, z3, factor)", "_moved(x3, z0, factor)", WALK),
        ("annealed_langevin", "triton_kernels.py", "first_step + step, WALKERS", "first_step, WALKERS", WALK),
        ("annealed_langevin", "triton_kernels.py", "(passed < 0) & ", "", WALKED),
        *(
            ("boltzmann_gibbs", "triton_kernels.py", old, new, case)
            for old, new, case in (
                ("begin // UNITS * UNITS", "begin", COLOURED),
                ("at % 4 >= 2", "at % 4 >= 3", ALL_COUPLED),
                ("first_step + sweep", "first_step", UNITS_LATTICE),
                ("tl.where(held != 0, ", "tl.where(held != held, ", f"clamped {COLOURED}"),
            )
        ),
        ("ising", "triton_kernels.py", "last_bits - 1, 31)", "31, 31)", ISING),
        ("ising", "triton_kernels.py", "31 - 4 * part - i", "31 - i", LARGE_LATTICE),
        ("ising", "triton_kernels.py", "EVEN_SITES + colour", "EVEN_SITES", HEAT_BATH),
        ("spin_glass", "triton_kernels.py", "_mask(bond & 1)", "_mask(bond & 0)", GLASS),
        ("spin_glass", "triton_kernels.py", "31 - 4 * part - j", "31 - j", GLASS),
        ("spin_glass", "triton_kernels.py", "(start & 1)) * CLASSES", "0) * CLASSES", DENSE),
        ("thermodynamics", "triton_kernels.py", "+ total * difference * difference", "", LOGSUMEXP),
        ("thermodynamics", "triton_kernels.py", "spread * factor", "spread", SPLIT),
        ("thermodynamics", "triton_kernels.py", "    distance = finite(distance)\n", "",
         "infinities rows=5 columns=512 float32"),
        ("rbm_gibbs", "triton_kernels.py", "interleave4(w0, w1, w2, w3)", "interleave4(w0, w1, w2, w2)", GIBBS),
        ("rbm_gibbs", "triton_kernels.py", "k_mask = k < given_units", "k_mask = k < given_units - 1", GIBBS),
        ("rbm_free_energy", "triton_kernels.py", "terms, 1.0", "terms, 0.75", FREE_ENERGY),
        ("rbm_free_energy", "triton_kernels.py", "for other in range(tl.num_programs(1))",
         "for other in range(tl.num_programs(1) - 1)", TILES_OF_UNITS),
        ("rbm_gradient", "triton_kernels.py", "inside = row < end - start", "inside = row < end - start - 1", GRADIENT),
        ("rbm_gradient", "triton_kernels.py", "part * data_part, part * model_part", "part * data_part, 0",
         PARTS_OF_CHAINS),
        ("sgld", "triton_kernels.py", "NOISE + number * 256", "NOISE + step * 0",
         "mixed tensors=9 elements=1031 float32"),
        ("sgld", "triton_kernels.py", "even + 1, high", "even, high", "tensors=1 elements=5003 bfloat16"),
        ("sgld", "triton_kernels.py", "w0, w0, w1, w1", "w0, w1, w0, w1", STOCHASTIC),
        ("psgld", "triton_kernels.py", "tl.sqrt(preconditioner) * z", "preconditioner * z", PSGLD),
        ("sghmc", "triton_kernels.py", "x += state", "x += keep * state", SGHMC),
    )
)  # fmt: skip
