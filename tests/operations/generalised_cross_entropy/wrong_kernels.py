"""Wrong kernels of `generalised_cross_entropy`: see `support/wrong_kernels.py`."""

from collections.abc import Callable

import torch
from boltzbench.harness import Inputs, Launch, Status, Tensors
from support.wrong_kernels import Prepare, WrongKernel, mutants, spoiled
from torch import Tensor

OPERATION = "generalised_cross_entropy"

LOSS = "rows=37 columns=1031 float32"
SLOPES = "backward rows=37 columns=1031 float32"
IGNORED = "ignored rows=7 columns=512 float32"
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
        ("generalised_cross_entropy.cu", "for (auto& part : chunk) part = {};",
         "factor;", "ignored backward rows=7 columns=512 float32"),
        ("triton_kernels.py", "label_place = label - start",
         "label_place = label", "split backward rows=2 columns=70000 bfloat16"),
        ("triton_kernels.py", "tl.load(grad + row) * power", "tl.load(grad + row)", SLOPES),
        ("triton_kernels.py", "tl.where(label == ignore_index, 0.0, result)", "result", IGNORED),
        ("triton_kernels.py", "tl.where(y == 1.0, -x, tl.where(y < 0.5, 1.0 - y, near))",
         "1.0 - y", "tiny rows=33 columns=300 float32"),
    ),
)  # fmt: skip
