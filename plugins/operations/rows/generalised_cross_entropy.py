"""The operation ``generalised_cross_entropy``, forward and backward, and its three implementations."""

import math
from collections.abc import Callable, Mapping
from functools import partial

import torch
from boltzbench.harness import (
    Case,
    Cost,
    Expected,
    Inputs,
    Launch,
    Operation,
    Tensors,
)
from boltzbench.kernels.common.prepared import prepared
from boltzbench.kernels.generalised_cross_entropy import (
    generalised_cross_entropy_backward,
    generalised_cross_entropy_forward,
    reference,
)
from boltzbench.kernels.rows import accumulation_dtype, softmax
from boltzbench.plugins.support.operations import operation_hooks
from boltzbench.plugins.support.rows import (
    ACCESS,
    DTYPES,
    exponent_roundings,
    magnitude,
    roundoffs,
    row_case,
    row_sums,
    rows_of,
    smallest_kept,
)
from torch import Tensor

BOLTZBENCH_API = 1

QS = {"cross-entropy": 0.0, "tiny": 1e-6, "half": 0.5, "absolute": 1.0}
"""q by the first word of a scenario; 0.7, the authors' choice, in all other scenarios."""
IGNORED = -100

SHAPES = ((1 << 23, 8), (1 << 20, 128), (1 << 16, 2048), (1 << 12, 1 << 15), (1 << 9, 128256))
"""From a few classes to a vocabulary: a few lanes, a warp or a block take a row."""

_case: Callable[..., Case] = partial(row_case, "generalised_cross_entropy")

CASES = (
    *(_case(37, 1031, dtype, scenario) for dtype in DTYPES for scenario in ("", "backward")),
    *(_case(70, 128, dtype, scenario) for dtype in ("float32", "bfloat16") for scenario in ("", "backward")),
    *(_case(33, 300, scenario=f"{q}{pass_}") for q in QS for pass_ in ("", " backward")),
    *(
        _case(7, 512, scenario=f"{data}{pass_}")
        for data in ("outliers", "shifted", "infinities", "nan", "ignored", "expanded")
        for pass_ in ("", " backward")
    ),
    *(_case(14, 67, dtype, f"level{pass_}") for dtype in DTYPES for pass_ in ("", " backward")),
    *(_case(14, 67, scenario=f"cross-entropy level{pass_}") for pass_ in ("", " backward")),
    *(
        _case(67, 300, scenario=f"{data}{pass_}")
        for data in ("transposed", "sliced", "unaligned")
        for pass_ in ("", " backward")
    ),
    _case(7, 512, scenario="cross-entropy infinities"),
    _case(7, 512, scenario="cross-entropy infinities backward"),
    _case(3, 70001, scenario="split"),
    _case(2, 70000, "float16", "split"),
    _case(2, 70000, "bfloat16", "split backward"),
    _case(1, 4103, scenario="remainder"),
    _case(2001, 3, scenario="short"),
    _case(2001, 3, scenario="short backward"),
    _case(3, 1),
    _case(3, 1, scenario="backward"),
    _case(0, 7),
    _case(0, 7, scenario="backward"),
    *(_case(3, columns) for columns in (31, 33, 255, 257, 4095, 4097)),
    _case(1024, 1024, purpose="bench"),
    _case(1024, 1024, "float32", "backward", purpose="bench"),
    *(
        _case(rows, columns, dtype, scenario, purpose="bench", preset=preset)  # about 256 MB each in float32
        for dtype, scenario, preset in (
            ("float32", "", "quick"),
            ("bfloat16", "", "quick"),
            ("float32", "backward", "quick"),
            ("bfloat16", "backward", "quick"),
            ("float32", "cross-entropy", "full"),
            ("float32", "cross-entropy backward", "full"),
            ("float16", "", "full"),
            ("float64", "", "full"),
        )
        for rows, columns in SHAPES
    ),
)


def make_inputs(case: Case, device: torch.device) -> Inputs:
    """Rows as for log-sum-exp. Every other label is the likeliest class: a random class has a small ``p**q``, and then
    the loss hardly depends on the logits."""
    x, words = rows_of(case, device), case.scenario.split()
    rows, columns = x.shape
    generator = torch.Generator(device).manual_seed(case.seed + 1)
    labels = torch.randint(0, max(columns, 1), (rows,), generator=generator, device=device)
    if rows:
        labels[::2] = x[::2].nan_to_num().argmax(1)
    if "infinities" in words:
        x[3, labels[3]], x[4, labels[4]] = -torch.inf, torch.inf
        x[5, (labels[5] + 1) % columns] = torch.inf
    if "ignored" in words:
        x[0, 1], x[1, 2] = torch.nan, torch.inf
        labels[:3] = IGNORED
    inputs = {"logits": x, "labels": labels, "q": QS.get(words[0] if words else "", 0.7), "ignore_index": IGNORED}
    if "backward" in words:
        wide = accumulation_dtype(x.dtype)
        if x.numel():
            inputs |= row_sums(x, 1.0)
        else:
            inputs |= {name: x.new_empty(rows, dtype=wide) for name in ("lse", "log_total", "peak")}
        inputs["grad"] = torch.randn(rows, generator=generator, device=device).to(wide)
    inputs["apart"] = "level" in words
    return inputs


def make_outputs(inputs: Inputs) -> Tensors:
    logits = inputs["logits"]
    if "grad" in inputs:
        return {"dlogits": torch.empty_like(logits, memory_format=torch.contiguous_format)}
    wide = accumulation_dtype(logits.dtype)
    names = ("loss", "log_total", "peak") if inputs["apart"] else ("loss", "lse")
    return {name: logits.new_empty(len(logits), dtype=wide) for name in names}


def expected(inputs: Inputs, outputs: Tensors) -> Mapping[str, Expected]:
    """With u the unit roundoff of the accumulation, L the loss, w = p_y**q and n classes:

    - ``lse``: ``2u (|lse| + |max| + ln n + 1)``, as in log-sum-exp.
    - ``loss``: ``w (e + 3u |log p_y|) + 16 u L``. An implementation may subtract lse from the logit, so log p_y has the
      error e = ``2u (|lse| + |max| + |log p_y| + ln n + 1)``. The product with q, which is rounded too, adds three
      roundings. The exponential multiplies these errors by w. expm1 takes up to four functions and quotients of 2 ulp.
    - ``log_total`` and ``peak``, which together stand for ``lse`` in the scenario ``level``: the peak is exact, and
      log_total is the log-sum-exp of ``z - max``, the maximum of which is 0. So ``|max|`` drops out of all bounds, and
      log_total takes the place of lse, also in that of the loss.
    - ``dlogits``: p_i has the relative error ``u (r_i + 8)`` with r_i of `exponent_roundings`, as in the gradient of
      log-sum-exp. w has ``u (q (2 (|z_y| + |lse|) + 4 |log p_y|) + 8)``: its exponent is a difference, multiplied by a
      rounded q and by log2(e). In the scenario ``level`` it is a difference of a difference and log_total, neither
      larger than ``|log p_y|``, which then takes the place of ``|z_y| + |lse|``. A difference and two products add
      three roundings. Results below the smallest normal number may be flushed.
    """
    x, labels, q = inputs["logits"].double(), inputs["labels"], inputs["q"]
    u, u_out = roundoffs(inputs["logits"].dtype)
    if not x.numel():
        return {name: Expected(tensor.double()) for name, tensor in make_outputs(inputs).items()}
    chosen = x.gather(1, labels.clamp(min=0)[:, None])[:, 0]
    if "grad" not in inputs:
        loss, log_total, peak = reference.losses(x, labels, 1, q, inputs["ignore_index"])
        apart, log_n = inputs["apart"], math.log(x.shape[1])
        lse, highest = (log_total, 0.0) if apart else (peak + log_total, magnitude(peak))
        power, log_p = _power(q, chosen - peak - log_total)
        off = 2 * u * (magnitude(lse) + highest + log_p + log_n + 1) + 3 * u * log_p
        sums = Expected(lse, 2 * u * (magnitude(lse) + highest + log_n + 1))
        return {
            "loss": Expected(loss, power * off + 16 * u * magnitude(loss)),
            **({"log_total": sums, "peak": Expected(peak, 0.0)} if apart else {"lse": sums}),
        }
    grad, log_total, peak = (inputs[name].double() for name in ("grad", "log_total", "peak"))
    slope = reference.gradient(grad, x, labels, log_total, peak, 1, q, inputs["ignore_index"])
    grad = grad[:, None]
    power, log_p = _power(q, (chosen - peak - log_total)[:, None])
    p = softmax.probabilities(x, log_total, peak, 1, 1.0).nan_to_num()
    p_off = p * u * (exponent_roundings(x, 1.0, inputs) + 8)
    level = log_p if inputs["apart"] else magnitude(chosen)[:, None] + magnitude(peak + log_total)[:, None]
    power_off = u * (q * (2 * level + 4 * log_p) + 8).nan_to_num()  # an overflow, where the power is 0
    bound = (grad * power).abs() * p_off + magnitude(slope) * (power_off + 3 * u + u_out)
    return {"dlogits": Expected(slope, bound + smallest_kept(inputs["logits"].dtype) * (1.0 + grad.abs()))}


def _power(q: float, log_p: Tensor) -> tuple[Tensor, Tensor]:
    """``p**q`` and ``|log p|``; 0 where they are infinite or NaN."""
    return (torch.exp(q * log_p) if q else torch.ones_like(log_p)).nan_to_num(), magnitude(log_p)


def cost(case: Case) -> Cost:
    """The logit of the label counts once, as part of its row."""
    elements, rows = math.prod(case.sizes.values()), case.sizes["rows"]
    size, wide = case.torch_dtype.itemsize, accumulation_dtype(case.torch_dtype).itemsize
    if "backward" in case.scenario:
        read = elements * size + rows * (8 + 3 * wide)
        return Cost(elements, "elements", read, elements * size, 5 * elements, special_calls=elements)
    return Cost(elements, "elements", elements * size + 8 * rows, 2 * rows * wide, 4 * elements, special_calls=elements)


def prepare(backend: str, inputs: Inputs, outputs: Tensors) -> Launch:
    logits, labels, q = inputs["logits"], inputs["labels"], inputs["q"]
    run: Callable[[], object]
    options = {"ignore_index": inputs["ignore_index"], "backend": backend}
    if "grad" in inputs:
        arguments = (inputs["grad"], logits, labels, inputs["log_total"], q)
        more = {"peak": inputs["peak"], "out": outputs["dlogits"], **options}
        run = prepared(generalised_cross_entropy_backward, *arguments, **more)
    else:
        run = prepared(generalised_cross_entropy_forward, logits, labels, q, out=tuple(outputs.values()), **options)

    def launch() -> Tensors:
        run()
        return outputs

    return launch


OPERATION = Operation(
    name="generalised_cross_entropy",
    summary="A loss of softmax probabilities robust to label noise, and its gradient.",
    formula="L = (1 - p_y^q) / q with p = softmax(z); dL/dz_i = p_y^q (p_i - delta_iy); q = 0: cross-entropy",
    source="Z. Zhang, M. Sabuncu, NeurIPS 2018",
    kind="map",
    cases=CASES,
    make_inputs=make_inputs,
    make_outputs=make_outputs,
    reference=expected,
    cost=cost,
    case=_case,
)


register_operations, register_implementations = operation_hooks(
    OPERATION, prepare, "boltzbench.kernels.generalised_cross_entropy", note=ACCESS
)
