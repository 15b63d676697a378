"""Wrong kernels of `generalised_cross_entropy`: see `support/wrong_kernels.py`."""

from collections.abc import Callable

import torch
from boltzbench.harness import Inputs, Launch, Status, Tensors
from boltzbench.kernels.rows import softmax
from support.wrong_kernels import Prepare, WrongKernel, mutants, shipped, spoiled
from torch import Tensor

OPERATION = "generalised_cross_entropy"

LOSS = "rows=37 columns=1031 float32"
SLOPES = "backward rows=37 columns=1031 float32"
IGNORED = "ignored rows=7 columns=512 float32"
LEVEL = "level rows=14 columns=67 float32"
LEVEL_SLOPES = "level backward rows=14 columns=67 float32"
CROSS_ENTROPY_LEVEL_SLOPES = "cross-entropy level backward rows=14 columns=67 float32"
INFINITE = "infinities rows=7 columns=512 float32"


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


def slopes_from_a_rounded_lse(inputs: Inputs, outputs: Tensors) -> Launch:
    """The log-sum-exp has the precision of accumulation, but is rounded at the level of its row."""

    def launch() -> Tensors:
        lse, labels = inputs["lse"][:, None], inputs["labels"][:, None]
        x = inputs["logits"].to(lse.dtype)
        slope = torch.exp(x - lse).scatter_add(1, labels, -torch.ones_like(lse))
        power = torch.exp(inputs["q"] * (x.gather(1, labels) - lse))
        outputs["dlogits"].copy_(inputs["grad"][:, None] * power * slope)
        return outputs

    return launch


def subtracts_a_rounded_lse(inputs: Inputs, outputs: Tensors) -> Launch:
    def launch() -> Tensors:
        x = inputs["logits"]
        log_total, peak = softmax.sums(x, 1, 1.0)
        log_p = x.gather(1, inputs["labels"][:, None])[:, 0] - (peak + log_total)
        results = {"loss": -torch.expm1(inputs["q"] * log_p) / inputs["q"], "log_total": log_total, "peak": peak}
        return {name: outputs[name].copy_(result) for name, result in results.items()}

    return launch


def takes_the_total_from_a_rounded_lse(inputs: Inputs, outputs: Tensors) -> Launch:
    launch_shipped = shipped(OPERATION)(inputs, outputs)

    def launch() -> Tensors:
        launch_shipped()
        outputs["log_total"].copy_(torch.logsumexp(inputs["logits"], 1) - outputs["peak"])
        return outputs

    return launch


WRONG_KERNELS = (
    *(
        WrongKernel(compute.__name__, OPERATION, case, Status.WRONG_VALUES, _of_labels(compute))
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
        WrongKernel(prepare.__name__, OPERATION, case, Status.WRONG_VALUES, prepare)
        for prepare, case in (
            (slopes_from_a_rounded_lse, LEVEL_SLOPES),
            (slopes_from_a_rounded_lse, CROSS_ENTROPY_LEVEL_SLOPES),
            (slopes_from_a_rounded_lse, "level backward rows=14 columns=67 float64"),
            (slopes_from_a_rounded_lse, "level backward rows=14 columns=67 bfloat16"),
            (subtracts_a_rounded_lse, LEVEL),
            (takes_the_total_from_a_rounded_lse, LEVEL),
        )
    ),
    *spoiled(
        OPERATION,
        ("ignores_q", "half rows=33 columns=300 float32", Status.WRONG_VALUES, lambda inputs: {"q": 0.7}),
        ("misses_the_ignore_index", "ignored backward rows=7 columns=512 float32", Status.WRONG_VALUES,
         lambda inputs: {"ignore_index": -1, "labels": inputs["labels"].clamp(min=0)}),
    ),
    *mutants(
        OPERATION,
        ("generalised_cross_entropy.cu", "place == label_place", "place + 1 == label_place", SLOPES),
        ("generalised_cross_entropy.cu", "label) - shift;", "label);", LOSS),
        ("generalised_cross_entropy.cu", "- (level == -infinity() ? Real(0) : log_total)", "- log_total", INFINITE),
        ("generalised_cross_entropy.cu", "n, label) - shift) - level", "n, label) - (shift + level))", LEVEL_SLOPES),
        ("generalised_cross_entropy.cu", "peak ? log_total : level", "peak ? level - shift : level", LEVEL),
        ("rows/softmax.cuh", "weight(fused(distance, scale,",
         "weight(fused(x, scale, -fused(peak, scale, level))); return weight(fused(distance, scale,",
         CROSS_ENTROPY_LEVEL_SLOPES),
        ("generalised_cross_entropy.cu", "for (auto& part : chunk) part = {};",
         "factor;", "ignored backward rows=7 columns=512 float32"),
        ("triton_kernels.py", "label_place = label - start",
         "label_place = label", "split backward rows=2 columns=70000 bfloat16"),
        ("triton_kernels.py", "known, ACC) - peak) - level", "known, ACC) - (peak + level))", LEVEL_SLOPES),
        ("triton_kernels.py", "log_total if HAS_PEAK else level", "level - shift_of(peak)", LEVEL),
        ("rows/triton_softmax.py", "exponent.to(tl.float32)",
         "(z * high - (peak * high + scaled_level)[None, :, None, None])", CROSS_ENTROPY_LEVEL_SLOPES),
        ("triton_kernels.py", "tl.load(grad + row) * power", "tl.load(grad + row)", SLOPES),
        ("triton_kernels.py", "tl.where(label == ignore_index, 0.0, result)", "result", IGNORED),
        ("triton_kernels.py", "tl.where(y == 1.0, -x, tl.where(y < 0.5, 1.0 - y, near))",
         "1.0 - y", "tiny rows=33 columns=300 float32"),
        ("generalised_cross_entropy.cpp", "labels[i] - first;", "labels[i];",
         "split backward rows=2 columns=70000 bfloat16"),
        ("generalised_cross_entropy.cpp", "- (level == -INF ? Vector{} : log_total)", "- log_total", INFINITE),
        ("generalised_cross_entropy.cpp", " & ~ignored);", ");", "ignored backward rows=7 columns=512 float32"),
        ("generalised_cross_entropy.cpp", "some) - shift) + probability.level",
         "some) - (shift - probability.level))", LEVEL_SLOPES),
        ("native/functions.hpp", "fma(power, fma(rest * rest, series, rest), power - 1.0f)",
         "exp(x) - 1.0f", "tiny rows=33 columns=300 float32"),
    ),
)  # fmt: skip
