"""Block-Gibbs sampling of a restricted Boltzmann machine: k sweeps for a batch of chains in one call.

Energy ``E(v, h) = -b.v - c.h - v.W.h`` with units 0/1 and ``p(v, h)`` proportional to ``exp(-beta E)``. One sweep draws
``h_j ~ Bernoulli(sigmoid(beta (c_j + sum_i v_i W_ij)))`` for all hidden units, then
``v_i ~ Bernoulli(sigmoid(beta (b_i + sum_j W_ij h_j)))`` for all visible ones.

The products run in float32, or on tensor cores with weights that `prepare_weights` has split: see `prepared.py`.

Source: Hinton, "Training products of experts by minimizing contrastive divergence", Neural Computation 14 (2002).
"""

from functools import partial

import torch
from torch import Tensor

from ..common.dispatch import backend_module, choose_backend, note_written, require_tensor, running_on, unavailable
from ..philox import Stream
from .checks import (
    GibbsResult,
    Shapes,
    allocate,
    require_beta,
    require_biases,
    require_clamped,
    require_no_fault,
    require_place,
    require_results,
    sweep_faults,
)
from .gaussian import gaussian_gibbs
from .prepared import PRECISIONS, WEIGHT_DTYPES, Operand, PreparedWeights, prepare_weights
from .request import LaunchRequest
from .states import aligned_rows, has_aligned_rows, in_own_rows, pack_states, padding_is_zero, unpack_states, words_of

__all__ = [
    "PLANS",
    "PRECISIONS",
    "WEIGHT_DTYPES",
    "GibbsResult",
    "PreparedWeights",
    "gaussian_gibbs",
    "gibbs",
    "pack_states",
    "prepare_weights",
    "unpack_states",
]


PLANS = ("auto", "resident", "cluster", "half_sweeps")


def gibbs(
    visible: Tensor,
    weights: Tensor | PreparedWeights,
    visible_bias: Tensor,
    hidden_bias: Tensor,
    sweeps: int = 1,
    beta: float | Tensor = 1.0,
    *,
    seed: int,
    first_sweep: int | Tensor = 0,
    first_chain: int = 0,
    clamped: Tensor | None = None,
    return_hidden_probability: bool = False,
    out: GibbsResult | None = None,
    check_values: bool = True,
    precision: str | None = None,
    plan: str = "auto",
    backend: str = "auto",
) -> GibbsResult:
    """Advance every chain by ``sweeps`` sweeps of block Gibbs and return the new states.

    Args:
        visible: uint8 states 0 or 1, shape (chains, visible units); not modified. Or, for prepared weights, packed:
            what `pack_states` makes of them, int64 (chains, ceil(visible units / 64)), bit ``j % 64`` of word ``j //
            64`` for unit ``j``. Half sweeps then read and write bits, and the result is packed too.
        weights: shape (visible units, hidden units), float32, float16 or bfloat16; any strides. Sums are float32.
            Or what `prepare_weights` made of such a matrix, unless it was written to since.
        visible_bias, hidden_bias: one value for each unit, ``weights``'s dtype.
        sweeps: how many, at least 1.
        beta: the inverse temperature, finite and not negative: a number, or one for each chain, shape (chains,),
            float32 or float64.
        seed: the key of the random stream, in [0, 2**64).
        first_sweep: the number of the first sweep in the stream. A run continued in a second call passes the number
            of sweeps done so far, so that no random number is used twice. Or an int64 tensor of one element on the
            device, which the kernels read when they run: replays of a captured graph go on in the stream if the graph,
            or what comes between them, adds to it.
        first_chain: the number of the first chain in the stream; a batch split over calls gives the same states.
        clamped: bool, shape (visible units,) or (chains, visible units): these visible units keep their state.
        return_hidden_probability: also compute ``P(h = 1 | v)`` for the final visible states.
        out: contiguous tensors to write to, sharing no memory with each other or the arguments.
        check_values: look for states other than 0 and 1 and for parameters that are NaN or infinite. On a GPU this
            waits for the device; a loop that calls again and again with its own states can do without.
        precision: that of ``weights``, for a caller who wants to be sure of it: a plain matrix is ``float32``.
        plan: ``half_sweeps``, a launch for each; or one launch for all sweeps, with prepared weights: ``resident``
            with the weights in shared memory, if they find room there (on an H200 up to 256 x 256 units in ``bf16``;
            in the others 128 x 128 in Triton and 128 x 192 in CUDA C; Triton runs it on sm_90 alone, and clamped units
            neither packed nor in ``int8x3``); ``cluster`` in CUDA C (``cupy``) with 8 blocks to some chains, on sm_90
            and later. ``auto``: for two sweeps and more ``resident`` where it can be, else ``cluster`` for up to 1024
            chains and 2048 units (1024 where there are three products), else ``half_sweeps``. Where the backend is
            ``auto`` too, ``resident`` is that of CUDA C, unless it draws more units to fill its tiles than Triton
            does: tiles have 256 units in ``bf16`` and 128 in the others, and in Triton 64, 128 or 256. In ``int8x3``
            all draw the same states.
        backend: ``auto``, ``torch``, ``triton`` or ``cupy``.

    Without ``check_values`` nothing waits for the device, and a call that has run before can be captured in a CUDA
    graph: for a machine too large for ``resident`` that hides the launches of small batches. A replay draws the same
    random numbers again, unless ``first_sweep`` is a tensor that moves on::

        with torch.cuda.graph(graph):
            gibbs(v, prepared, b, c, 10, seed=1, first_sweep=done, out=result, check_values=False)
            v.copy_(result.visible)
            done += 10

    Raises:
        TypeError: an argument is not a dense tensor of a supported dtype.
        ValueError: shapes do not match, a state is not 0 or 1, a parameter is NaN or infinite, a number is out of
            range, prepared weights are out of date, ``precision`` is not that of ``weights``, ``backend`` is unknown
            or cannot run here, or ``plan`` is unknown or cannot be had.

    Unit ``j`` of chain ``i`` in sweep ``t`` draws word ``j % 4`` of group ``(first_chain + i) * ceil(units / 4) +
    j // 4`` at step ``first_sweep + t`` of the stream for its layer, and is 1 if ``u < p``.
    """
    prepared = weights if isinstance(weights, PreparedWeights) else None
    matrix = prepared.source if prepared is not None else weights
    require_tensor("visible", visible, (torch.uint8, torch.int64), None)
    matrix = require_tensor("weights", matrix, WEIGHT_DTYPES, visible.device)
    for name, bias in (("visible_bias", visible_bias), ("hidden_bias", hidden_bias)):
        require_tensor(name, bias, (matrix.dtype,), visible.device)
    _require_shapes(visible, matrix, visible_bias, hidden_bias, prepared)
    _require_precision(prepared, precision)
    first_step, counted_from = require_place(
        seed, first_sweep, sweeps, first_chain, len(visible), max(matrix.shape), visible.device
    )
    beta = require_beta(beta, visible)
    clamped = require_clamped(clamped, len(visible), len(matrix), visible.device)
    if check_values:
        faults = sweep_faults(counted_from, sweeps)
        _require_values(visible, matrix, visible_bias, hidden_bias, beta, faults)
    chosen, plan = _choose(plan, backend, prepared, visible, sweeps, clamped is not None)
    shapes = _result_shapes(visible, matrix, return_hidden_probability)
    result = out if out is not None else allocate(visible, shapes)
    arguments = {"visible": visible, "weights": matrix, "visible_bias": visible_bias, "hidden_bias": hidden_bias}
    arguments |= {} if clamped is None else {"clamped": clamped}
    arguments |= {"beta": beta} if isinstance(beta, Tensor) else {}
    require_results(result, shapes, arguments)
    kernels = backend_module(chosen, __name__)

    def half_sweep(half: LaunchRequest) -> None:
        with running_on(visible.device):
            kernels.half_sweep(half)

    current, last_visible, last_hidden = map(in_own_rows, (visible.contiguous(), result.visible, result.hidden))
    to_hidden_weights: Tensor | Operand = matrix
    to_visible_weights: Tensor | Operand = matrix.t()
    if prepared is not None and prepared.to_hidden is not None and prepared.to_visible is not None:
        to_hidden_weights, to_visible_weights = prepared.to_hidden, prepared.to_visible
        hidden_bias, visible_bias = hidden_bias.to(torch.float32), visible_bias.to(torch.float32)
    in_bytes = visible.dtype is torch.uint8 and isinstance(to_hidden_weights, Operand)
    if in_bytes and (chosen, plan) != ("cupy", "resident"):
        current = current if has_aligned_rows(current) else aligned_rows(current).copy_(current)
        last_visible, last_hidden = (
            states if has_aligned_rows(states) else aligned_rows(states) for states in (last_visible, last_hidden)
        )
    to_hidden = partial(
        LaunchRequest, weights=to_hidden_weights, bias=hidden_bias.contiguous(), beta=beta, seed=seed,
        first_step=counted_from, first_chain=first_chain, stream=Stream.HIDDEN,
    )  # fmt: skip
    to_visible = partial(
        LaunchRequest, weights=to_visible_weights, bias=visible_bias.contiguous(), beta=beta, seed=seed,
        first_step=counted_from, first_chain=first_chain, stream=Stream.VISIBLE, clamped=clamped,
    )  # fmt: skip
    if plan != "half_sweeps":
        all_sweeps = kernels.resident_sweeps if plan == "resident" else kernels.cluster_sweeps
        with running_on(visible.device):
            all_sweeps(
                to_hidden(given=current, out=last_hidden, step=first_step),
                to_visible(given=last_hidden, out=last_visible, step=first_step, previous=current),
                sweeps,
            )
        current = last_visible
        if in_bytes and not has_aligned_rows(current):
            current = aligned_rows(current).copy_(current)
    else:
        for step in range(first_step, first_step + sweeps):
            half_sweep(to_hidden(given=current, out=last_hidden, step=step))
            # Each new state depends on the hidden layer and, if clamped, on itself alone: it may overwrite its place.
            half_sweep(to_visible(given=last_hidden, out=last_visible, step=step, previous=current))
            current = last_visible
    if result.hidden_probability is not None:
        half_sweep(to_hidden(given=current, out=result.hidden_probability, step=0))
    for states, last in ((result.visible, last_visible), (result.hidden, last_hidden)):
        if states.data_ptr() != last.data_ptr():
            states.copy_(last)
    for written in result:
        if written is not None:
            note_written(written)
    return result


def _choose(
    plan: str,
    backend: str,
    prepared: PreparedWeights | None,
    visible: Tensor,
    sweeps: int,
    clamped: bool,
) -> tuple[str, str]:
    """The backend and the plan."""
    device, packed = visible.device, visible.dtype is torch.int64
    if plan not in PLANS:
        raise ValueError(f"plan must be one of {', '.join(PLANS)}; got {plan!r}")
    chosen = choose_backend(backend, device)
    if plan == "half_sweeps" or (plan == "auto" and sweeps == 1):
        return chosen, "half_sweeps"
    names = [chosen]
    if backend == "auto" and device.type == "cuda":
        names = [name for name in ("cupy", "triton") if unavailable(name, device) is None]
    if prepared is not None:
        kernels = {name: backend_module(name, __name__) for name in names if name != "torch"}
        able = [name for name, each in kernels.items() if each.resident_fits(prepared, clamped, packed, device)]
        if able and plan != "cluster":
            return min(able, key=lambda name: int(kernels[name].resident_units(prepared))), "resident"
        if "cupy" in kernels:
            clusters = kernels["cupy"]
            wanted = plan == "cluster" or (plan == "auto" and clusters.clusters_pay(prepared, len(visible), sweeps))
            if wanted and clusters.clusters_fit(prepared, device):
                return "cupy", "cluster"
    if plan != "auto":
        needs = {
            "resident": "backend triton or cupy, and prepared weights that fit in shared memory",
            "cluster": "backend cupy, and prepared weights and sm_90",
        }[plan]
        raise ValueError(f"plan {plan!r} needs {needs}")
    return chosen, "half_sweeps"


def _require_precision(prepared: PreparedWeights | None, wanted: str | None) -> None:
    given = prepared.precision if prepared is not None else "float32"
    if wanted is not None and wanted not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}; got {wanted!r}")
    if wanted is not None and wanted != given:
        raise ValueError(f"precision must be that of the weights, {given}, got {wanted!r}; prepare_weights splits them")
    if prepared is not None and not prepared.is_current:
        raise ValueError("weights must not be written to after prepare_weights: prepare them again")


def _require_shapes(
    visible: Tensor, weights: Tensor, visible_bias: Tensor, hidden_bias: Tensor, prepared: PreparedWeights | None
) -> None:
    if visible.dim() != 2:
        raise ValueError(f"visible must have shape (chains, visible units), got {tuple(visible.shape)}")
    if weights.dim() != 2:
        raise ValueError(f"weights must have shape (visible units, hidden units), got {tuple(weights.shape)}")
    if visible.dtype is torch.int64:
        if prepared is None or prepared.to_hidden is None:
            raise TypeError(
                "visible must have dtype uint8 for a plain matrix; only prepared weights take packed states"
            )
        if visible.shape[1] != words_of(len(weights)):
            raise ValueError(
                f"visible must have shape (chains, {words_of(len(weights))}), packed states of {len(weights)} visible "
                f"units, got {tuple(visible.shape)}"
            )
    elif len(weights) != visible.shape[1]:
        raise ValueError(
            f"weights must have shape ({visible.shape[1]}, hidden units) for {visible.shape[1]} visible units, "
            f"got {tuple(weights.shape)}"
        )
    require_biases(weights, visible_bias, hidden_bias)


def _require_values(
    visible: Tensor, weights: Tensor, visible_bias: Tensor, hidden_bias: Tensor, beta: float | Tensor,
    faults: dict[str, Tensor],
) -> None:  # fmt: skip
    if visible.dtype is torch.int64:
        faults["visible must hold 0 beyond the last unit"] = ~padding_is_zero(visible, len(weights))
    else:
        faults["visible must hold only 0 and 1"] = (visible > 1).any()
    for name, value in (("weights", weights), ("visible_bias", visible_bias), ("hidden_bias", hidden_bias)):
        faults[f"{name} must be finite"] = ~torch.isfinite(value).all()
    if isinstance(beta, Tensor):
        faults["beta must be finite and not negative"] = ~(torch.isfinite(beta) & (beta >= 0)).all()
    require_no_fault(faults)


def _result_shapes(visible: Tensor, weights: Tensor, with_probability: bool) -> Shapes:
    chains, hidden = len(visible), weights.shape[1]
    columns = words_of(hidden) if visible.dtype is torch.int64 else hidden
    return {
        "visible": (visible.shape, visible.dtype),
        "hidden": (torch.Size((chains, columns)), visible.dtype),
        "hidden_probability": (torch.Size((chains, hidden)), torch.float32) if with_probability else None,
    }
