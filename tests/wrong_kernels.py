"""Kernels that are wrong in ways that kernels go wrong, each with the verdict that the shipped check must give it.

Two kinds: an honest torch implementation with one thing spoiled, and a *mutant*, a shipped kernel file with one line
changed. Each names the case (or law) that has to catch it, so that no case is there for nothing.
"""

import importlib.util
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import boltzbench.kernels
import torch
from boltzbench.harness import Implementation, Inputs, Launch, Status, Tensors
from boltzbench.kernels.logsumexp import logsumexp
from boltzbench.plugins import logsumexp as logsumexp_plugin
from boltzbench.plugins import rbm_gibbs as rbm_plugin
from boltzbench.plugins import sgld as sgld_plugin
from torch import Tensor

PLUGINS = {"logsumexp": logsumexp_plugin, "rbm_gibbs": rbm_plugin, "sgld": sgld_plugin}
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


# --- mutants


def mutant(operation: str, file: str, old: str, new: str) -> Prepare:
    """The shipped implementation of ``operation`` whose ``file`` has ``new`` in place of ``old``."""
    backend = "triton" if file == "triton_kernels.py" else "cupy"
    module_name = "triton_kernels" if backend == "triton" else "cuda_kernels"

    def prepare(inputs: Inputs, outputs: Tensors) -> Launch:
        temporary = tempfile.TemporaryDirectory(prefix="mutant-")
        folder = Path(temporary.name)
        for source in (*(KERNELS / operation).glob("*.*"), KERNELS / "philox.cuh"):
            shutil.copy(source, folder)
        text = (folder / file).read_text()
        assert text.count(old) >= 1, f"{file} no longer holds {old!r}"
        (folder / file).write_text(text.replace(old, new))
        package = f"boltzbench.kernels.{operation}"
        spec = importlib.util.spec_from_file_location(f"{package}.{folder.name}", folder / f"{module_name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        launch_shipped = PLUGINS[operation].prepare(backend, inputs, outputs)

        def launch() -> Tensors:
            assert temporary  # the source lives as long as the launch: CUDA C is compiled when it first runs
            with mock.patch.dict(sys.modules, {f"{package}.{module_name}": module}):
                return launch_shipped()

        return launch

    return prepare


LOGSUMEXP = "rows=37 columns=1031 float32"
WELL, ENUMERATION = "quadratic well", "enumeration beta=2"
GIBBS = "chains=70 visible=100 hidden=17 sweeps=1 float32"
SQUARE = "chains=256 visible=64 hidden=64 sweeps=1 float32"
BF16, BF16X3, INT8X3 = (f"{precision} {GIBBS}" for precision in ("bf16", "bf16x3", "int8x3"))
SGLD = "tensors=1 elements=5003 float32"

WRONG_KERNELS = (
    *(
        WrongKernel(compute.__name__, "logsumexp", case, Status.WRONG_VALUES, _forward(compute))
        for compute, case in (
            (drops_the_last_column, LOGSUMEXP),
            (drops_the_last_block, LOGSUMEXP),
            (sums_in_float16, "split rows=3 columns=70001 float32"),
            (never_rescales, LOGSUMEXP),
            (does_not_shift, "shifted rows=5 columns=512 float32"),
            (has_the_sign_wrong, LOGSUMEXP),
            (ignores_beta, "hot rows=5 columns=512 float32"),
            (answers_a_constant, LOGSUMEXP),
            (skips_nan, "nan rows=5 columns=512 float32"),
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
        WrongKernel(name, operation, caught_by, status, _with_inputs(operation, spoil))
        for name, operation, caught_by, status, spoil in (
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
            ("unclamps", "rbm_gibbs", "clamped chains=65 visible=33 hidden=65 sweeps=1 float32",
             Status.WRONG_VALUES, lambda inputs: {"clamped": None}),
            ("is_a_little_too_cold", "rbm_gibbs", ENUMERATION,
             Status.WRONG_LAW, lambda inputs: {"beta": 1.05 * inputs["beta"]}),
            ("is_too_hot", "rbm_gibbs", "enumeration beta=0.5",
             Status.WRONG_LAW, lambda inputs: {"beta": 0.8 * inputs["beta"]}),
            ("has_noise_of_variance_two", "sgld", WELL,
             Status.WRONG_LAW, lambda inputs: {"temperature": 2 * inputs["temperature"]}),
            ("ignores_the_temperature", "sgld", "hot tensors=1 elements=4097 float32",
             Status.WRONG_VALUES, lambda inputs: {"temperature": 1.0}),
            ("takes_a_whole_step_down", "sgld", SGLD,
             Status.WRONG_VALUES, lambda inputs: {"gradient_0": 2 * inputs["gradient_0"]}),
            ("reuses_its_noise", "sgld", WELL, Status.WRONG_LAW, lambda inputs: {"step": 0}),
            ("forgets_the_posterior's_noise", "sgld", "digits posterior",
             Status.WRONG_LAW, lambda inputs: {"temperature": 0.0}),
        )
    ),
    WrongKernel("freezes_a_unit", "rbm_gibbs", GIBBS, Status.WRONG_VALUES, freezes_a_unit),
    WrongKernel(
        "shares_uniforms_between_chains", "rbm_gibbs", GIBBS, Status.WRONG_VALUES, shares_uniforms_between_chains
    ),
    WrongKernel("shares_noise_between_neighbours", "sgld", WELL, Status.WRONG_LAW, shares_noise_between_neighbours),
)  # fmt: skip

MUTANTS = tuple(
    WrongKernel(f"{file}: {old} -> {new}", operation, caught_by, Status.WRONG_VALUES, mutant(operation, file, old, new))
    for operation, file, old, new, caught_by in (
        ("logsumexp", "logsumexp.cu", "int lanes = 16", "int lanes = 8", LOGSUMEXP),
        ("logsumexp", "logsumexp.cu", "__syncthreads();", "", LOGSUMEXP),
        ("logsumexp", "logsumexp.cu", "if (old_peak == new_peak) return;", "return;", LOGSUMEXP),
        ("logsumexp", "logsumexp.cu", "first < end;", "first + LANES < end;", LOGSUMEXP),
        ("logsumexp", "logsumexp.cu", "row % size2", "row % size1", LOGSUMEXP),
        ("logsumexp", "logsumexp.cu", "split < splits", "split + 1 < splits", "split rows=3 columns=70001 float32"),
        ("logsumexp", "logsumexp.cu", "* beta - level", "- level", "cold backward rows=67 columns=300 float32"),
        ("rbm_gibbs", "rbm_gibbs.cu", "words.word[u]", "words.word[0]", GIBBS),
        ("rbm_gibbs", "rbm_gibbs.cu", "(units + 3) / 4", "units / 4", GIBBS),
        ("rbm_gibbs", "rbm_gibbs.cu", "start + k < given_units && tile_unit", "tile_unit", GIBBS),
        ("rbm_gibbs", "rbm_gibbs.cu", "        }\n        __syncthreads();", "        }\n", GIBBS),
        ("rbm_gibbs", "tensor_cores.cu", "part < PRODUCTS; ++part)\n#pragma unroll\n                for (int j",
         "part < PRODUCTS - 1; ++part)\n#pragma unroll\n                for (int j", INT8X3),
        ("rbm_gibbs", "tensor_cores.cu", "part * S::subs + sub", "sub", BF16X3),
        ("rbm_gibbs", "tensor_cores.cu", "copy_async_wait<S::stages - 2>", "copy_async_wait<S::stages - 1>", BF16),
        ("rbm_gibbs", "tensor_cores.cu", "__syncthreads();  // this", "// this", BF16),
        ("rbm_gibbs", "tensor_cores.cu", "a[tile][1][half] = q.z", "a[tile][1][half] = q.x", INT8X3),
        ("rbm_gibbs", "tensor_cores.cu", "first_unit = tile_unit + warp_unit", "first_unit = tile_unit", INT8X3),
        ("rbm_gibbs", "triton_kernels.py", "weights + part_size + part_size", "weights + part_size", INT8X3),
        ("rbm_gibbs", "triton_kernels.py", "part += part_size", "part += 0", BF16X3),
        ("rbm_gibbs", "philox.cuh", "round < 10", "round < 9", GIBBS),
        ("sgld", "sgld.cu", "0.5 * step_size", "step_size", SGLD),
        ("sgld", "sgld.cu", "random_words(i / 4", "random_words(i / 8", SGLD),
        ("sgld", "sgld.cu", "(u32)tensor.number", "0", "mixed tensors=9 elements=1031 float32"),
        ("logsumexp", "triton_kernels.py", "_rescale(total, peak, new_peak, scale) + tl.sum", "total + tl.sum",
         "split rows=3 columns=70001 float32"),
        ("logsumexp", "triton_kernels.py", "(column < end)", "(column < end - 1)", LOGSUMEXP),
        ("rbm_gibbs", "triton_kernels.py", "interleave4(w0, w1, w2, w3)", "interleave4(w0, w1, w2, w2)", GIBBS),
        ("rbm_gibbs", "triton_kernels.py", "k_mask = k < given_units", "k_mask = k < given_units - 1", GIBBS),
        ("sgld", "triton_kernels.py", "NOISE + number * 256", "NOISE", "mixed tensors=9 elements=1031 float32"),
    )
)  # fmt: skip
