"""Wrong kernels of `logsumexp`: see `support/wrong_kernels.py`."""

from collections.abc import Callable

import torch
from boltzbench.harness import Inputs, Launch, Status, Tensors
from boltzbench.kernels.logsumexp import logsumexp
from support.wrong_kernels import Prepare, WrongKernel, mutants
from torch import Tensor

OPERATION = "logsumexp"

LOGSUMEXP = "rows=37 columns=1031 float32"
LEVEL = "level backward rows=14 columns=67 bfloat16"
COLD_LEVEL = "cold level backward rows=14 columns=67 float32"
SPLIT = "split rows=3 columns=70001 float32"


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


def gradient_from_a_rounded_lse(inputs: Inputs, outputs: Tensors) -> Launch:
    """The log-sum-exp has the precision of accumulation, but is rounded at the level of its row."""

    def launch() -> Tensors:
        lse, beta = inputs["lse"], inputs["beta"]
        weights = torch.exp(inputs["x"].to(lse.dtype) * beta - lse[:, None])
        outputs["dx"].copy_(inputs["grad"].to(lse.dtype)[:, None] * beta * weights)
        return outputs

    return launch


WRONG_KERNELS = (
    *(
        WrongKernel(compute.__name__, OPERATION, case, Status.WRONG_VALUES, _forward(compute))
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
        WrongKernel(prepare.__name__, OPERATION, case, status, prepare)
        for prepare, case, status in (
            (no_operation, LOGSUMEXP, Status.WRONG_VALUES),
            (computes_in_prepare, LOGSUMEXP, Status.WRONG_VALUES),
            (caches_by_pointer, LOGSUMEXP, Status.WRONG_VALUES),
            (leaves_a_row_unwritten, LOGSUMEXP, Status.WRONG_VALUES),
            (gradient_from_a_rounded_result, "backward rows=37 columns=1031 bfloat16", Status.WRONG_VALUES),
            (gradient_from_a_rounded_lse, "level backward rows=14 columns=67 float32", Status.WRONG_VALUES),
            (gradient_from_a_rounded_lse, "level backward rows=14 columns=67 float64", Status.WRONG_VALUES),
            (gradient_from_a_rounded_lse, "level backward rows=14 columns=67 bfloat16", Status.WRONG_VALUES),
            (gradient_from_a_rounded_lse, "negative level backward rows=14 columns=67 float32", Status.WRONG_VALUES),
            (writes_past_the_end, LOGSUMEXP, Status.OUT_OF_BOUNDS),
            (shifts_its_input_in_place, LOGSUMEXP, Status.MODIFIED_INPUT),
            (keeps_the_dimension, LOGSUMEXP, Status.WRONG_SHAPE),
            (returns_float64, LOGSUMEXP, Status.WRONG_DTYPE),
            (raises, LOGSUMEXP, Status.ERROR),
        )
    ),
    *mutants(
        OPERATION,
        ("rows/softmax.cuh", "lanes > 0; lanes /= 2) total", "lanes > 1; lanes /= 2) total", LOGSUMEXP),
        ("rows/rows.cuh", "__syncthreads();\n        own", "own", LOGSUMEXP),
        ("rows/softmax.cuh", "if (old_peak == new_peak) return;", "return;", LOGSUMEXP),
        ("rows/rows.cuh", "/ STRIDE) + 1;", "/ STRIDE);", LOGSUMEXP),
        ("rows/rows.cuh", "k = whole + lane; k < end",
         "k = whole + lane; k < whole", "remainder rows=1 columns=4103 float32"),
        ("rows/rows.cuh", "return row * stride2", "return row * stride", LOGSUMEXP),
        ("rows/rows.cuh", "first + i * LANES < rows.splits", "first + i * LANES + 1 < rows.splits", SPLIT),
        ("rows/rows.cuh", "!= rows.splits - 1", "!= rows.splits - 2", SPLIT),
        ("rows/softmax.cuh", "= beta * 1.4", "= 1.4", "cold backward rows=67 columns=300 float32"),
        ("rows/softmax.cuh", "weight(fused(distance, scale,",
         "weight(fused(x, scale, -fused(peak, scale, level))); return weight(fused(distance, scale,", LEVEL),
        ("rows/softmax.cuh", "weight(fused(distance, scale,",
         "weight(x * scale - (peak * scale + level)); return weight(fused(distance, scale,", COLD_LEVEL),
        ("rows/softmax.cuh", "fused(distance, rest, -level) : -level",
         "-level : -level", "cold backward rows=67 columns=300 float32"),
        ("rows/rows.cuh", "k = first + i * STRIDE;\n        if (k >= n)",
         "k = first + i * STRIDE;\n        if (k >= n - WIDTH)", "backward rows=70 columns=128 bfloat16"),
        ("rows/triton_softmax.py", "rescale(total, peak, new_peak, scale) + tl.sum", "total + tl.sum", SPLIT),
        ("rows/triton_softmax.py", "scaled_level.to(tl.float64)[",
         "(scaled_level + high * peak).to(tl.float64)[", LEVEL),
        ("rows/triton_softmax.py", "exponent.to(tl.float32)",
         "(z * high - (peak * high + scaled_level)[None, :, None, None])", LEVEL),
        ("rows/triton_rows.py", "column + whole < end", "column + whole < end - 1", LOGSUMEXP),
        ("rows/triton_rows.py", "begin, whole, STEP", "begin, whole - STEP, STEP", "rows=70 columns=128 bfloat16"),
        ("rows/triton_rows.py", "== splits - 1", "== splits - 2", SPLIT),
        ("rows/softmax.hpp", "total * (peak == -INF ? Vector{} : factor)", "total", SPLIT),
        ("rows/softmax.hpp", "sum += first_lanes<Real>(rest) ? weight : Vector{};", "sum += weight;", LOGSUMEXP),
        ("rows/softmax.hpp", "sums[0].field[1] += sums[i].field[1];", "", LOGSUMEXP),
        ("rows/rows.hpp", "part < parts; ++part) whole", "part < parts - 1; ++part) whole", SPLIT),
        ("rows/softmax.hpp", "return exp(fma(distance, all(scale), fma(distance, all(rest), level)));",
         "return exp(fma(x, all(scale), level - peak * scale));", LEVEL),
    ),
)  # fmt: skip
