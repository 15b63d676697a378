"""The Langevin update on its three backends, and the optimizer on top of it."""

import copy
import math

import pytest
import torch
from boltzbench.harness.agreement.agreement import check_case
from boltzbench.harness.api.operations import Implementation
from boltzbench.kernels.common import dispatch
from boltzbench.kernels.cuda_module import CudaModule
from boltzbench.kernels.sgld import SGLD, psgld_update, request, sghmc_update, sgld_update
from boltzbench.kernels.sgld.optimizer import STATES
from boltzbench.kernels.sgld.reference import computing_dtype, noise, rounded_stochastically, rounding_bits
from boltzbench.plugins.operations.langevin import psgld, sghmc
from boltzbench.plugins.support import langevin
from support.devices import DEVICE

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def _backend(name):
    reason = dispatch.unavailable(name, DEVICE)
    return pytest.param(name, marks=pytest.mark.skipif(reason is not None, reason=str(reason)))


BACKENDS = [_backend(name) for name in ("torch", "triton", "cupy")]


@pytest.fixture(params=BACKENDS)
def backend(request):
    return request.param


def random_tensor(shape, dtype=torch.float32, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype).to(DEVICE)


def bits(x):
    return x.detach().contiguous().view(INTEGERS[x.element_size()])


def same_bits(a, b):
    return a.dtype is b.dtype and torch.equal(bits(a), bits(b))


def require_update(after, before, gradient, step_size, temperature, seed, step, number=0):
    """Compare with the update in float64 from the same normals; the bound counts errors in the kernel's precision."""
    dtype = before.dtype
    u = 2.0**-53 if dtype is torch.float64 else 2.0**-24
    x, g = before.double(), gradient.double()
    scale = math.sqrt(step_size * temperature)
    xi = noise(x.numel(), computing_dtype(dtype), seed, step, number, x.device).view(x.shape)
    expected = x - 0.5 * step_size * g + scale * xi
    # Four roundings of the sum's parts; 12 u of the radius (at most 6.77) in a normal; one rounding to the dtype.
    bound = 4 * u * (x.abs() + 0.5 * step_size * g.abs() + scale * xi.abs()) + 12 * u * 6.77 * scale
    if dtype.itemsize == 2:
        bound = bound + (2.0**-11 if dtype is torch.float16 else 2.0**-8) * (expected.abs() + bound) + 2.0**-25
    error = (after.double() - expected).abs()
    assert after.dtype is dtype
    assert (error <= bound).all(), f"error / bound up to {float((error / bound).max()):.3g}"


# ---- one tensor


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 127, 1023, 1025, 4095, 4096, 4097, 8195])
def test_the_update(backend, dtype, n):
    before, g = random_tensor(n, dtype, 1), random_tensor(n, dtype, 2)
    x, kept = before.clone(), g.clone()
    assert sgld_update(x, g, 0.03, 0.7, seed=2**64 - 2, step=2**32 - 1, backend=backend) is None
    assert same_bits(g, kept)
    require_update(x, before, g, 0.03, 0.7, 2**64 - 2, 2**32 - 1)


def test_large_steps_and_noise_alone(backend):
    before = torch.zeros(5000, device=DEVICE)
    x = before.clone()
    sgld_update(x, torch.zeros_like(x), 4.0, 9.0, seed=1, step=0, tensor_numbers=[2**24 - 1], backend=backend)
    require_update(x, before, before, 4.0, 9.0, 1, 0, 2**24 - 1)
    assert abs(x.std().item() - 6) < 0.35
    assert x.unique().numel() > 4900


def test_the_backends_agree(backend):
    sizes = [(33, 5), (), (257,), (2, 3, 4, 5)]
    start = [random_tensor(size, dtype, i) for i, size in enumerate(sizes) for dtype in DTYPES]
    slopes = [random_tensor(x.shape, x.dtype, 50 + i) for i, x in enumerate(start)]
    ours, theirs = [x.clone() for x in start], [x.clone() for x in start]
    sgld_update(ours, slopes, 0.01, 1.0, seed=3, step=4, backend=backend)
    sgld_update(theirs, slopes, 0.01, 1.0, seed=3, step=4, backend="torch")
    for number, (a, b, x, g) in enumerate(zip(ours, theirs, start, slopes, strict=True)):
        require_update(a, x, g, 0.01, 1.0, 3, 4, number)
        require_update(b, x, g, 0.01, 1.0, 3, 4, number)


@pytest.mark.parametrize("dtype", DTYPES)
def test_step_size_zero_changes_no_bit(backend, dtype):
    top = torch.finfo(dtype).max
    values = [0.0, -0.0, 1.5, math.nan, math.inf, -math.inf, top, torch.finfo(dtype).smallest_normal / 2]
    x = torch.tensor(values, dtype=dtype, device=DEVICE)
    before = x.clone()
    g = torch.tensor([math.nan, math.inf, math.nan, 1.0, -math.inf, math.nan, top, 0.0], dtype=dtype, device=DEVICE)
    sgld_update(x, g, 0.0, 1.0, seed=1, step=1, backend=backend)
    assert same_bits(x, before)
    sgld_update(x, g, 0.0, 0.0, seed=1, step=1, backend=backend)
    assert same_bits(x, before)


@pytest.mark.parametrize("dtype", DTYPES)
def test_temperature_zero_is_gradient_descent(backend, dtype):
    x, g = random_tensor(4099, dtype, 1), random_tensor(4099, dtype, 2)
    wide = computing_dtype(dtype)
    half = torch.tensor(0.5 * 0.3, dtype=wide, device=DEVICE)
    expected = (x.to(wide) - half * g.to(wide)).to(dtype)
    sgld_update(x, g, 0.3, 0.0, seed=1, step=1, backend=backend)
    if DEVICE.type == "cpu":
        assert same_bits(x, expected)
    else:  # a fused multiply-add rounds once
        torch.testing.assert_close(x, expected, rtol=2 * torch.finfo(dtype).eps, atol=1e-6)
    signed = torch.tensor([-0.0, 0.0, -0.0], dtype=dtype, device=DEVICE)
    sgld_update(signed, torch.zeros_like(signed), 0.3, 0.0, seed=1, step=1, backend=backend)
    assert same_bits(signed, torch.tensor([-0.0, 0.0, -0.0], dtype=dtype, device=DEVICE))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_nan_gradient_affects_its_own_element_only(backend, dtype, temperature):
    before, g = random_tensor(4500, dtype, 1), random_tensor(4500, dtype, 2)
    clean, affected, with_nan = before.clone(), before.clone(), g.clone()
    places = torch.tensor([0, 5, 4095, 4096, 4499], device=DEVICE)
    with_nan[places] = math.nan
    sgld_update(clean, g, 0.1, temperature, seed=1, step=1, backend=backend)
    sgld_update(affected, with_nan, 0.1, temperature, seed=1, step=1, backend=backend)
    hit = torch.zeros(4500, dtype=torch.bool, device=DEVICE).index_fill(0, places, True)
    assert torch.equal(affected.isnan(), hit)
    assert same_bits(affected[~hit], clean[~hit])


def test_nothing_around_a_tensor_is_written(backend):
    for offset in (1, 4, 6):  # unaligned and aligned
        band = torch.full((4100 + 64,), 77.0, device=DEVICE)
        x = band[16 + offset : 16 + offset + 4099]
        before = x.copy_(random_tensor(4099)).clone()
        g = random_tensor(4110, seed=1)[3 : 3 + 4099]
        sgld_update(x, g, 0.1, 1.0, seed=1, step=1, backend=backend)
        require_update(x, before, g, 0.1, 1.0, 1, 1)
        assert (band[: 16 + offset] == 77).all()
        assert (band[16 + offset + 4099 :] == 77).all()


# ---- lists of tensors


def _mixed():
    shapes = [(3, 5), (4097,), (), (0,), (2, 1, 7), (5, 0), (130,), (1,)]
    start = [random_tensor(shape, DTYPES[i % 4], i) for i, shape in enumerate(shapes)]
    return start, [random_tensor(x.shape, x.dtype, 20 + i) for i, x in enumerate(start)]


def test_one_call_for_a_list_equals_a_call_for_each_tensor(backend):
    start, slopes = _mixed()
    together, apart = [x.clone() for x in start], [x.clone() for x in start]
    numbers = [4, 0, 77, 3, 2**24 - 1, 9, 5, 6]
    sgld_update(together, slopes, 0.1, 2.0, seed=5, step=6, tensor_numbers=numbers, backend=backend)
    for x, g, number in zip(apart, slopes, numbers, strict=True):
        sgld_update(x, g, 0.1, 2.0, seed=5, step=6, tensor_numbers=[number], backend=backend)
    for a, b, x, g, number in zip(together, apart, start, slopes, numbers, strict=True):
        assert same_bits(a, b)
        require_update(a, x, g, 0.1, 2.0, 5, 6, number)
    order = [3, 6, 0, 1, 7, 2, 5, 4]
    shuffled = [start[i].clone() for i in order]
    chosen = [numbers[i] for i in order]
    sgld_update(shuffled, [slopes[i] for i in order], 0.1, 2.0, seed=5, step=6, tensor_numbers=chosen, backend=backend)
    assert all(same_bits(x, together[i]) for x, i in zip(shuffled, order, strict=True))


def test_tensors_are_numbered_from_zero_and_each_has_its_own_noise(backend):
    start = torch.zeros(40, device=DEVICE)
    xs = [start.clone() for _ in range(3)]
    sgld_update(xs, [start] * 3, 0.1, seed=5, step=6, backend=backend)
    for number, x in enumerate(xs):
        require_update(x, start, start, 0.1, 1.0, 5, 6, number)
    assert not any(torch.equal(xs[i], xs[j]) for i, j in ((0, 1), (0, 2), (1, 2)))


def test_nothing_to_do(backend):
    sgld_update([], [], 0.1, seed=0, step=0, backend=backend)
    empty = torch.empty(0, 3, device=DEVICE)
    sgld_update([empty, torch.empty(0, device=DEVICE)], [empty, torch.empty(0, device=DEVICE)], 0.1, seed=0, step=0,
                backend=backend)  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", ["transposed", "sliced", "channels last", "gradient"])
def test_strided_tensors(backend, layout, dtype):
    base, g = random_tensor((6, 10, 4, 7), dtype, 1), random_tensor((6, 10, 4, 7), dtype, 2)
    view, slope = {
        "transposed": lambda: (base.permute(3, 1, 0, 2), g.permute(3, 1, 0, 2)),
        "sliced": lambda: (base[1:, ::3, :, 2:5], g[1:, ::3, :, 2:5]),
        "channels last": lambda: (base.to(memory_format=torch.channels_last), g),
        "gradient": lambda: (base, g[:1, :, :, :1].expand(6, 10, 4, 7)),
    }[layout]()
    before, whole, kept = view.clone(), base.clone(), g.clone()
    sgld_update(view, slope, 0.1, 0.5, seed=5, step=6, backend=backend)
    require_update(view, before, slope, 0.1, 0.5, 5, 6)
    assert same_bits(g, kept)
    dense = before.contiguous().clone()
    sgld_update(dense, slope.contiguous(), 0.1, 0.5, seed=5, step=6, backend=backend)
    assert same_bits(view, dense)
    if layout == "sliced":
        view.copy_(before)
        assert same_bits(base, whole)


def test_a_leaf_that_requires_gradients_is_updated(backend):
    x = torch.nn.Parameter(random_tensor(10))
    before, version = x.detach().clone(), x._version
    sgld_update(x, torch.ones(10, device=DEVICE), 0.1, seed=5, step=6, backend=backend)
    require_update(x.detach(), before, torch.ones(10, device=DEVICE), 0.1, 1.0, 5, 6)
    assert x.requires_grad
    assert x.grad_fn is None
    assert x._version >= version


def test_autograd_notices_the_update(backend):
    """A gradient through a value that the update has overwritten would be wrong, so autograd must raise."""
    x = torch.nn.Parameter(random_tensor(10))
    loss = (x**2).sum()
    sgld_update(x, torch.ones(10, device=DEVICE), 0.1, seed=5, step=6, backend=backend)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


# ---- invalid arguments

X = torch.zeros(4, device=DEVICE)


@pytest.mark.parametrize(
    ("x", "g", "name", "error"),
    [
        ([1.0], torch.zeros(1, device=DEVICE), "parameters[0]", TypeError),
        (X.to_sparse(), X, "parameters[0]", TypeError),
        (X.long(), X.long(), "parameters[0]", TypeError),
        (X.to(torch.complex64), X.to(torch.complex64), "parameters[0]", TypeError),
        ([X, X.bool()], [X.clone(), X], "parameters[1]", TypeError),
        ([X, torch.zeros(4, device="meta")], [X.clone(), X], "parameters[1]", ValueError),
        (X[:1].expand(4), X.clone(), "parameters[0]", ValueError),
        (torch.zeros(6, device=DEVICE).unfold(0, 3, 1), torch.zeros(4, 3, device=DEVICE), "parameters[0]", ValueError),
        (X, X.to_sparse(), "gradients[0]", TypeError),
        (X, X.double(), "gradients[0]", TypeError),
        (X, [None], "gradients[0]", TypeError),
        (X, torch.zeros(5, device=DEVICE), "gradients[0]", ValueError),
        (X, torch.zeros(4, 1, device=DEVICE), "gradients[0]", ValueError),
        (X, torch.zeros(4, device="meta"), "gradients[0]", ValueError),
        ([X], [], "gradients", ValueError),
        ([], [X], "gradients", ValueError),
        ([X, X], [X.clone(), X.clone()], "parameters[1]", ValueError),
    ],
)
def test_errors_name_the_tensor(backend, x, g, name, error):
    with pytest.raises(error) as caught:
        sgld_update(x, g, 0.1, seed=0, step=0, backend=backend)
    assert str(caught.value).startswith(name + " must")
    assert not X.any()


def test_tensors_that_share_memory_are_rejected(backend):
    shared = torch.zeros(100, device=DEVICE)
    for xs, gs in (
        ([shared[:50]], [shared[:50]]),
        ([shared[:50]], [shared[49:99]]),
        ([shared[49:99]], [shared[:50]]),
        ([shared[:50], shared[49:60]], [torch.zeros(50, device=DEVICE), torch.zeros(11, device=DEVICE)]),
        ([shared[40:50], torch.zeros(100, device=DEVICE)], [torch.zeros(10, device=DEVICE), shared]),
        (
            [torch.zeros(100, device=DEVICE), torch.zeros(3, device=DEVICE), shared[90:91]],
            [shared, torch.zeros(3, device=DEVICE), torch.zeros(1, device=DEVICE)],
        ),
    ):
        with pytest.raises(ValueError, match="must not share memory with"):
            sgld_update(xs, [g.to(DEVICE) for g in gs], 0.1, seed=0, step=0, backend=backend)
    neighbours = [shared[:50], shared[50:]]
    sgld_update(neighbours, [torch.ones(50, device=DEVICE)] * 2, 0.1, 0.0, seed=0, step=0, backend=backend)
    torch.testing.assert_close(shared, torch.full((100,), -0.05, device=DEVICE))


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"step_size": -0.1}, "step_size"),
        ({"step_size": math.nan}, "step_size"),
        ({"step_size": math.inf}, "step_size"),
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": math.nan}, "temperature"),
        ({"temperature": math.inf}, "temperature"),
        ({"tensor_numbers": [0]}, "tensor_numbers"),
        ({"tensor_numbers": [0, 1, 2]}, "tensor_numbers"),
        ({"tensor_numbers": [3, 3]}, "tensor_numbers"),
        ({"backend": "numba"}, "backend"),
    ],
)
def test_errors_name_the_number(backend, change, name):
    xs = [torch.zeros(4, device=DEVICE), torch.zeros(5, device=DEVICE)]
    gs = [torch.ones_like(x) for x in xs]
    with pytest.raises(ValueError, match=rf"^{name} must"):
        sgld_update(xs, gs, **({"step_size": 0.1, "seed": 0, "step": 0, "backend": backend} | change))
    assert not any(x.any() for x in xs)


# ---- one launch


class _Recorder:
    """Stands in for a Triton kernel, and records the grids of its launches."""

    def __init__(self):
        self.grids = []

    def __getitem__(self, grid):
        self.grids.append(grid)
        return lambda *arguments, **options: None


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("backend", BACKENDS[1:])
def test_two_hundred_tensors_are_one_launch(backend, mixed, monkeypatch):
    dtypes = [torch.float32, torch.bfloat16, torch.float16] if mixed else [torch.float32]
    xs = [random_tensor(1 + 7 * i % 23, dtypes[i % len(dtypes)], i) for i in range(200)]
    gs = [torch.ones_like(x) for x in xs]
    states = [torch.ones_like(x, dtype=torch.float32) for x in xs]
    recorder = _Recorder()
    if backend == "triton":
        kernels = dispatch.backend_module(backend, "boltzbench.kernels.sgld")
        monkeypatch.setattr(kernels, "update_kernel", recorder)
    else:
        monkeypatch.setattr(CudaModule, "launch", lambda self, kernel, grid, *rest, **options: recorder[grid])
    sgld_update(xs, gs, 0.1, seed=0, step=0, rounding="stochastic", backend=backend)
    psgld_update(xs, gs, states, 0.1, seed=0, step=1, backend=backend)
    sghmc_update(xs, gs, states, 0.1, seed=0, step=2, backend=backend)
    assert recorder.grids == [(200,)] * 3


# ---- stochastic rounding

SPECIAL = [0.0, -0.0, 1.0, -3.5, math.inf, -math.inf, math.nan, 2.0**-130, torch.finfo(torch.bfloat16).max]


def test_the_mean_of_stochastic_rounding_is_exact():
    """The mean over all 2**16 random numbers, which are equally probable, is the value itself."""
    every = torch.arange(2**16, device=DEVICE)
    bits = [0x3F800001, 0x3F80FFFF, 0x3FFFC000, 0xC1234567, 0x00001234, 0x807F8001, 0x7F7E1234]
    for value in torch.tensor([b - 2**32 if b >= 2**31 else b for b in bits], dtype=torch.int32, device=DEVICE).view(
        torch.float32
    ):
        rounded = rounded_stochastically(value.expand(2**16), every).double()
        assert rounded.mean() == value.double()
        assert rounded.unique().numel() == 2
        nearest = value.bfloat16().double()
        assert (nearest == rounded).double().mean() >= 0.5


@pytest.mark.parametrize("number", [0, 1, 0x7FFF, 0xFFFF])
def test_numbers_that_bfloat16_holds_are_not_rounded(number):
    values = torch.tensor(SPECIAL, device=DEVICE)
    assert same_bits(
        rounded_stochastically(values, torch.full((len(SPECIAL),), number, device=DEVICE))[:6], values.bfloat16()[:6]
    )
    rounded = rounded_stochastically(values, torch.full((len(SPECIAL),), number, device=DEVICE)).float()
    assert torch.equal(rounded.nan_to_num(7.0), values.bfloat16().float().nan_to_num(7.0))
    nans = torch.tensor([0x7F800001, 0x7FFFFFFF, -1], dtype=torch.int32, device=DEVICE).view(torch.float32)
    assert rounded_stochastically(nans, torch.full((3,), number, device=DEVICE)).isnan().all()


@pytest.mark.parametrize("n", [1, 7, 8, 9, 4097])
def test_parameters_are_rounded_by_the_bits_of_the_rounding_stream(backend, n):
    x, g = random_tensor(n, torch.bfloat16, 1), random_tensor(n, torch.bfloat16, 2)
    x[: min(n, 9)] = torch.tensor(SPECIAL, dtype=torch.bfloat16, device=DEVICE)[: min(n, 9)]
    g[: min(n, 7)] = 0
    half = torch.tensor(0.5 * 0.003, dtype=torch.float32, device=DEVICE)
    moved = x.float() - half * g.float()
    expected = rounded_stochastically(moved, rounding_bits(n, 2**63 + 5, 7, 3, DEVICE))
    sgld_update(x, g, 0.003, 0.0, seed=2**63 + 5, step=7, tensor_numbers=[3], rounding="stochastic", backend=backend)
    if DEVICE.type == "cpu":
        assert torch.equal(x.float().nan_to_num(7.0), expected.float().nan_to_num(7.0))
    else:  # a fused multiply-add rounds once
        torch.testing.assert_close(x, expected, rtol=2.0**-7, atol=0.0, equal_nan=True)
    if n > 9:
        assert not torch.equal(expected[9:], moved[9:].bfloat16())


def test_only_bfloat16_is_rounded_stochastically(backend):
    dtypes = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
    start = [random_tensor(999, dtype, i) for i, dtype in enumerate(dtypes)]
    runs = [[x.clone() for x in start] for _ in range(2)]
    for xs, rounding in zip(runs, ("nearest", "stochastic"), strict=True):
        sgld_update(xs, [torch.ones_like(x) for x in xs], 0.1, seed=1, step=1, rounding=rounding, backend=backend)
    assert [same_bits(a, b) for a, b in zip(*runs, strict=True)] == [True, True, True, False]
    assert torch.equal(rounding_bits(999, 1, 1, 3, DEVICE), rounding_bits(1024, 1, 1, 3, DEVICE)[:999])
    with pytest.raises(ValueError, match=r"^rounding must"):
        sgld_update(start[0], start[0].clone(), 0.1, seed=1, step=1, rounding="up", backend=backend)


# ---- preconditioner and momentum


@pytest.mark.parametrize(
    "case", [c for c in (*psgld.OPERATION.cases, *sghmc.OPERATION.cases) if c.purpose == "check"], ids=str
)
def test_the_variants_agree(backend, case):
    plugin = psgld if case.operation == "psgld" else sghmc
    operation, scheme = plugin.OPERATION, plugin.SCHEME
    implementation = Implementation(
        case.operation, backend, backend, lambda inputs, outputs: langevin.prepare(scheme, backend, inputs, outputs)
    )
    agreement = check_case(operation, implementation, case, DEVICE, seeds=[case.seed])
    assert agreement.passed, agreement.message


def test_friction_one_is_langevin_dynamics_with_twice_the_step(backend):
    x, g = random_tensor(2000, torch.float64, 1), random_tensor(2000, torch.float64, 2)
    ours, theirs = x.clone(), x.clone()
    sghmc_update(ours, g, torch.full_like(x, 9.0), 0.05, 0.7, friction=1.0, seed=3, step=4, backend=backend)
    sgld_update(theirs, g, 0.1, 0.7, seed=3, step=4, backend=backend)
    torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=1e-13)


def test_decay_zero_and_one(backend):
    x, g, square = random_tensor(100, seed=1), random_tensor(100, seed=2), random_tensor(100, seed=3).square()
    kept = square.clone()
    psgld_update(x, g, square, 0.1, decay=1.0, seed=1, step=1, backend=backend)
    assert same_bits(square, kept)
    psgld_update(x, g, square, 0.1, decay=0.0, seed=1, step=1, backend=backend)
    assert same_bits(square, g * g)


@pytest.mark.parametrize("update", [psgld_update, sghmc_update])
def test_strided_states_and_a_step_size_of_zero(backend, update):
    x, g = random_tensor((6, 10), seed=1), random_tensor((6, 10), seed=2)
    state = random_tensor((10, 6), seed=3).square().t()
    dense_x, dense_state = x.clone(), state.contiguous()
    update(x, g, state, 0.1, seed=1, step=1, backend=backend)
    update(dense_x, g, dense_state, 0.1, seed=1, step=1, backend=backend)
    assert same_bits(x, dense_x)
    assert same_bits(state, dense_state)
    update(x, g, state, 0.0, seed=1, step=1, backend=backend)
    assert same_bits(x, dense_x)
    assert same_bits(state, dense_state)


@pytest.mark.parametrize(
    ("update", "states", "change", "name", "error"),
    [
        (psgld_update, [torch.zeros(4, device=DEVICE).bfloat16()], {}, "squares[0]", TypeError),
        (psgld_update, [torch.zeros(5, device=DEVICE)], {}, "squares[0]", ValueError),
        (psgld_update, [torch.zeros(1, device=DEVICE).expand(4)], {}, "squares[0]", ValueError),
        (psgld_update, [torch.zeros(4, device=DEVICE), torch.zeros(4, device=DEVICE)], {}, "squares", ValueError),
        (psgld_update, [], {}, "squares", ValueError),
        (psgld_update, [torch.zeros(4, device=DEVICE)], {"decay": 1.5}, "decay", ValueError),
        (psgld_update, [torch.zeros(4, device=DEVICE)], {"damping": 0.0}, "damping", ValueError),
        (sghmc_update, [torch.zeros(4, device=DEVICE).double()], {}, "momenta[0]", TypeError),
        (sghmc_update, [torch.zeros(4, device=DEVICE)], {"friction": -0.1}, "friction", ValueError),
        (sghmc_update, [torch.zeros(4, device=DEVICE)], {"friction": math.nan}, "friction", ValueError),
        (sghmc_update, [torch.zeros(4, device=DEVICE)], {"step": torch.zeros(1, device=DEVICE)}, "step", TypeError),
        (
            sghmc_update,
            [torch.zeros(4, device=DEVICE)],
            {"step": torch.zeros(2, dtype=torch.int64, device=DEVICE)},
            "step",
            ValueError,
        ),
    ],
)
def test_errors_name_the_argument_of_a_variant(update, states, change, name, error):
    x = torch.zeros(4, device=DEVICE)
    with pytest.raises(error) as caught:
        update([x], [torch.ones(4, device=DEVICE)], states, 0.1, **({"seed": 0, "step": 0} | change))
    assert str(caught.value).startswith(name + " must")
    assert not x.any()


def test_a_state_must_not_share_memory():
    x, g = torch.zeros(4, device=DEVICE), torch.ones(4, device=DEVICE)
    for state in (x, g):
        with pytest.raises(ValueError, match="must not share memory with"):
            sghmc_update(x, g, state, 0.1, seed=0, step=0)


# ---- the step on the device, and torch.compile


def test_a_step_on_the_device_is_read_by_the_kernel(backend):
    step = torch.tensor(2**32 - 2, device=DEVICE)
    ours, theirs, g = random_tensor(900), random_tensor(900), random_tensor(900, seed=1)
    for number in (2**32 - 2, 2**32 - 1):
        sgld_update(ours, g, 0.1, seed=5, step=step, backend=backend)
        sgld_update(theirs, g, 0.1, seed=5, step=number, backend=backend)
        assert same_bits(ours, theirs)
        assert step == number
        step += 1


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_the_update_compiles_as_a_whole(rounding):
    def two(xs, gs, square, step):
        psgld_update(xs, gs, [square, square.clone()], 0.1, seed=2**64 - 1, step=step, rounding=rounding)
        sgld_update(xs[0], gs[0], 0.1, seed=1, step=step)
        return xs[0] * 2

    runs = []
    for run in (two, torch.compile(two, fullgraph=True, backend="aot_eager")):
        xs = [random_tensor(9).cpu(), random_tensor(9).bfloat16().cpu()]
        square = torch.ones(9, device=DEVICE)
        result = run(xs, [2 * torch.ones_like(x) for x in xs], square, torch.tensor(3, device=DEVICE))
        runs.append([*xs, square, result])
    assert all(same_bits(a, b) for a, b in zip(*runs, strict=True))
    assert not torch.equal(runs[0][2], torch.ones(9, device=DEVICE))


@pytest.mark.parametrize("method", ["sgld", "psgld", "sghmc"])
@pytest.mark.parametrize("capturable", [False, True])
def test_the_optimizer_compiles(method, capturable):
    models = [_model().cpu(), _model().cpu()]
    for model, compiled in zip(models, (False, True), strict=True):
        optimizer = SGLD(model.parameters(), lr=0.02, seed=2**63, method=method, capturable=capturable)
        step = torch.compile(optimizer.step, backend="eager") if compiled else optimizer.step
        for _ in range(4):
            optimizer.zero_grad()
            (model(torch.linspace(-1, 1, 40, device=DEVICE).view(8, 5)) ** 2).sum().backward()
            step()
        assert int(optimizer.param_groups[0]["step"]) == 4
    assert all(same_bits(a, b) for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True))
    assert not same_bits(next(models[0].parameters()), next(_model().cpu().parameters()))


# ---- the optimizer


def _model():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Tanh(), torch.nn.Linear(7, 1)).to(DEVICE)


def _energy(model):
    data = torch.linspace(-1, 1, 40, device=DEVICE).view(8, 5)
    return (model(data) ** 2).sum() + sum((x**2).sum() for x in model.parameters()) / 2


def _walk(model, optimizer, steps):
    for _ in range(steps):
        optimizer.zero_grad()
        _energy(model).backward()
        optimizer.step()


def test_the_optimizer_is_the_update(backend):
    model = _model()
    other = copy.deepcopy(model)
    optimizer = SGLD(model.parameters(), lr=0.02, temperature=0.5, seed=11, backend=backend)
    _walk(model, optimizer, 3)
    xs = list(other.parameters())
    for step in range(3):
        slopes = torch.autograd.grad(_energy(other), xs)
        sgld_update(xs, slopes, 0.02, 0.5, seed=11, step=step, backend=backend)
    assert all(same_bits(a, b) for a, b in zip(model.parameters(), xs, strict=True))
    assert not same_bits(next(iter(_model().parameters())), xs[0])


def test_a_restored_run_continues_bit_for_bit(backend, tmp_path):
    model = _model()
    optimizer = SGLD(model.parameters(), lr=0.02, seed=11, backend=backend)
    _walk(model, optimizer, 2)
    torch.save([model.state_dict(), optimizer.state_dict()], tmp_path / "state.pt")
    _walk(model, optimizer, 3)
    restored = _model()
    again = SGLD(restored.parameters(), lr=0.5, temperature=3.0, seed=4, backend=backend)
    states = torch.load(tmp_path / "state.pt", weights_only=True)
    restored.load_state_dict(states[0])
    again.load_state_dict(states[1])
    _walk(restored, again, 3)
    assert all(same_bits(a, b) for a, b in zip(model.parameters(), restored.parameters(), strict=True))


@pytest.mark.parametrize("capturable", [False, True])
@pytest.mark.parametrize("method", ["psgld", "sghmc"])
def test_the_state_of_a_method_is_restored_bit_for_bit(method, capturable, tmp_path):
    """In float32 for bfloat16 parameters, and into existing tensors, where a captured graph reads it."""

    def fresh(**options):
        x = torch.nn.Parameter(random_tensor(50, torch.bfloat16))
        return x, SGLD([x], **{"lr": 0.02, "method": method, "capturable": capturable, **options})

    def walk(x, optimizer, steps):
        for _ in range(steps):
            x.grad = 3 * x.detach()
            optimizer.step()

    x, optimizer = fresh(seed=11, rounding="stochastic")
    walk(x, optimizer, 2)
    torch.save([x.detach(), optimizer.state_dict()], tmp_path / "state.pt")
    walk(x, optimizer, 3)
    (kept,) = optimizer.state[x].values()
    assert kept.dtype is torch.float32
    for begun in (False, True):
        y, again = fresh(lr=0.5)
        if begun:
            walk(y, again, 1)
        step, tensors = again.param_groups[0]["step"], list(again.state[y].values())
        saved, states = torch.load(tmp_path / "state.pt", weights_only=True)
        y.data.copy_(saved)
        again.load_state_dict(states)
        walk(y, again, 3)
        assert same_bits(x, y)
        assert same_bits(kept, next(iter(again.state[y].values())))
        assert not begun or tensors[0] is next(iter(again.state[y].values()))
        assert not capturable or step is again.param_groups[0]["step"]
        assert int(again.param_groups[0]["step"]) == 5


def test_a_run_saved_before_there_were_methods_is_restored():
    x = torch.nn.Parameter(random_tensor(5))
    optimizer = SGLD([x], lr=0.1)
    old = optimizer.state_dict()
    old["param_groups"] = [
        {name: group[name] for name in ("lr", "temperature", "seed", "step", "backend", "params")} | {"step": 7}
        for group in old["param_groups"]
    ]
    optimizer.load_state_dict(old)
    x.grad = torch.ones_like(x)
    optimizer.step()
    assert optimizer.param_groups[0]["step"] == 8


def test_the_methods_are_their_updates(backend):
    for method, name in (("psgld", "square"), ("sghmc", "momentum")):
        x, y, g = torch.nn.Parameter(random_tensor(9)), random_tensor(9), random_tensor(9, seed=1)
        optimizer = SGLD([x], lr=0.1, method=method, seed=3, damping=0.5, friction=0.3, decay=0.8, backend=backend)
        state = g.square() if method == "psgld" else torch.zeros(9, device=DEVICE)
        for step in range(2):
            x.grad = g.clone()
            optimizer.step()
            if method == "psgld":
                psgld_update(y, g, state, 0.1, decay=0.8, damping=0.5, seed=3, step=step, backend=backend)
            else:
                sghmc_update(y, g, state, 0.1, friction=0.3, seed=3, step=step, backend=backend)
        assert same_bits(x, y)
        assert same_bits(optimizer.state[x][name], state)
    with pytest.raises(ValueError, match=r"^method must"):
        SGLD([x], lr=0.1, method="adam")


def test_groups_have_their_own_step_size_and_temperature(backend):
    start = [random_tensor(9, seed=i) for i in range(3)]
    params = [torch.nn.Parameter(x.clone()) for x in start]
    groups = [{"params": params[:2]}, {"params": params[2:], "lr": 0.3, "temperature": 0.0}]
    optimizer = SGLD(groups, lr=0.1, temperature=2.0, seed=1, backend=backend)
    for x in params:
        x.grad = torch.ones_like(x)
    optimizer.step()
    one = torch.ones(9, device=DEVICE)
    require_update(params[0].detach(), start[0], one, 0.1, 2.0, 1, 0, 0)
    require_update(params[1].detach(), start[1], one, 0.1, 2.0, 1, 0, 1)
    require_update(params[2].detach(), start[2], one, 0.3, 0.0, 1, 0, 2)


def test_a_parameter_without_a_gradient_stays_unchanged_and_changes_no_noise(backend):
    start = [random_tensor(9, seed=i) for i in range(3)]
    runs = []
    for frozen in (False, True):
        params = [torch.nn.Parameter(x.clone()) for x in start]
        optimizer = SGLD(params, lr=0.1, seed=1, backend=backend)
        for i, x in enumerate(params):
            x.grad = None if frozen and i == 1 else torch.ones_like(x)
        optimizer.step()
        runs.append(params)
    assert same_bits(runs[1][1], start[1])
    assert not same_bits(runs[0][1], start[1])
    assert same_bits(runs[0][0], runs[1][0])
    assert same_bits(runs[0][2], runs[1][2])


def test_no_gradients_at_all(backend):
    x = torch.nn.Parameter(random_tensor(9))
    before = x.detach().clone()
    assert SGLD([x], lr=0.1, backend=backend).step() is None
    assert same_bits(x, before)


def test_a_closure_is_called_with_gradients_enabled(backend):
    model, other = _model(), _model()
    optimizer = SGLD(model.parameters(), lr=0.02, seed=11, backend=backend)

    def closure():
        assert torch.is_grad_enabled()
        optimizer.zero_grad()
        loss = _energy(model)
        loss.backward()
        return loss

    expected = _energy(other)
    assert torch.equal(optimizer.step(closure), expected)
    _walk(other, SGLD(other.parameters(), lr=0.02, seed=11, backend=backend), 1)
    assert all(same_bits(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("change", [{"lr": -0.1}, {"lr": math.nan}, {"temperature": -1.0}, {"temperature": math.nan}])
def test_errors_name_the_number_of_the_optimizer(change):
    with pytest.raises(ValueError, match=f"^{next(iter(change))} must"):
        SGLD([torch.nn.Parameter(torch.zeros(2, device=DEVICE))], **({"lr": 0.1} | change))
    with pytest.raises(ValueError, match=f"^{next(iter(change))} must"):
        SGLD([{"params": [torch.nn.Parameter(torch.zeros(2, device=DEVICE))], **change}], lr=0.1)


@pytest.mark.parametrize("method", STATES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_model_that_became_double_continues_in_float64(method, backend):
    """As if the parameter and the state had been float64 of the same values."""

    def step(optimizer, x):
        x.grad = torch.linspace(-1, 1, 5, device=DEVICE).to(x.dtype)
        optimizer.step()

    model = torch.nn.Linear(5, 1, bias=False, device=DEVICE)
    x = model.weight
    x.data = torch.linspace(0, 1, 5, device=DEVICE)
    optimizer = SGLD([x], 0.1, 0.0, method=method, backend=backend)
    step(optimizer, x)
    expected = torch.nn.Parameter(x.detach().double())
    other = SGLD([expected], 0.1, 0.0, method=method, backend=backend)
    other.load_state_dict(optimizer.state_dict())
    model.double()
    x.grad = None
    step(optimizer, x)
    step(other, expected)
    assert x.dtype is torch.float64
    assert torch.equal(x, expected)
    for state in (optimizer.state[x], other.state[expected]):
        assert all(value.dtype is torch.float64 for value in state.values())


@pytest.mark.parametrize("method", ["psgld", "sghmc"])
@pytest.mark.parametrize("loading", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("stepped", [False, True])
def test_a_state_of_another_dtype_is_cast_to_that_of_the_loading_optimizer(method, loading, stepped):
    def made(dtype, steps):
        x = torch.nn.Parameter(torch.ones(4, dtype=dtype, device=DEVICE))
        optimizer = SGLD([x], 0.1, method=method)
        for _ in range(steps):
            x.grad = torch.full_like(x, 0.3)
            optimizer.step()
        return x, optimizer

    for saved in (torch.float32, torch.float64, torch.bfloat16):
        y, old = made(saved, 2)
        x, optimizer = made(loading, 1 if stepped else 0)
        optimizer.load_state_dict(old.state_dict())
        (kept,), (mine,) = old.state[y].values(), optimizer.state[x].values()
        assert mine.dtype is (torch.float64 if loading is torch.float64 else torch.float32)
        assert torch.equal(mine, kept.to(mine.dtype))
        x.grad = torch.full_like(x, 0.3)
        optimizer.step()
        assert bool(torch.isfinite(x).all())


@pytest.mark.parametrize("capturable", [False, True])
@pytest.mark.parametrize("method", STATES)
def test_a_group_without_parameters(method, capturable):
    """torch's optimizers accept it, and a group may be filled later by `add_param_group`."""
    optimizer = SGLD([{"params": []}], 0.1, method=method, capturable=capturable)
    optimizer.step()
    assert int(optimizer.param_groups[0]["step"]) == 1
    x = torch.nn.Parameter(torch.ones(3, device=DEVICE))
    optimizer.add_param_group({"params": [x]})
    x.grad = torch.ones(3, device=DEVICE)
    optimizer.step()
    assert not torch.equal(x, torch.ones(3, device=DEVICE))
    again = SGLD([{"params": []}, {"params": [x]}], 0.1, method=method, capturable=capturable)
    again.load_state_dict(optimizer.state_dict())
    assert [int(group["step"]) for group in again.param_groups] == [2, 1]
    with pytest.raises(ValueError, match="empty parameter list"):
        SGLD([], 0.1)


def test_a_capture_on_another_stream_takes_the_tables_of_an_earlier_update(monkeypatch):
    state = {"capturing": False, "stream": 7}
    device = torch.device("cuda", 0)
    read: list[object] = []
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: state["capturing"])
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: type("S", (), {"cuda_stream": state["stream"]}))
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, *target, **options: tensor)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: read.append(stream))
    monkeypatch.setattr(request, "_kept", {})
    first = request._blocks((5, 3), 4, device)
    state.update(capturing=True, stream=8)
    assert request._blocks((5, 3), 4, device) is first
    assert [stream.cuda_stream for stream in read] == [8]  # the allocator knows that this stream reads it


@pytest.mark.parametrize("scale", [1e200, 1e-200])
@pytest.mark.parametrize(
    ("update", "states", "options"),
    [
        (sgld_update, (), {}),
        (psgld_update, (torch.ones(5, dtype=torch.float64),), {"decay": 1.0, "damping": 1e-12}),
        (sghmc_update, (torch.zeros(5, dtype=torch.float64),), {"friction": 0.5}),
    ],
)
def test_noise_whose_variance_is_beyond_the_range_of_floats(update, states, options, scale):
    """The noise has the scale ``sqrt(step_size * temperature)``, which float64 holds where the product overflows."""
    found = []
    for number in (scale, 1.0):
        x = torch.zeros(5, dtype=torch.float64)
        kept = [state.clone() for state in states]
        update(x, torch.zeros_like(x), *kept, number, number, seed=7, step=0, backend="torch", **options)
        found.append(x)
    torch.testing.assert_close(found[0] / scale, found[1], rtol=1e-12, atol=0)


class Evicting(dict):
    """A cache from which another thread evicts all tables after each look at it."""

    def __contains__(self, key: object) -> bool:
        found = super().__contains__(key)
        self.clear()
        return found

    def get(self, key: object, default: object = None) -> object:
        found = super().get(key, default)
        self.clear()
        return found


def test_a_table_that_another_thread_evicts_is_still_used(monkeypatch):
    monkeypatch.setattr(request, "_kept", Evicting())
    tables = [request._blocks((5, 3), 4, torch.device("cpu")) for _ in range(3)]
    assert [table.tolist() for table in tables] == 3 * [[[0, 0], [0, 4], [1, 0]]]
