"""All sweeps in one launch, resident or by clusters: the same states as half sweeps, and the choice of the plan."""

import itertools
from contextlib import contextmanager, nullcontext
from unittest import mock

import pytest
import torch
from boltzbench.kernels import emulator
from boltzbench.kernels.rbm_gibbs import (
    GibbsResult,
    cuda_kernels,
    gaussian_gibbs,
    gibbs,
    native_kernels,
    pack_states,
    prepare_weights,
    triton_kernels,
)
from boltzbench.kernels.rbm_gibbs.tensor_cores.triton_resident import MOST_UNITS
from operations.rbm_gibbs.machines import BACKENDS, DEVICE, NEEDS_CUPY, NEEDS_NATIVE, SPLIT, model, some_units
from support.threads import threads
from torch.utils._python_dispatch import TorchDispatchMode

SIZES = [(1, 1, 1), (70, 100, 17), (40, 64, 130), (3, 150, 33), (9, 128, 128), (5, 0, 7), (5, 7, 0)]

PLANS_OF = {"torch": (), "triton": ("resident",), "cupy": ("resident", "cluster")}
RESIDENT = [name for name in BACKENDS if PLANS_OF[name]]


@contextmanager
def launches(kernels=cuda_kernels):
    """Counts the calls of resident_sweeps, cluster_sweeps and half_sweep."""
    with (
        mock.patch.object(kernels, "resident_sweeps", wraps=kernels.resident_sweeps) as one,
        mock.patch.object(cuda_kernels, "cluster_sweeps", wraps=cuda_kernels.cluster_sweeps) as cluster,
        mock.patch.object(kernels, "half_sweep", wraps=kernels.half_sweep) as half,
    ):
        yield lambda: (one.call_count, cluster.call_count, half.call_count)


@NEEDS_NATIVE
@pytest.mark.parametrize("precision", [None, "bf16x3", "int8x3"])
@pytest.mark.parametrize("size", [(1, 1, 1), (5, 0, 7), (5, 7, 0), (70, 100, 17), (600, 40, 35)], ids=str)
def test_all_sweeps_on_a_cpu_match_half_sweeps(precision, size):
    """With chains divided over threads, or units where the chains are few; in bytes and in bits."""
    visible, weights, b, c = model(*size)
    matrix = weights if precision is None else prepare_weights(weights, precision)
    held = some_units(visible.shape)
    betas = torch.linspace(0.2, 2.0, len(visible), device=DEVICE)
    for clamped, beta in ((None, 1.3), (held.t().contiguous().t(), betas)):
        rest = {"seed": 3, "first_sweep": 2**32 - 5, "first_chain": 2**40, "clamped": clamped, "backend": "native"}
        expected = gibbs(visible, matrix, b, c, 3, beta, **rest, plan="half_sweeps")
        for number in (1, 3):
            with threads(number), mock.patch.object(native_kernels, "half_sweep") as half:
                found = gibbs(visible, matrix, b, c, 3, beta, **rest)
                assert not half.called
                assert torch.equal(found.visible, expected.visible)
                assert torch.equal(found.hidden, expected.hidden)
                if precision:
                    packed = gibbs(pack_states(visible), matrix, b, c, 3, beta, **rest)
                    assert torch.equal(packed.visible, pack_states(expected.visible))
                    assert torch.equal(packed.hidden, pack_states(expected.hidden))


@NEEDS_CUPY
@pytest.mark.parametrize(
    ("precision", "size"),
    [*itertools.product(SPLIT, SIZES), ("bf16", (34, 20, 270)), ("bf16", (3, 270, 20))],
    ids=str,
)
def test_resident_sweeps_match_half_sweeps(precision, size):
    """For any order of threads, in bytes and in bits. Sums of weights with few bits are exact in each precision."""
    visible, weights, b, c = model(*size)
    prepared = prepare_weights((16 * weights).round() / 16, precision)
    held = some_units(visible.shape)
    betas = torch.linspace(0.2, 2.0, len(visible), device=DEVICE)
    for clamped, beta in ((None, 1.3), (held.t().contiguous().t(), betas)):
        given = (prepared, b, c, 3, beta)
        rest = {"seed": 3, "first_sweep": 2**32 - 5, "first_chain": 2**40, "clamped": clamped, "backend": "cupy"}
        expected = gibbs(visible, *given, **rest, plan="half_sweeps", return_hidden_probability=True)
        for order in ("forward", "reverse"):
            with emulator.schedule(order), launches() as count:
                found = gibbs(visible, *given, **rest, return_hidden_probability=True)
                packed = gibbs(pack_states(visible), *given, **rest, plan="resident")
                assert count() == (2, 0, 1)  # the half sweep computes the probabilities
                once = gibbs(visible, prepared, b, c, 1, beta, **rest, plan="resident")
            assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))
            assert torch.equal(packed.visible, pack_states(expected.visible))
            assert torch.equal(packed.hidden, pack_states(expected.hidden))
            assert torch.equal(once.visible, gibbs(visible, prepared, b, c, 1, beta, **rest).visible)


@pytest.mark.skipif("triton" not in RESIDENT, reason="Triton cannot run here")
@pytest.mark.parametrize("size", [*SIZES, (0, 7, 4), (65, 129, 256), (1030, 20, 12)], ids=str)
@pytest.mark.parametrize("precision", SPLIT)
def test_resident_sweeps_of_triton_match_half_sweeps(precision, size):
    """In bytes and in bits, with clamped units where the kernel supports them."""
    if max(size[1:]) > MOST_UNITS[precision]:
        pytest.skip("too large for the resident kernel")
    visible, weights, b, c = model(*size)
    prepared = prepare_weights((16 * weights).round() / 16, precision)
    held = some_units(visible.shape)
    betas = torch.linspace(0.2, 2.0, len(visible), device=DEVICE)
    for clamped, beta in ((None, 1.3), (None, betas), (held.t().contiguous().t(), betas)):
        given = (prepared, b, c, 3, beta)
        rest = {"seed": 3, "first_sweep": 2**32 - 5, "first_chain": 2**40, "clamped": clamped, "backend": "triton"}
        expected = gibbs(visible, *given, **rest, plan="half_sweeps", return_hidden_probability=True)
        in_bits = clamped is None and 0 not in size[1:]
        in_bytes = in_bits or (precision != "int8x3" and 0 not in size[1:])
        with launches(triton_kernels) as count:
            found = gibbs(visible, *given, **rest, return_hidden_probability=True)
            assert count() == ((1, 0, 1) if in_bytes else (0, 0, 7))  # one half sweep computes the probabilities
            packed = gibbs(pack_states(visible), *given, **rest)
            assert count()[0] == in_bytes + in_bits
        assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))
        assert torch.equal(packed.visible, pack_states(expected.visible))
        assert torch.equal(packed.hidden, pack_states(expected.hidden))
        if not in_bits:
            with pytest.raises(ValueError, match=r"^plan 'resident' needs"):
                gibbs(pack_states(visible), *given, **rest, plan="resident")


@NEEDS_CUPY
@pytest.mark.parametrize("size", [(66, 70, 200), (1, 1, 1), (5, 0, 7), (5, 7, 0), (0, 7, 4)], ids=str)
@pytest.mark.parametrize("precision", SPLIT)
def test_cluster_sweeps_match_half_sweeps(precision, size):
    """For any order of threads and blocks: a block that runs ahead would read states before they are written."""
    visible, weights, b, c = model(*size)
    prepared = prepare_weights((16 * weights).round() / 16, precision)
    held = some_units(visible.shape)
    betas = torch.linspace(0.2, 2.0, len(visible), device=DEVICE)
    given = (prepared, b, c, 2, betas)
    rest = {"seed": 3, "first_sweep": 2**32 - 5, "first_chain": 2**40, "clamped": held, "backend": "cupy"}
    expected = gibbs(visible, *given, **rest, plan="half_sweeps", return_hidden_probability=True)
    with emulator.schedule("forward"):
        found = gibbs(visible, *given, **rest, plan="cluster", return_hidden_probability=True)
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))
    with emulator.schedule("reverse"):
        packed = gibbs(pack_states(visible), *given, **rest, plan="cluster")
    assert torch.equal(packed.visible, pack_states(expected.visible))
    assert torch.equal(packed.hidden, pack_states(expected.hidden))


@NEEDS_CUPY
def test_int8x3_draws_the_same_in_every_plan_and_backend():
    visible, weights, b, c = model(70, 100, 70)
    prepared = prepare_weights(weights, "int8x3")
    whole = gibbs(visible, prepared, b, c, 4, 0.7, seed=9, backend="cupy", plan="resident")
    plans = [("cupy", "cluster"), ("torch", "auto"), *((name, "resident") for name in RESIDENT)]
    for backend, plan in plans:
        other = gibbs(visible, prepared, b, c, 4, 0.7, seed=9, backend=backend, plan=plan)
        assert torch.equal(whole.visible, other.visible)
        assert torch.equal(whole.hidden, other.hidden)
    parts = [
        gibbs(visible[a:e], prepared, b, c, 4, 0.7, seed=9, first_chain=a, backend="cupy") for a, e in ((0, 9), (9, 70))
    ]
    assert torch.equal(whole.visible, torch.cat([part.visible for part in parts]))


@pytest.mark.parametrize("backend", RESIDENT)
def test_memory_around_the_results_is_unchanged(backend):
    visible, weights, b, c = model(5, 7, 3)
    bands = [torch.full((64 + n,), 77, dtype=torch.uint8, device=DEVICE) for n in (35, 15)]
    out = GibbsResult(*(band[32:-32].view(5, -1) for band in bands), None)
    gibbs(visible, prepare_weights(weights, "int8x3"), b, c, 2, seed=1, out=out, backend=backend, plan="resident")
    for band in bands:
        assert (band[:32] == 77).all()
        assert (band[-32:] == 77).all()
        assert band[32:-32].max() <= 1


def test_resident_units_include_the_padding_of_tiles():
    for size, precision, triton, cuda in (
        ((64, 16), "bf16", 128, 512), ((130, 20), "bf16", 512, 512), ((70, 100), "int8x3", 256, 256),
        ((9, 130), "bf16x3", 512, 384),
    ):  # fmt: skip
        prepared = prepare_weights(torch.zeros(size), precision)
        assert triton_kernels.resident_units(prepared) == triton
        assert cuda_kernels.resident_units(prepared) == cuda


@pytest.mark.parametrize("backend", RESIDENT)
def test_one_row_of_a_wider_tensor(backend):
    """A batch of one is contiguous with any stride; its stride is not the length of the row."""
    _, weights, b, c = model(1, 16, 32)
    prepared = prepare_weights(weights, "bf16")
    wide = torch.full((1, 1024), 77, dtype=torch.uint8, device=DEVICE)
    visible, given = wide[:, 32:48], torch.full_like(wide, 200)[:, 64:80].fill_(1)
    hidden = wide[:, 512:544]
    expected = gibbs(given.clone(), prepared, b, c, 2, seed=1, backend="torch")
    for plan in ("half_sweeps", *PLANS_OF[backend]):
        wide.fill_(77)
        gibbs(given, prepared, b, c, 2, seed=1, out=GibbsResult(visible, hidden, None), backend=backend, plan=plan)
        assert torch.equal(visible, expected.visible)
        assert torch.equal(hidden, expected.hidden)
        assert int((wide != 77).sum()) == 48, plan


@NEEDS_CUPY
def test_more_sweeps_than_the_kernel_counts_are_refused():
    visible, weights, b, c = model(2, 16, 16)
    with pytest.raises(ValueError, match="sweeps must be below 2147483648 with plan 'resident'"):
        gibbs(visible, prepare_weights(weights, "bf16"), b, c, 1 << 31, seed=1, backend="cupy", plan="resident")


@NEEDS_CUPY
def test_the_plan_follows_the_shape_unless_the_caller_sets_it():
    visible, weights, b, c = model(2, 128, 192)
    for precision, size, fits in (
        ("bf16", (256, 256), True), ("bf16", (257, 256), False), ("bf16x3", (192, 128), True),
        ("bf16x3", (192, 129), False), ("int8x3", (128, 192), True), ("int8x3", (160, 176), True),
        ("int8x3", (160, 177), False),
    ):  # fmt: skip
        prepared = prepare_weights(torch.zeros(size), precision)
        assert cuda_kernels.resident_fits(prepared, True, False, torch.device("cpu")) is fits, (precision, size)
    prepared = prepare_weights(weights, "int8x3")
    for sweeps, plan, expected in (
        (2, "auto", (1, 0, 0)), (1, "auto", (0, 0, 2)), (2, "cluster", (0, 1, 0)), (2, "half_sweeps", (0, 0, 4)),
    ):  # fmt: skip
        with launches() as count:
            gibbs(visible, prepared, b, c, sweeps, seed=1, backend="cupy", plan=plan)
        assert count() == expected
    large = prepare_weights(torch.zeros(128, 500, device=DEVICE), "int8x3")
    for given, biases, backend in (
        (prepared, (b, c), "torch"),
        (weights, (b, c), "cupy"),
        (prepare_weights(weights, "float32"), (b, c), "cupy"),
        (large, (b, torch.zeros(500, device=DEVICE)), "cupy"),
    ):
        with pytest.raises(ValueError, match=r"^plan 'resident' needs"):
            gibbs(visible, given, *biases, 2, seed=1, backend=backend, plan="resident")
    for size, chains, sweeps, pays in (
        ((192, 500), 1024, 2, True), ((192, 500), 1025, 2, False), ((192, 500), 9, 1, False), ((9, 1025), 9, 2, False),
    ):  # fmt: skip
        assert cuda_kernels.clusters_pay(prepare_weights(torch.zeros(size), "int8x3"), chains, sweeps) is pays
    with launches() as count:
        gibbs(visible, large, b, torch.zeros(500, device=DEVICE), 2, seed=1, backend="cupy")
    assert count() == (0, 1, 0)
    for given, backend in ((prepared, "torch"), (weights, "cupy"), (prepare_weights(weights, "float32"), "cupy")):
        with pytest.raises(ValueError, match=r"^plan 'cluster' needs"):
            gibbs(visible, given, b, c, 2, seed=1, backend=backend, plan="cluster")
    with pytest.raises(ValueError, match=r"^plan must be one of auto, resident, cluster, half_sweeps"):
        gibbs(visible, prepared, b, c, 2, seed=1, plan="graph")


class NothingIsRead(TorchDispatchMode):
    """Fails if a number is read from a tensor, which would wait for the device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert "_local_scalar_dense" not in str(func), "a number is read from a tensor"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("backend", BACKENDS)
def test_first_sweep_on_the_device(backend):
    """The same states as with a number, in every plan. After a write in place, those of the next sweeps."""
    visible, weights, b, c = model(9, 70, 37)
    runs = [(weights, {}, "half_sweeps")]
    runs += [(prepare_weights(weights, "int8x3"), {}, plan) for plan in ("half_sweeps", *PLANS_OF[backend])]
    runs += [(weights, {"sigma": torch.ones_like(b)}, None)]
    for given, more, plan in runs:
        start, plans = (visible.float(), {}) if more else (visible, {"plan": plan})
        function = gaussian_gibbs if more else gibbs
        arguments = {"weights": given, "visible_bias": b, "hidden_bias": c, **more, **plans, "backend": backend}
        done = torch.tensor([2**32 - 9], device=DEVICE)
        for first in (2**32 - 9, 2**32 - 4):
            whole = function(start, **arguments, sweeps=4, seed=1, first_sweep=first)
            with NothingIsRead() if backend != "triton" else nullcontext():
                found = function(start, **arguments, sweeps=4, seed=1, first_sweep=done, check_values=False)
            assert torch.equal(found.visible, whole.visible), plan
            assert torch.equal(found.hidden, whole.hidden), plan
            done += 5
        for wrong in (done, torch.tensor(-1, device=DEVICE)):
            with pytest.raises(ValueError, match=r"^first_sweep must lie in"):
                function(start, **arguments, sweeps=4, seed=1, first_sweep=wrong)
        for wrong, error in ((done.int(), TypeError), (done.expand(2), ValueError)):
            with pytest.raises(error, match=r"^first_sweep must"):
                function(start, **arguments, seed=1, first_sweep=wrong)


@pytest.mark.parametrize("backend", [name for name in BACKENDS if name != "triton"])
def test_a_call_without_checks_never_waits_for_the_device(backend):
    visible, weights, b, c = model(9, 70, 37)
    prepared, betas = prepare_weights(weights, "int8x3"), torch.ones(9, device=DEVICE)
    for plan in ("auto", "half_sweeps"):
        with NothingIsRead():
            gibbs(visible, prepared, b, c, 2, betas, seed=1, check_values=False, backend=backend, plan=plan)
    with pytest.raises(AssertionError, match="a number is read"), NothingIsRead():
        bool(visible.any())
