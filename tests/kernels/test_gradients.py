"""Derivatives of every differentiable function on every backend and in every mode, against float64 formulas in torch.

The backend must not decide whether there is a gradient: a function that differentiates does so on all backends, and the
result of one that does not is detached on all.
"""

import importlib
import pkgutil
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import pytest
import torch
from boltzbench import kernels
from boltzbench.kernels.ais import annealed_importance_sampling
from boltzbench.kernels.annealed_langevin import annealed_langevin
from boltzbench.kernels.common import dispatch
from boltzbench.kernels.enumeration import log_partition, rbm_log_partition
from boltzbench.kernels.generalised_cross_entropy import (
    generalised_cross_entropy,
    generalised_cross_entropy_backward,
    generalised_cross_entropy_forward,
)
from boltzbench.kernels.logsumexp import logsumexp, logsumexp_backward
from boltzbench.kernels.parallel_tempering import RbmReplicas, parallel_tempering
from boltzbench.kernels.rbm_free_energy import free_energy
from boltzbench.kernels.rbm_gibbs import gaussian_gibbs, gibbs
from boltzbench.kernels.rbm_gradient import log_likelihood_gradient
from boltzbench.kernels.rbm_training import (
    Machine,
    TrainingState,
    contrastive_divergence,
    exact_gradient,
    maximum_likelihood,
    model_statistics,
    persistent_contrastive_divergence,
)
from boltzbench.kernels.rows import formulas
from boltzbench.kernels.thermodynamics import thermodynamics
from boltzbench.plugins.exact.states import all_units
from support.devices import DEVICE
from torch import Tensor
from torch.autograd import forward_ad


@pytest.fixture(params=(*dispatch.BACKENDS, "native"))
def backend(request):
    reason = dispatch.unavailable(request.param, DEVICE)
    if reason is not None:
        pytest.skip(reason)
    return request.param


def numbers(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE, dtype)


def states(chains, units, seed=5):
    return (numbers(chains, units, seed=seed) > 0).to(torch.uint8)


class Function(NamedTuple):
    """``ours(*inputs, backend=...)`` and the same function of float64 inputs in plain torch."""

    public: Callable[..., Tensor]
    ours: Callable[..., Tensor]
    theirs: Callable[..., Tensor]
    inputs: tuple[Tensor, ...]
    tolerance: float = 1e-9


LABELS = torch.tensor([3, 0, -100, 4], device=DEVICE)
COUNTED = LABELS != -100
CLASS_WEIGHTS = torch.tensor([0.5, 2.0, 1.0, 0.25, 3.0], dtype=torch.float64, device=DEVICE)
VISIBLE = states(6, 5)


def loss_of(logits, q):
    log_p = torch.log_softmax(logits, 1).gather(1, LABELS.clamp(min=0)[:, None])[:, 0]
    losses = -log_p if q == 0 else (1 - torch.exp(q * log_p)) / q
    return torch.where(LABELS == -100, 0.0, losses)


def loss_of_shares(logits, t, weight, q):
    log_p = torch.log_softmax(logits, 1)
    return (t * weight * (-log_p if q == 0 else (1 - torch.exp(q * log_p)) / q)).sum(1)


def free_energy_of(weights, visible_bias, hidden_bias, beta, visible=VISIBLE):
    v, h = visible.double(), all_units(len(hidden_bias), DEVICE).double()
    minus_energy = (v @ visible_bias)[:, None] + h @ hidden_bias + v @ weights @ h.t()
    beta = torch.as_tensor(beta, dtype=torch.float64, device=DEVICE).expand(len(v))
    return -torch.logsumexp(beta[:, None] * minus_energy, 1) / beta


def log_z_of(weights, visible_bias, hidden_bias, beta=1.0):
    v, h = (all_units(len(bias), DEVICE).double() for bias in (visible_bias, hidden_bias))
    minus_energy = (v @ visible_bias)[:, None] + h @ hidden_bias + v @ weights @ h.t()
    return torch.logsumexp((beta * minus_energy).flatten(), 0)


def log_z_of_bonds(weights, biases, beta=1.0):
    x = all_units(len(biases), DEVICE).double()
    return torch.logsumexp(beta * (0.5 * ((x @ weights) * x).sum(1) + x @ biases), 0)


def symmetric(function):
    """``function`` of the matrix ``m + m.T`` without its diagonal, so that perturbed weights stay symmetric."""

    def of_half(half, *more, **options):
        lower = half.tril(-1)
        return function(lower + lower.t(), *more, **options)

    return of_half


def rows(ours, theirs, x, public=logsumexp):
    return Function(public, ours, theirs, (x,))


def machine(visible, hidden, dtype=torch.float64):
    return tuple(numbers(*shape, seed=7, dtype=dtype) for shape in ((visible, hidden), (visible,), (hidden,)))


BETAS = torch.linspace(0.4, 2.0, 6, device=DEVICE)
BETA = torch.tensor(0.7, dtype=torch.float64, device=DEVICE)
FUNCTIONS = {
    "logsumexp": rows(partial(logsumexp, dim=1, beta=0.7), lambda x: torch.logsumexp(0.7 * x, 1), numbers(4, 5, 3)),
    "logsumexp, keepdim": rows(
        partial(logsumexp, keepdim=True), lambda x: torch.logsumexp(x, -1, keepdim=True), numbers(3, 7)
    ),
    **{
        f"loss, q = {q}": rows(
            lambda z, q=q, **options: generalised_cross_entropy(z, LABELS, q, reduction="none", **options),
            partial(loss_of, q=q), numbers(4, 5), generalised_cross_entropy,
        )
        for q in (0.0, 0.7, 1.0)
    },
    "mean loss": rows(
        lambda z, **options: generalised_cross_entropy(z, LABELS, **options),
        lambda z: loss_of(z, 0.7).sum() / 3, numbers(4, 5), generalised_cross_entropy,
    ),
    "weighted mean loss": Function(
        generalised_cross_entropy, lambda z, w, **options: generalised_cross_entropy(z, LABELS, weight=w, **options),
        lambda z, w: (loss_of(z, 0.7)[COUNTED] * w[LABELS[COUNTED]]).sum() / w[LABELS[COUNTED]].sum(),
        (numbers(4, 5), CLASS_WEIGHTS),
    ),
    "smoothed loss, q = 0": Function(
        generalised_cross_entropy,
        lambda z, w, **options: generalised_cross_entropy(
            z, LABELS, 0, weight=w, label_smoothing=0.3, reduction="sum", **options
        ),
        lambda z, w: loss_of_shares(z[COUNTED], 0.7 * torch.eye(5).to(z)[LABELS[COUNTED]] + 0.06, w, 0).sum(),
        (numbers(4, 5), CLASS_WEIGHTS),
    ),
    "loss of probabilities": Function(
        generalised_cross_entropy,
        lambda z, t, w, **options: generalised_cross_entropy(z, t, weight=w, reduction="none", **options),
        partial(loss_of_shares, q=0.7), (numbers(4, 5), numbers(4, 5, seed=3).relu(), CLASS_WEIGHTS),
    ),
    "free energy": Function(
        free_energy, lambda w, b, c, **options: free_energy(VISIBLE, w, b, c, 1.3, **options),
        lambda w, b, c: free_energy_of(w, b, c, 1.3), machine(5, 3, torch.float32), 2e-5,
    ),
    "free energy of a zero machine": Function(
        free_energy, lambda w, b, c, **options: free_energy(VISIBLE, w, b, c, **options),
        lambda w, b, c: free_energy_of(w, b, c, 1.0), tuple(0 * part for part in machine(5, 3, torch.float32)), 2e-5,
    ),
    "free energy, a beta for each chain": Function(
        free_energy, lambda w, b, c, beta, **options: free_energy(VISIBLE, w, b, c, beta, **options), free_energy_of,
        (*machine(5, 3, torch.float32), BETAS), 5e-5,
    ),
    **{
        f"log Z of {visible} x {hidden}": Function(
            rbm_log_partition, rbm_log_partition, log_z_of, (*machine(visible, hidden), BETA), 2e-5
        )
        for visible, hidden in ((9, 5), (3, 6))
    },
    "log Z of a float32 machine": Function(
        rbm_log_partition, rbm_log_partition, log_z_of, machine(4, 3, torch.float32), 2e-5
    ),
    "log Z of any couplings": Function(
        log_partition, symmetric(log_partition), symmetric(log_z_of_bonds), (numbers(7, 7), numbers(7), BETA)
    ),
}  # fmt: skip


def double(inputs):
    return tuple(part.double() for part in inputs)


def directions(inputs, seed=11):
    return tuple(numbers(*part.shape, seed=seed + i, dtype=part.dtype) for i, part in enumerate(inputs))


def scalar(function):
    """A number that depends on all results with different, nonzero second derivatives."""

    def of(*inputs):
        value = function(*inputs).double()
        return (torch.linspace(0.5, 1.5, value.numel(), device=DEVICE).view(value.shape) * value.sin()).sum()

    return of


def leaves(inputs):
    return tuple(part.detach().clone().requires_grad_() for part in inputs)


def reverse(function, inputs):
    taken = leaves(inputs)
    return torch.autograd.grad(scalar(function)(*taken), taken)


def twice(function, inputs):
    taken = leaves(inputs)
    first = torch.autograd.grad(scalar(function)(*taken), taken, create_graph=True)
    along = sum((slope * way).sum() for slope, way in zip(first, directions(inputs), strict=True))
    return *(part.detach() for part in first), *torch.autograd.grad(along, taken)


def three_times(function, inputs):
    taken = leaves(inputs[:1])
    value = scalar(lambda first: function(first, *inputs[1:]))(*taken)
    for _ in range(2):
        value = torch.autograd.grad(value, taken[0], create_graph=True)[0].sin().sum()
    return torch.autograd.grad(value, taken)


def jvp(function, inputs):
    return torch.func.jvp(function, inputs, directions(inputs))


def dual(function, inputs):
    with forward_ad.dual_level():
        value = function(*map(forward_ad.make_dual, inputs, directions(inputs)))
        primal, tangent = forward_ad.unpack_dual(value)
        return primal.clone(), None if tangent is None else tangent.clone()


def of_the_incoming_gradient(function, inputs):
    """The change of the gradient along a change of the incoming gradient alone: forward mode, then a batch."""
    taken = leaves(inputs)
    value = function(*taken)
    weights = torch.linspace(0.5, 1.5, value.numel(), device=DEVICE).view(value.shape).to(value.dtype)
    with forward_ad.dual_level():
        slopes = torch.autograd.grad(value, taken, forward_ad.make_dual(value.detach(), weights), retain_graph=True)
        primals, tangents = zip(*map(forward_ad.unpack_dual, slopes), strict=True)
        found = [None if part is None else part.clone() for part in (*primals, *tangents)]
    assert not any(part.requires_grad for part in found if part is not None)
    batch = torch.stack((weights, value.detach()))
    return *found, *torch.autograd.grad(value, taken, batch, is_grads_batched=True)


def transformed(transform, function, inputs):
    return transform(scalar(function), tuple(range(len(inputs))))(*inputs)


def batched(function, inputs, transform=lambda function: function):
    batch = [torch.stack((part, part + way)) for part, way in zip(inputs, directions(inputs), strict=True)]
    if len(batch) == 4:  # a tensor of inverse temperatures
        batch[3] = torch.stack((inputs[3], inputs[3] / 2))
    elif len(inputs[-1].shape) == 0:
        batch[-1] = torch.stack((inputs[-1], inputs[-1] / 2))
    return torch.func.vmap(transform(function))(*batch)


def batched_gradient(function, inputs):
    every = tuple(range(len(inputs)))
    return batched(function, inputs, lambda function: torch.func.grad(scalar(function), every))


MODES = {
    "reverse": reverse,
    "twice": twice,
    "three times": three_times,
    "jvp": jvp,
    "forward_ad": dual,
    "incoming gradient": of_the_incoming_gradient,
    "jacfwd": partial(transformed, torch.func.jacfwd),
    "jacrev": partial(transformed, torch.func.jacrev),
    "grad": partial(transformed, torch.func.grad),
    "hessian": partial(transformed, torch.func.hessian),
    "vmap": batched,
    "vmap of grad": batched_gradient,
}


def flat(values):
    if values is None or isinstance(values, Tensor):
        return [values]
    return [tensor for value in values for tensor in flat(value)]


def require_same(mode, function, theirs, inputs, tolerance):
    """Raise AssertionError unless ``mode`` finds the same for ``function`` as for ``theirs`` of float64 inputs."""
    found, expected = flat(mode(function, inputs)), flat(mode(theirs, double(inputs)))
    assert len(found) == len(expected)
    for ours, plain in zip(found, expected, strict=True):
        assert ours is not None, "the tangent was dropped"
        plain = plain.detach()
        torch.testing.assert_close(
            ours.detach().double(), plain, rtol=tolerance, atol=tolerance * max(1, plain.abs().max())
        )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_derivative_is_that_of_the_formula(name, mode, backend):
    case = FUNCTIONS[name]
    require_same(MODES[mode], partial(case.ours, backend=backend), case.theirs, case.inputs, case.tolerance)


COMPILED = (
    "logsumexp", "mean loss", "free energy", "free energy, a beta for each chain", "log Z of 9 x 5",
    "log Z of any couplings",
)  # fmt: skip


@pytest.mark.parametrize("name", COMPILED)
def test_compiled_gradients_and_transforms(name, backend):
    case = FUNCTIONS[name]
    options = {"backend": backend} | ({"check_values": False} if len(case.inputs) > 1 else {})
    function = partial(case.ours, **options)
    torch.compiler.reset()
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    require_same(reverse, compiled, case.theirs, case.inputs, case.tolerance)
    with pytest.raises(RuntimeError, match=r"create_graph=False|does not currently support double backward"):
        twice(compiled, case.inputs)
    torch.compiler.reset()
    ways = directions(case.inputs)
    tangent = torch.compile(lambda *inputs: torch.func.jvp(function, inputs, ways), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(tangent(*case.inputs), jvp(function, case.inputs))


@pytest.mark.parametrize("name", ["logsumexp", "mean loss", "free energy", "log Z of 9 x 5"])
def test_forward_mode_of_a_compiled_function_is_refused(name, backend):
    case = FUNCTIONS[name]
    options = {"backend": backend} | ({"check_values": False} if len(case.inputs) > 1 else {})
    torch.compiler.reset()
    compiled = torch.compile(partial(case.ours, **options), fullgraph=True)
    with pytest.raises(Exception, match=r"torch.compile drops the tangents of forward mode"):
        dual(compiled, case.inputs)


def halved(function):
    return lambda *inputs: (function(*inputs) + function(*inputs).detach()) / 2


def dropped(function):
    return lambda *inputs: function(*inputs).detach()


def of_one_input(function):
    return lambda first, *rest: function(first, *(part.detach() for part in rest))


REJECTED = [
    (wrong, mode)
    for wrong in (halved, dropped, of_one_input)
    for mode in MODES
    if mode != "vmap" and (wrong, mode) != (of_one_input, "three times")  # modes that do not differentiate that input
]


@pytest.mark.parametrize(("wrong", "mode"), REJECTED)
def test_a_wrong_derivative_is_rejected(wrong, mode):
    """The first is the fault of log Z on Triton and CUDA C, the second that of the free energy."""
    case = FUNCTIONS["log Z of 3 x 6"]
    with pytest.raises((AssertionError, RuntimeError)):
        require_same(MODES[mode], wrong(case.theirs), case.theirs, double(case.inputs), 1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_16_bit_parameters_have_16_bit_gradients(dtype, backend):
    u = torch.finfo(dtype).eps
    for name in ("free energy", "log Z of a float32 machine"):
        case = FUNCTIONS[name]
        inputs = tuple(part.to(dtype) for part in case.inputs)
        require_same(reverse, partial(case.ours, backend=backend), case.theirs, inputs, u)
        assert all(part.dtype is dtype for part in reverse(partial(case.ours, backend=backend), inputs))


def test_pieces_of_the_gradients_add_up(backend, monkeypatch):
    for module in ("rbm_free_energy", "enumeration"):
        monkeypatch.setattr(importlib.import_module(f"boltzbench.kernels.{module}.reference"), "PIECE", 16)
    for name in ("free energy, a beta for each chain", "log Z of 9 x 5", "log Z of any couplings"):
        case = FUNCTIONS[name]
        require_same(reverse, partial(case.ours, backend=backend), case.theirs, case.inputs, case.tolerance)


def test_one_parameter_may_be_computed_from_another(backend):
    """A gradient of the gradient must not count the path through the other parameter again."""

    def tied(function, weights):
        return function(weights, weights.sum(1), weights.sum(0))

    for name in ("free energy", "log Z of a float32 machine"):
        case = FUNCTIONS[name]
        ours = partial(tied, partial(case.ours, backend=backend))
        require_same(twice, ours, partial(tied, case.theirs), case.inputs[:1], case.tolerance * 10)


def test_a_loss_trains_alike_on_every_backend(backend):
    """``F(data) - F(model)`` and ``-log p(data)`` lower the same way on every backend."""
    weights, visible_bias, hidden_bias = leaves(machine(5, 3, torch.float32))
    energies = free_energy(VISIBLE, weights, visible_bias, hidden_bias, backend=backend)
    log_z = rbm_log_partition(weights, visible_bias, hidden_bias, backend=backend)
    (energies.double().mean() + log_z).backward()
    expected = exact_gradient(Machine(weights, visible_bias, hidden_bias), VISIBLE)
    for parameter, ascent in zip((weights, visible_bias, hidden_bias), expected, strict=True):
        torch.testing.assert_close(-parameter.grad.double(), ascent, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("order", [1, 2])
def test_rows_without_weight_have_no_gradient(order, backend):
    x = torch.full((2, 3), -torch.inf, dtype=torch.float64, device=DEVICE)
    x[1, 1] = 0.5
    x.requires_grad_()
    slope = torch.autograd.grad(logsumexp(x, backend=backend).sum(), x, create_graph=order == 2)[0]
    assert slope.tolist() == [[0, 0, 0], [0, 1, 0]]
    if order == 2:
        assert torch.autograd.grad(slope.sum(), x)[0].tolist() == [[0, 0, 0], [0, 0, 0]]
        tangent = torch.func.jvp(partial(logsumexp, backend=backend), (x.detach(),), (torch.ones_like(x),))[1]
        assert tangent.tolist() == [0, 1]


@pytest.mark.parametrize("q", [0.0, 0.5])
def test_ignored_rows_have_no_derivative_even_if_not_finite(q, backend):
    z = torch.tensor([[torch.nan, torch.inf, 0.0], [1.0, 2.0, 3.0]], dtype=torch.float64, device=DEVICE)
    labels = torch.tensor([-100, 1], device=DEVICE)
    loss = partial(generalised_cross_entropy, labels=labels, q=q, reduction="sum", backend=backend)
    for found in (torch.func.grad(loss)(z), torch.func.hessian(loss)(z)[0], torch.func.jacfwd(loss)(z)):
        assert found[0].abs().sum() == 0
        assert found.isfinite().all()


INF = torch.inf
ODD_ROWS = {
    "no weight": [-INF, -INF, -INF],
    "label without weight": [-INF, 0.0, 1.0],
    "another of weight infinity": [0.0, INF, 1.0],
    "two others": [0.0, INF, INF],
    "label of weight infinity": [INF, 0.0, 1.0],
    "both infinities": [-INF, INF, 0.0],
    "NaN": [0.0, torch.nan, 1.0],
    "high level": [1e8, 1e8 + 8, 1e8 - 8],
}


@pytest.mark.parametrize("row", ODD_ROWS)
def test_the_formula_of_the_loss_agrees_with_the_kernels_on_odd_rows(row, backend):
    """Otherwise ``create_graph`` or ``vmap`` would change a loss or a gradient."""
    z = torch.tensor([ODD_ROWS[row]], dtype=torch.float32, device=DEVICE, requires_grad=True)
    for q in (0.0, 0.7, 1.0):
        loss = partial(
            generalised_cross_entropy, labels=torch.tensor([0], device=DEVICE), q=q, reduction="none", backend=backend
        )
        value = loss(z)
        same = partial(torch.testing.assert_close, equal_nan=True)
        same(torch.func.vmap(loss, in_dims=1, out_dims=1)(z.detach()[:, None])[:, 0], value.detach())
        (slope,) = torch.autograd.grad(value.sum(), z)
        if row == "no weight":
            assert slope.tolist() == [[0.0 if q else -1.0, 0.0, 0.0]]
        same(torch.autograd.grad(loss(z).sum(), z, create_graph=True)[0].detach(), slope)
        same(torch.func.grad(lambda z, loss=loss: loss(z).sum())(z.detach()), slope)


@pytest.mark.parametrize("q", [0.0, 0.7])
def test_a_label_out_of_range_makes_the_formula_of_the_loss_nan(q):
    """A label on a GPU is not checked."""
    z, labels = numbers(2, 3).requires_grad_(), torch.tensor([3, -1], device=DEVICE)
    loss = formulas.generalised_cross_entropy(z, labels, 1, q, -100)
    assert loss.isnan().all()
    assert torch.autograd.grad(loss.sum(), z)[0].isnan().all()


def test_values_are_checked_under_transforms(backend):
    weights, visible_bias, hidden_bias = (part.expand(2, *part.shape).clone() for part in machine(5, 3, torch.float32))
    weights[1, 0, 0] = torch.nan
    energies = torch.func.vmap(lambda w, b, c: free_energy(VISIBLE, w, b, c, backend=backend))
    with pytest.raises(ValueError, match=r"^weights must be finite"):
        energies(weights, visible_bias, hidden_bias)
    with pytest.raises(ValueError, match=r"^weights must be finite"):
        torch.func.vmap(partial(rbm_log_partition, backend=backend))(weights, visible_bias, hidden_bias)
    bonds = numbers(2, 4, 4)
    with pytest.raises(ValueError, match=r"^weights must be 0 on the diagonal"):
        torch.func.vmap(partial(log_partition, backend=backend))(bonds, numbers(2, 4))
    bonds.diagonal(dim1=1, dim2=2).zero_()
    with pytest.raises(ValueError, match=r"^weights must be symmetric"):
        torch.func.vmap(partial(log_partition, backend=backend), in_dims=(2, 0))(bonds.movedim(0, 2), numbers(2, 4))
    with pytest.raises(ValueError, match=r"^labels must lie in"):
        torch.func.vmap(partial(generalised_cross_entropy, backend=backend))(numbers(2, 3, 4), torch.full((2, 3), 4))
    small = machine(3, 2)
    with pytest.raises(ValueError, match=r"^beta must be finite and not negative"):
        rbm_log_partition(*small, torch.tensor(-1.0, device=DEVICE), backend=backend)
    with pytest.raises(ValueError, match=r"^beta must be finite and not negative, got -2.0$"):
        torch.func.vmap(partial(rbm_log_partition, *small, backend=backend))(BETAS.new_tensor([1, -2]))
    with pytest.raises(ValueError, match=r"^beta must be a number or a tensor of no dimensions"):
        rbm_log_partition(*small, torch.ones(2, device=DEVICE), backend=backend)


def test_out_refuses_derivatives(backend):
    weights, visible_bias, hidden_bias = machine(5, 3, torch.float32)
    out = torch.empty(6, device=DEVICE)
    into = partial(free_energy, VISIBLE, visible_bias=visible_bias, hidden_bias=hidden_bias, out=out, backend=backend)
    with pytest.raises(ValueError, match=r"^out must be None when weights, .* or out requires a gradient"):
        into(weights=weights.clone().requires_grad_())
    with torch.no_grad():
        assert into(weights=weights.clone().requires_grad_()) is out
    with pytest.raises(ValueError, match=r"^out must be None in forward mode"):
        torch.func.jvp(lambda weights: into(weights=weights), (weights,), (weights,))
    row = torch.empty(4, dtype=torch.float64, device=DEVICE)
    with forward_ad.dual_level(), pytest.raises(ValueError, match=r"^out must be None in forward mode"):
        logsumexp(forward_ad.make_dual(numbers(4, 5), numbers(4, 5)), out=row, backend=backend)


@pytest.mark.parametrize("betas", [None, BETAS.double()])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_operators_obey_torchs_rules(betas, dtype, backend):
    free_energies = torch.ops.boltzbench.rbm_free_energy.default
    parameters = leaves(machine(5, 3, dtype))
    torch.library.opcheck(free_energies, (VISIBLE, *parameters, betas, 1.0, backend), test_utils=RULES)
    w, b, c = leaves(machine(5, 3))
    for taken in ((w, b, c), (w[:3], b[:3], None)):
        torch.library.opcheck(torch.ops.boltzbench.enumeration.default, (*taken, 1.0, backend), test_utils=RULES)


RULES = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_static")


# ---- results that have no derivative, on any backend

WEIGHTS, VISIBLE_BIAS, HIDDEN_BIAS = machine(5, 3, torch.float32)
LOGITS = numbers(4, 5, dtype=torch.float32)
ROW = numbers(4, dtype=torch.float32)
TEMPERATURES = torch.full((3,), 0.5, dtype=torch.float64)
RATES = {"rate": 0.1, "seed": 0}


def trained(weights):
    return TrainingState(Machine(weights, VISIBLE_BIAS, HIDDEN_BIAS), VISIBLE)


def tempered(weights, **options):
    replicas = RbmReplicas(weights, VISIBLE_BIAS, HIDDEN_BIAS, 4, seed=0, **options)
    return parallel_tempering(replicas, [0.0, 1.0], 2, burn_in=0, seed=0, **options)


CONSTANTS = {
    "annealed_langevin": lambda w, **options: (
        annealed_langevin(w[:, 0].contiguous(), TEMPERATURES, 0.01, seed=0, **options).x
    ),
    "gibbs": lambda w, **options: (
        gibbs(
            VISIBLE, w, VISIBLE_BIAS, HIDDEN_BIAS, 2, seed=0, return_hidden_probability=True, **options
        ).hidden_probability
    ),
    "gaussian_gibbs": lambda w, **options: (
        gaussian_gibbs(VISIBLE.float(), w, VISIBLE_BIAS, HIDDEN_BIAS, VISIBLE_BIAS.abs() + 1, seed=0, **options).visible
    ),
    "log_likelihood_gradient": lambda w, **options: (
        log_likelihood_gradient(VISIBLE, VISIBLE[:2], w, HIDDEN_BIAS, **options).weights
    ),
    "annealed_importance_sampling": lambda w, **options: (
        annealed_importance_sampling(w, VISIBLE_BIAS, HIDDEN_BIAS, [0, 0.5, 1], 4, seed=0, **options).log_weights
    ),
    "model_statistics": lambda w, backend: model_statistics(Machine(w, VISIBLE_BIAS, HIDDEN_BIAS)).weights,
    "exact_gradient": lambda w, backend: exact_gradient(Machine(w, VISIBLE_BIAS, HIDDEN_BIAS), VISIBLE).weights,
    "contrastive_divergence": lambda w, **options: (
        contrastive_divergence(trained(w), VISIBLE, **RATES, **options).machine.weights
    ),
    "persistent_contrastive_divergence": lambda w, **options: (
        persistent_contrastive_divergence(trained(w), VISIBLE, **RATES, **options).machine.weights
    ),
    "maximum_likelihood": lambda w, backend: maximum_likelihood(trained(w), VISIBLE, rate=0.1).machine.weights,
    "advance": lambda w, **options: tempered(w, **options).mean_energy,
    "logsumexp_backward": lambda w, **options: logsumexp_backward(w[:, 0], w, w[:, 1], **options),
    "generalised_cross_entropy_forward": lambda w, **options: generalised_cross_entropy_forward(
        w, torch.zeros(5, dtype=torch.int64, device=DEVICE), **options
    )[0],
    "generalised_cross_entropy_backward": lambda w, **options: generalised_cross_entropy_backward(
        w[:, 0], w, torch.zeros(5, dtype=torch.int64, device=DEVICE), w[:, 1], **options
    ),
}


@pytest.mark.parametrize("name", CONSTANTS)
def test_a_result_without_derivative_is_detached_on_every_backend(name, backend):
    function = partial(CONSTANTS[name], backend=backend)
    plain = function(WEIGHTS)
    found = function(WEIGHTS.clone().requires_grad_())
    assert not found.requires_grad
    assert torch.equal(found, plain)
    with forward_ad.dual_level():
        assert forward_ad.unpack_dual(function(forward_ad.make_dual(WEIGHTS, WEIGHTS))).tangent is None
    for transform in (
        lambda: torch.func.jvp(function, (WEIGHTS,), (WEIGHTS,)),
        lambda: torch.func.grad(lambda w: function(w).sum())(WEIGHTS),
        lambda: torch.func.vmap(function)(WEIGHTS[None]),
    ):
        with pytest.raises(NotImplementedError, match=f"^{name} has no derivative and does not support the transforms"):
            transform()


def test_sequences_of_numbers_that_require_a_gradient_are_refused():
    """They are arguments without a derivative; weights are accepted, since those of a model in training require one."""
    with pytest.raises(ValueError, match=r"^beta must not require a gradient"):
        gibbs(VISIBLE, WEIGHTS, VISIBLE_BIAS, HIDDEN_BIAS, 2, BETAS.clone().requires_grad_(), seed=0)
    with pytest.raises(ValueError, match=r"^temperatures must not require a gradient"):
        annealed_langevin(ROW, TEMPERATURES.clone().requires_grad_(), 0.01, seed=0)


def test_replicas_may_use_autograd():
    class Tilted(RbmReplicas):
        def advance(self, betas, round_number):
            energies = super().advance(betas, round_number)
            slope = energies.clone().requires_grad_()
            slope.square().sum().backward()
            return energies * slope.requires_grad_()

    replicas = Tilted(WEIGHTS, VISIBLE_BIAS, HIDDEN_BIAS, 4, seed=0)
    assert not parallel_tempering(replicas, [0.0, 1.0], 2, burn_in=0, seed=0).mean_energy.requires_grad


def test_thermodynamics_refuses_derivatives(backend):
    function = partial(thermodynamics, backend=backend)
    out = tuple(torch.empty(4, device=DEVICE) for _ in "123")
    with pytest.raises(ValueError, match=r"^x must not require a gradient or have a tangent"):
        function(LOGITS.clone().requires_grad_())
    with pytest.raises(ValueError, match=r"^out energy must not require a gradient or have a tangent"):
        function(LOGITS, out=(out[0], out[1].clone().requires_grad_(), out[2]))
    with forward_ad.dual_level():
        with pytest.raises(ValueError, match=r"^x must not require a gradient or have a tangent"):
            function(forward_ad.make_dual(LOGITS, LOGITS))
        with pytest.raises(ValueError, match=r"^out variance must not require a gradient or have a tangent"):
            function(LOGITS, out=(*out[:2], forward_ad.make_dual(out[2], ROW)))
    for transform in (
        lambda log_z: torch.func.jvp(log_z, (LOGITS,), (LOGITS,)),
        lambda log_z: torch.func.vmap(log_z)(LOGITS),
    ):
        with pytest.raises(NotImplementedError, match=r"^thermodynamics .* does not support the transforms"):
            transform(lambda x: function(x).log_z)


def test_every_function_with_a_table_of_derivatives_is_tested():
    """A public function is differentiable if its docstring says so in a table."""
    names = [f"boltzbench.kernels.{each.name}" for each in pkgutil.iter_modules(kernels.__path__)]
    packages = [importlib.import_module(name) for name in names]
    public = [getattr(package, name) for package in packages for name in getattr(package, "__all__", ())]
    differentiable = {each for each in public if "| reverse mode" in (getattr(each, "__doc__", None) or "")}
    assert differentiable == {case.public for case in FUNCTIONS.values()}
