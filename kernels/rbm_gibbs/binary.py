"""Block Gibbs with binary visible and hidden units.

Energy ``E(v, h) = -b.v - c.h - v.W.h`` with units 0/1 and ``p(v, h)`` proportional to ``exp(-beta E)``. One sweep draws
``h_j ~ Bernoulli(sigmoid(beta (c_j + sum_i v_i W_ij)))`` for all hidden units, then
``v_i ~ Bernoulli(sigmoid(beta (b_i + sum_j W_ij h_j)))`` for all visible ones.

Source: Hinton, "Training products of experts by minimizing contrastive divergence", Neural Computation 14 (2002).
"""

from functools import partial

import torch
from torch import Tensor

from ..common.derivatives import not_differentiable
from ..common.dispatch import backend_module, choose_backend, require_tensor, running_on, unavailable
from ..common.prepared import keep
from ..machines.chain_checks import beta_faults, require_beta, require_clamped, require_no_fault
from ..philox import Stream
from .checks import GibbsResult, finite_faults, require_biases, require_place, require_result, sweep_faults
from .half_sweeps import note_results, run_half_sweeps
from .prepared import PRECISIONS, WEIGHT_DTYPES, Operand, PreparedWeights
from .request import LaunchRequest
from .states import aligned_rows, has_aligned_rows, in_own_rows, padding_is_zero, words_of

PLANS = ("auto", "resident", "cluster", "half_sweeps")


@not_differentiable("beta")
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
        visible: uint8 states 0 or 1, shape (chains, visible units); not modified. For prepared weights they may be
            packed by `pack_states`: int64, (chains, ceil(visible units / 64)), unit ``j`` in bit ``j % 64`` of word
            ``j // 64``. The result is then packed too.
        weights: shape (visible units, hidden units), float32, float16 or bfloat16; any strides. Sums are float32. Or
            the result of `prepare_weights` on such a matrix, which must not have been written to since.
        visible_bias, hidden_bias: one value for each unit, ``weights``'s dtype.
        sweeps: the number of sweeps, at least 1.
        beta: the inverse temperature, from 0 to the largest float32 number: a number, or one for each chain, shape
            (chains,), float32 or float64.
        seed: the key of the random stream, in [0, 2**64). Its uniform numbers have 24 bits: a unit with a smaller
            probability than ``2**-24`` (6e-8) is still 1 that often.
        first_sweep: the number of the first sweep in the stream. To continue a run, pass the number of sweeps done so
            far, so that no random number is used twice. It may be an int64 tensor of one element on the device, which
            the kernels read when they run: replays of a captured graph then continue the stream if something adds to
            that tensor between them.
        first_chain: the number of the first chain in the stream. A batch split over calls draws the same states.
        clamped: bool, shape (visible units,) or (chains, visible units): these visible units keep their state.
        return_hidden_probability: also compute ``P(h = 1 | v)`` for the final visible states.
        out: contiguous tensors to write to. They share no memory with each other or with the arguments.
        check_values: check that states are 0 or 1, that parameters are finite, and the range of tensors ``beta`` and
            ``first_sweep``. On a GPU this waits for the device; a loop over its own states can switch it off.
        precision: the expected precision of ``weights``; a plain matrix is ``float32``. Another one raises.
        plan: how launches are organised. ``half_sweeps``: one launch for each half sweep. ``resident``: one launch for
            all sweeps, with prepared weights in shared memory, if they fit. On an H200 they fit up to 256 x 256 units
            in ``bf16``, and in the other precisions up to 128 x 128 in Triton and 128 x 192 in CUDA C; Triton runs
            this plan only on sm_90, and takes clamped units only for unpacked states outside ``int8x3``.
            ``cluster``: one launch for all sweeps, with prepared weights, by clusters of 8 blocks; only in CUDA C
            (``cupy``), on sm_90 and later. ``auto``: for two sweeps or more ``resident`` if it fits, else ``cluster``
            for up to 1024 chains and 2048 units (1024 where there are three products), else ``half_sweeps``. If the
            backend is ``auto`` too, ``resident`` runs in CUDA C, unless Triton draws fewer units of padding: tiles
            have 256 units in ``bf16`` and 128 in the others, and in Triton 64, 128 or 256. On a CPU ``native`` runs
            ``resident`` for any weights: each thread takes chains through all sweeps. All plans and backends draw the
            same states in ``int8x3``.
        backend: ``auto``, ``torch``, ``triton``, ``cupy``, or on a CPU ``native``.

    Without ``check_values`` no step waits for the device, and a CUDA graph can capture a call like one that has run
    before. A graph hides the cost of launches for small batches of a machine too large for ``resident``. Every replay
    draws the same random numbers, unless ``first_sweep`` is a tensor that advances::

        with torch.cuda.graph(graph):
            gibbs(v, prepared, b, c, 10, seed=1, first_sweep=done, out=result, check_values=False)
            v.copy_(result.visible)
            done += 10

    Raises:
        TypeError: an argument is not a dense tensor of a supported dtype.
        ValueError: shapes do not match, a state is not 0 or 1, a parameter is NaN or infinite, a number is out of
            range, prepared weights are out of date, ``precision`` is not that of ``weights``, ``backend`` is unknown
            or cannot run here, or ``plan`` is unknown or not available for these arguments.

    Unit ``j`` of chain ``i`` in sweep ``t`` draws word ``j % 4`` of group ``(first_chain + i) * ceil(units / 4) +
    j // 4`` at step ``first_sweep + t`` of the stream for its layer, and is 1 if ``u < p``.

    The result has no derivative, on any backend: it is detached, and the transforms of ``torch.func`` raise
    NotImplementedError. For ``P(h = 1 | v)`` with a gradient, pass the states to
    `boltzbench.kernels.rbm_gradient.hidden_probabilities`.
    """
    prepared = weights if isinstance(weights, PreparedWeights) else None
    matrix = prepared.source if prepared is not None else weights
    require_tensor("visible", visible, (torch.uint8, torch.int64), None)
    matrix = require_tensor("weights", matrix, WEIGHT_DTYPES, visible.device)
    parameters = {"weights": matrix, "visible_bias": visible_bias, "hidden_bias": hidden_bias}
    for name, value in parameters.items():
        require_tensor(name, value, (matrix.dtype,), visible.device)
    _require_shapes(visible, matrix, visible_bias, hidden_bias, prepared)
    _require_precision(prepared, precision)
    (visible_units, hidden_units), chains, device = matrix.shape, len(visible), visible.device
    seed, first_step, sweeps, first_chain, counted_from = require_place(
        seed, first_sweep, sweeps, first_chain, chains, max(matrix.shape), device
    )
    beta = require_beta(beta, chains, device)
    clamped = require_clamped(clamped, torch.Size((chains, visible_units)), device)
    packs = visible.dtype is torch.int64
    if check_values:
        faults = sweep_faults(counted_from, sweeps)
        if packs:
            faults["visible must hold 0 beyond the last unit"] = ~padding_is_zero(visible, visible_units)
        else:
            faults["visible must hold only 0 and 1"] = (visible > 1).any()
        require_no_fault(faults | finite_faults(parameters) | beta_faults(beta))
    chosen, plan = _choose(plan, backend, prepared, visible, sweeps, clamped is not None)
    kernels = backend_module(chosen, __package__)
    result = require_result(
        out, {"visible": visible, **parameters, "clamped": clamped, "beta": beta},
        (words_of(hidden_units) if packs else hidden_units, visible.dtype),
        hidden_units if return_hidden_probability else None,
    )  # fmt: skip

    current, last_visible, last_hidden = map(in_own_rows, (visible.contiguous(), result.visible, result.hidden))
    to_hidden_weights: Tensor | Operand = matrix
    to_visible_weights: Tensor | Operand = matrix.t()
    if prepared is not None and prepared.to_hidden is not None and prepared.to_visible is not None:
        to_hidden_weights, to_visible_weights = prepared.to_hidden, prepared.to_visible
        hidden_bias, visible_bias = hidden_bias.to(torch.float32), visible_bias.to(torch.float32)
    in_bytes = not packs and isinstance(to_hidden_weights, Operand)
    takes_any_rows = chosen == "native" or (chosen, plan) == ("cupy", "resident")
    if in_bytes and not takes_any_rows:
        if not has_aligned_rows(current):
            current = keep(("given", current.shape), partial(aligned_rows, current)).copy_(current)
        last_visible, last_hidden = (
            states if has_aligned_rows(states) else keep((name, states.shape), partial(aligned_rows, states))
            for name, states in (("visible", last_visible), ("hidden", last_hidden))
        )
    common = partial(LaunchRequest, beta=beta, seed=seed, first_step=counted_from, first_chain=first_chain)
    to_hidden = partial(common, weights=to_hidden_weights, bias=hidden_bias.contiguous(), stream=Stream.HIDDEN)
    to_visible = partial(
        common, weights=to_visible_weights, bias=visible_bias.contiguous(), stream=Stream.VISIBLE, clamped=clamped
    )
    with running_on(device):
        if plan == "half_sweeps":
            steps = range(first_step, first_step + sweeps)
            run_half_sweeps(kernels.half_sweep, to_hidden, to_visible, current, last_hidden, last_visible, steps)
        else:
            all_sweeps = kernels.resident_sweeps if plan == "resident" else kernels.cluster_sweeps
            all_sweeps(
                to_hidden(given=current, out=last_hidden, step=first_step),
                to_visible(given=last_hidden, out=last_visible, step=first_step, previous=current),
                sweeps,
            )
        if result.hidden_probability is not None:
            given = last_visible
            if in_bytes and takes_any_rows and not has_aligned_rows(given):
                given = keep(("given", given.shape), partial(aligned_rows, given)).copy_(given)
            kernels.half_sweep(to_hidden(given=given, out=result.hidden_probability, step=0))
    for states, last in ((result.visible, last_visible), (result.hidden, last_hidden)):
        if states.data_ptr() != last.data_ptr():
            states.copy_(last)
    note_results(result)
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
    chosen = choose_backend(backend, device, __package__ or "")
    if plan == "half_sweeps" or (plan == "auto" and sweeps == 1):
        return chosen, "half_sweeps"
    if chosen == "native" and plan != "cluster":
        return chosen, "resident"
    names = [chosen]
    if backend == "auto" and device.type == "cuda":
        names = [name for name in ("cupy", "triton") if unavailable(name, device) is None]
    if prepared is not None:
        kernels = {name: backend_module(name, __package__) for name in names if name in ("cupy", "triton")}
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
            "resident": "backend native, or triton or cupy and prepared weights that fit in shared memory",
            "cluster": "backend cupy, prepared weights, and sm_90 or later",
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
