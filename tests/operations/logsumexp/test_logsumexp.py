"""Log-sum-exp on its three backends: values, shapes, strides, gradients, torch.compile, bad input."""

import math

import numpy as np
import pytest
import torch
from boltzbench.kernels.logsumexp import _backward_op, _forward_op, logsumexp, logsumexp_backward
from support.devices import DEVICE

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
UNIT = {torch.float64: 2.0**-53, torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
INF, NAN = math.inf, math.nan


def tensor(values, dtype=torch.float32):
    return torch.tensor(values, dtype=dtype, device=DEVICE)


def random_input(*shape, dtype=torch.float32, seed=0, spread=8.0):
    """Rows of different level and scale with a few outliers, so that both the sum and the maximum matter."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    x = x * torch.rand((*shape[:-1], 1), generator=generator, dtype=torch.float64) * 3
    x = x + torch.randn((*shape[:-1], 1), generator=generator, dtype=torch.float64) * spread
    x = torch.where(torch.rand(shape, generator=generator) < 0.002, x + 5, x)
    return x.to(dtype).to(DEVICE)


def exact_logsumexp(x, dim, beta=1.0):
    """``log sum exp(beta x)`` and ``|max|``, in extended precision."""
    z = x.detach().to(torch.float64).cpu().numpy().astype(np.longdouble) * np.longdouble(beta)
    peak = z.max(axis=dim, keepdims=True)
    total = np.exp(z - peak).sum(axis=dim, keepdims=True)
    return np.squeeze(peak + np.log(total), axis=dim), np.squeeze(np.abs(peak), axis=dim)


def require_right(y, x, dim=-1, beta=1.0):
    """Within 2 u (|y| + |max| + ln n + 1), plus u_out |y| for a 16-bit result."""
    expected, peak = exact_logsumexp(x, dim, beta)
    assert y.dtype is x.dtype
    assert tuple(y.shape) == expected.shape
    assert y.is_contiguous()
    u = UNIT[x.dtype] if x.dtype.itemsize > 2 else 2.0**-24
    bound = 2 * u * (np.abs(expected) + peak + math.log(x.shape[dim]) + 1)
    if x.dtype.itemsize == 2:
        bound = bound + UNIT[x.dtype] * np.abs(expected)
    error = np.abs(y.detach().to(torch.float64).cpu().numpy() - expected)
    assert (error <= bound).all(), f"error / bound up to {float((error / bound).max()):.3g}"


def run(x, dim=-1, beta=1.0, **options):
    """`logsumexp`, with a check that it leaves the input unchanged."""
    before = x.detach().clone()
    y = logsumexp(x, dim, beta, **options)
    assert torch.equal(x.detach().nan_to_num(1.5), before.nan_to_num(1.5))
    return y


# ---- edge values


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("row", "beta", "answer"),
    [
        ([], 1.0, -INF),
        ([-INF], 1.0, -INF),
        ([-INF] * 70, 1.0, -INF),
        ([-INF, 0.0], 1.0, 0.0),
        ([0.0, -INF], 1.0, 0.0),
        ([-INF] * 300 + [0.0], 1.0, 0.0),
        ([0.0] + [-INF] * 5000, 1.0, 0.0),
        ([1.0, INF], 1.0, INF),
        ([INF, INF], 1.0, INF),
        ([INF, -INF, 3.0], 1.0, INF),
        ([INF] + [0.0] * 5000, 1.0, INF),
        ([0.0] * 5000 + [INF], 1.0, INF),
        ([NAN], 1.0, NAN),
        ([NAN, 1.0], 1.0, NAN),
        ([1.0, NAN], 1.0, NAN),
        ([INF, NAN], 1.0, NAN),
        ([-INF, NAN], 1.0, NAN),
        ([NAN, INF, -INF], 1.0, NAN),
        ([NAN] + [0.0] * 5000, 1.0, NAN),
        ([0.0] * 5000 + [NAN], 1.0, NAN),
        ([-INF] * 5000 + [NAN], 1.0, NAN),
        ([-INF, 0.0], -1.0, INF),
        ([INF, INF], -1.0, -INF),
        ([INF, 0.0], -2.0, 0.0),
        ([NAN, 0.0], -1.0, NAN),
        ([1.0, -7.0, 3.0, 2.0], 0.0, math.log(4)),
        ([], 0.0, -INF),
        ([INF, 0.0], 0.0, NAN),
        ([-INF, 0.0], 0.0, NAN),
        ([NAN, 0.0], 0.0, NAN),
        ([1000.0, 1000.0], 1.0, 1000.6931471805599),
        ([-1000.0, -1000.0], 1.0, -999.3068528194401),
        ([1000.0, 1000.0], -1.0, -999.3068528194401),
    ],
)
def test_edge_values(backend, dtype, row, beta, answer):
    # A second, ordinary row must not be affected by an infinity or NaN in the first.
    other = [0.25] * len(row)
    y = run(tensor([row, other], dtype), -1, beta, backend=backend)
    expected = tensor([answer, beta * 0.25 + math.log(len(row)) if row else -INF], torch.float64)
    tolerance = UNIT[dtype] + (2.0**-22 if dtype is not torch.float64 else 2.0**-51)
    torch.testing.assert_close(y.to(torch.float64), expected, rtol=tolerance, atol=tolerance, equal_nan=True)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_single_element_is_returned_exactly(backend, dtype):
    values = [0.0, 1.0, -3.3, 1e-3, 123.456, -6e4, 6e4, 2.0**-24, INF, -INF]
    if dtype.itemsize > 2:
        values += [1e30, -1e30, torch.finfo(dtype).max, torch.finfo(dtype).min, torch.finfo(dtype).tiny]
    x = tensor(values, dtype)[:, None]
    assert torch.equal(run(x, backend=backend), x[:, 0])


def test_the_largest_and_smallest_numbers_do_not_overflow(backend):
    top = torch.finfo(torch.float32).max
    x = tensor([[top, top / 2], [-top, -top], [top, -top], [1e-40, 2e-40]])
    y = run(x, backend=backend)
    assert torch.equal(y[:3], tensor([top, -top, top]))
    torch.testing.assert_close(y[3:], tensor([math.log(2)]), rtol=2.0**-22, atol=0)


# ---- sizes


@pytest.mark.parametrize("n", [1, 2, 31, 32, 33, 127, 128, 129, 255, 256, 257, 511, 513, 1009, 1023, 1024, 1025])
def test_sizes_around_blocks(backend, n):
    for rows in (1, 3, 9):
        x = random_input(rows, n, seed=n + rows)
        require_right(run(x, backend=backend), x)


@pytest.mark.parametrize("n", [2047, 2049, 4095, 4096, 4097, 8193])
def test_long_sizes_around_blocks(backend, n):
    x = random_input(3, n, seed=n)
    require_right(run(x, backend=backend), x)
    # The last element counts, and the elements beyond it do not.
    x = torch.zeros(2, n + 5, device=DEVICE)
    x[:, n - 1] = 20.0
    x[:, n:] = 90.0
    require_right(run(x[:, :n], backend=backend), x[:, :n])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("beta", [1.0, 0.37, -1.0, -2.5, 0.0])
def test_dtypes_and_temperatures(backend, dtype, beta):
    for n in (37, 136):
        x = random_input(5, n, dtype=dtype, seed=n)
        require_right(run(x, -1, beta, backend=backend), x, -1, beta)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 2])
def test_rows_too_long_for_one_block_are_split_and_combined(backend, dtype, rows):
    x = random_input(rows, 70_001, dtype=dtype, seed=3)
    require_right(run(x, backend=backend), x)
    for special, answer in ((INF, INF), (NAN, NAN)):
        for place in (0, 40_000, 70_000):
            changed = x[:1].clone()
            changed[0, place] = special
            assert torch.equal(logsumexp(changed, backend=backend).isnan(), tensor([math.isnan(answer)]).bool())
            if special == INF:
                assert logsumexp(changed, backend=backend).item() == INF
    mostly = torch.full((1, 70_001), -INF, dtype=dtype, device=DEVICE)
    assert logsumexp(mostly, backend=backend).item() == -INF
    mostly[0, 69_999] = 1.25
    assert logsumexp(mostly, backend=backend).item() == 1.25
    require_right(run(x[:, :33_000], -1, -0.7, backend=backend), x[:, :33_000], -1, -0.7)


@pytest.mark.parametrize(("rows", "n"), [(4099, 3), (1000, 1), (517, 8), (130, 33)])
def test_many_short_rows(backend, rows, n):
    x = random_input(rows, n, seed=rows)
    require_right(run(x, backend=backend), x)
    require_right(run(x.t().contiguous(), 0, backend=backend), x.t(), 0)


@pytest.mark.parametrize("keepdim", [False, True])
@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 3), (2, 0, 4), (0, 0), (2, 3, 0)])
def test_zero_sizes(backend, shape, keepdim):
    x = torch.empty(shape, device=DEVICE)
    for dim in range(len(shape)):
        expected = torch.logsumexp(x, dim, keepdim=keepdim)
        assert torch.equal(run(x, dim, keepdim=keepdim, backend=backend), expected)
        y = x.clone().requires_grad_()
        logsumexp(y, dim, backend=backend).sum().backward()
        assert y.grad.shape == x.shape


# ---- strides


def _strided(name):
    x = random_input(6, 10, 8, 9, seed=11)
    return {
        "transposed": lambda: x[0, 0].t(),
        "sliced": lambda: x[:, ::3, 1:, ::2],
        "offset": lambda: x.flatten()[1:4001].view(40, 100),
        "narrow rows": lambda: x.flatten()[: 40 * 100].view(40, 100)[:, 3:99],
        "expanded rows": lambda: x[:1, :1].expand(4, 5, 8, 9),
        "expanded elements": lambda: x[..., :1].expand(6, 10, 8, 7),
        "permuted": lambda: x.permute(3, 1, 0, 2),
        "5-d permuted": lambda: x.view(2, 3, 10, 8, 9).permute(4, 2, 0, 3, 1),
        "5-d sliced": lambda: x.view(2, 3, 10, 8, 9)[:, ::2, ::2, 1:8:2, ::3],
        "flipped": lambda: x.flip(0)[1:, :3],
        "window": lambda: x.flatten()[:200].unfold(0, 20, 3),
    }[name]()


@pytest.mark.parametrize(
    "name",
    [
        "transposed",
        "sliced",
        "offset",
        "narrow rows",
        "expanded rows",
        "expanded elements",
        "permuted",
        "5-d permuted",
        "5-d sliced",
        "flipped",
        "window",
    ],
)
def test_strided_inputs(backend, name):
    x = _strided(name)
    for dim in range(-x.dim(), x.dim()):
        require_right(run(x, dim, 0.8, backend=backend), x, dim, 0.8)
    grad = torch.randn(x.shape[:-1], device=DEVICE)
    lse = logsumexp(x, -1, 0.8, backend=backend)
    slope = logsumexp_backward(grad, x, lse, -1, 0.8, backend=backend)
    expected = grad.double()[..., None] * 0.8 * torch.softmax(x.double() * 0.8, -1)
    torch.testing.assert_close(slope.double(), expected, rtol=2e-5, atol=1e-7)
    first = logsumexp_backward(lse.new_ones(x.shape[1:]), x, logsumexp(x, 0, backend=backend), 0, backend=backend)
    torch.testing.assert_close(first.double(), torch.softmax(x.double(), 0), rtol=2e-5, atol=1e-7)


def test_a_zero_dimensional_result(backend):
    x = random_input(129)
    y = run(x, 0, backend=backend)
    assert y.shape == ()
    require_right(y, x, 0)


def test_keepdim(backend):
    x = random_input(4, 5, 6)
    for dim in (0, 1, -1):
        y = logsumexp(x, dim, backend=backend)
        assert torch.equal(logsumexp(x, dim, keepdim=True, backend=backend), y.unsqueeze(dim))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [7, 20_000, 40_000])
def test_out_is_written_and_nothing_around_it(backend, dtype, n):
    x = random_input(3, n, dtype=dtype)
    for keepdim in (False, True):
        band = torch.full((3 + 16,), 77.0, dtype=dtype, device=DEVICE)
        out = band[8:11].fill_(NAN)
        out = out.view(3, 1) if keepdim else out
        assert run(x, keepdim=keepdim, out=out, backend=backend) is out
        require_right(out.view(3), x)
        assert torch.equal(out, logsumexp(x, keepdim=keepdim, backend=backend))
        assert (band[:8] == 77).all()
        assert (band[11:] == 77).all()


# ---- gradients


@pytest.mark.parametrize(("beta", "dim"), [(1.0, -1), (-0.6, 0), (2.0, 1)])
def test_gradcheck(backend, beta, dim):
    x = random_input(3, 4, 2, dtype=torch.float64, spread=1.0).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: logsumexp(x, dim, beta, backend=backend), x)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 33, 257, 4097])
def test_the_gradient_is_the_softmax(backend, dtype, n):
    x = random_input(3, n, dtype=dtype, seed=n).requires_grad_()
    grad = tensor([1.5, -2.0, 0.25], dtype)
    run(x, -1, 0.7, backend=backend).backward(grad)
    wide = x.detach().double()
    expected = grad.double()[:, None] * 0.7 * torch.softmax(wide * 0.7, -1)
    u = UNIT[torch.float64 if dtype is torch.float64 else torch.float32]
    # The exponent beta x - lse has an error of a few u of its terms. Rounding to the dtype adds one more error, which
    # is absolute for subnormal numbers.
    relative = 6 * u * (0.7 * wide.abs().amax(-1, keepdim=True) + math.log(n) + 2)
    relative = relative + (UNIT[dtype] if dtype.itemsize == 2 else 0)
    smallest = 2.0**-25 if dtype is torch.float16 else 2.0**-126
    assert x.grad.dtype is dtype
    assert ((x.grad.double() - expected).abs() <= relative * expected.abs() + smallest).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_16_bit_gradients_use_the_unrounded_result(backend, dtype):
    # The result is about 1000.7. bfloat16 rounds it by up to 4, which would change the gradient by a factor.
    x = (1000 + 8 * torch.arange(12, device=DEVICE) % 5 + torch.zeros(2, 12, device=DEVICE)).to(dtype).requires_grad_()
    logsumexp(x, backend=backend).sum().backward()
    expected = torch.softmax(x.detach().double(), -1)
    assert ((x.grad.double() - expected).abs() <= 2 * UNIT[dtype] * expected + 2.0**-24).all()
    torch.testing.assert_close(x.grad.double().sum(-1), torch.ones(2).double().to(DEVICE), rtol=0, atol=0.02)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("beta", [1.0, 0.37, -1.0])
def test_the_level_of_a_row_costs_the_gradient_no_digits(backend, dtype, beta):
    """A gradient computed from a log-sum-exp that is rounded at the level of its row would be off by a factor."""
    finfo = torch.finfo(dtype)
    levels = [0.0, 1234.5, 1.2345678e7, 1e8, -1e9, 1e15, 1e30, -1e30, finfo.min, finfo.max]
    levels = tensor([level for level in levels if abs(level) <= finfo.max], torch.float64)[:, None]
    noise = random_input(len(levels), 67, dtype=torch.float64, seed=5, spread=0.0)
    x = (levels + 8 * noise).clamp(finfo.min, finfo.max).to(dtype).requires_grad_()
    grad = torch.linspace(-2, 1, len(levels)).to(dtype).to(DEVICE)
    run(x, -1, beta, backend=backend).backward(grad)
    wide = x.detach().double()
    distance = beta * (wide - (wide.amax(-1, keepdim=True) if beta > 0 else wide.amin(-1, keepdim=True)))
    expected = beta * grad.double()[:, None] * torch.softmax(distance, -1)
    u = UNIT[torch.float64 if dtype is torch.float64 else torch.float32]
    # As in the check of the operation: three roundings of a distance and of the logarithm of the total, and 8 more.
    relative = u * (3 * (distance.abs() + math.log(67)) + 8) + (UNIT[dtype] if dtype.itemsize == 2 else 0)
    smallest = 2.0**-25 if dtype is torch.float16 else 2.0**-126
    assert ((x.grad.double() - expected).abs() <= relative * expected.abs() + smallest).all()


@pytest.mark.parametrize("size", [1e7, 1e8, 1e15, 1e30])
def test_the_gradient_of_a_single_element_is_one(backend, size):
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        x = tensor([[1.2345678 * size], [-1.2345678 * size], [torch.finfo(dtype).max]], dtype).requires_grad_()
        logsumexp(x, backend=backend).sum().backward()
        assert torch.equal(x.grad, torch.ones_like(x))


@pytest.mark.parametrize("level", [1e8, -1e9, 1e30, torch.finfo(torch.float32).min])
@pytest.mark.parametrize("beta", [1.0, -0.6])
def test_the_level_of_a_row_costs_no_digits_in_other_modes(backend, beta, level):
    x = torch.full((2, 4), level, device=DEVICE, requires_grad=True)
    slope, weights = torch.full((2, 4), beta / 4, device=DEVICE), torch.tensor([1.0, 0.0, -2.0, 0.5], device=DEVICE)
    (found,) = torch.autograd.grad(logsumexp(x, 1, beta, backend=backend).sum(), x, create_graph=True)
    torch.testing.assert_close(found, slope)
    (second,) = torch.autograd.grad((found * weights).sum(), x)
    torch.testing.assert_close(second, (beta**2 / 4 * (weights - weights.mean())).expand(2, 4))
    tangent = torch.func.jvp(lambda x: logsumexp(x, 1, beta, backend=backend), (x.detach(),), (weights.expand(2, 4),))[
        1
    ]
    torch.testing.assert_close(tangent, (slope * weights).sum(1))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_masked_row_does_not_poison_its_batch(backend, dtype):
    x = random_input(5, 40, dtype=dtype)
    x[1], x[3, ::2] = torch.finfo(dtype).min, torch.finfo(dtype).min
    ours = x.clone().requires_grad_()
    logsumexp(ours, backend=backend).sum().backward()
    expected = torch.softmax(x.double(), -1)
    torch.testing.assert_close(ours.grad.double(), expected, rtol=2 * UNIT[dtype] + 1e-5, atol=1e-7)
    assert (ours.grad[3, ::2] == 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("beta", [1.0, -1.0])
def test_the_gradient_is_zero_in_a_row_without_weight(backend, dtype, beta):
    x = tensor([[-INF] * 40, [0.0] * 40, [-INF] * 39 + [2.0]], dtype) * beta
    x.requires_grad_()
    logsumexp(x, -1, beta, backend=backend).sum().backward()
    assert torch.equal(x.grad[0], torch.zeros(40, dtype=dtype, device=DEVICE))
    torch.testing.assert_close(x.grad[1].double(), torch.full((40,), beta / 40).double().to(DEVICE), rtol=0.005, atol=0)
    assert torch.equal(x.grad[2], tensor([0.0] * 39 + [beta], dtype))


def test_gradients_agree_with_torch(backend):
    x = random_input(4, 6, 5, spread=1.0)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    (logsumexp(ours.permute(2, 0, 1), 1, 1.3, keepdim=True, backend=backend) ** 2).sum().backward()
    (torch.logsumexp(1.3 * theirs.permute(2, 0, 1), 1, keepdim=True) ** 2).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-6)


def test_a_non_contiguous_gradient_and_its_guard_bands(backend):
    x = random_input(6, 35)
    lse = logsumexp(x, backend=backend)
    grad = torch.randn(6, 2, device=DEVICE)[:, 0]
    band = torch.full((6 * 35 + 32,), 77.0, device=DEVICE)
    out = band[16:-16].view(6, 35).fill_(NAN)
    kept = [t.clone() for t in (grad, x, lse)]
    assert logsumexp_backward(grad, x, lse, out=out, backend=backend) is out
    expected = grad.double()[:, None] * torch.softmax(x.double(), -1)
    torch.testing.assert_close(out.double(), expected, rtol=2e-5, atol=1e-7)
    assert (band[:16] == 77).all()
    assert (band[-16:] == 77).all()
    assert all(torch.equal(a, b) for a, b in zip(kept, (grad, x, lse), strict=True))


# ---- torch.compile and torch.library


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_under_torch_compile(backend, dtype):
    def energy(x):
        return (2 * logsumexp(x * 1.5, 1, 0.5, backend=backend)).sum()

    torch._dynamo.reset()
    compiled = torch.compile(energy, fullgraph=True, backend="aot_eager")
    eager_x, x = (random_input(4, 9, 3, dtype=dtype).requires_grad_() for _ in range(2))
    expected, y = energy(eager_x), compiled(x)
    torch.testing.assert_close(y, expected, rtol=0, atol=0)
    expected.backward()
    y.backward()
    torch.testing.assert_close(x.grad, eager_x.grad, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_opcheck(backend, dtype):
    x = random_input(3, 5, dtype=dtype).requires_grad_()
    torch.library.opcheck(_forward_op, (x, 1, 0.5, backend))
    torch.library.opcheck(_forward_op, (x.detach().t(), 1, 0.5, backend))
    _, log_total, peak = _forward_op(x.detach(), 1, 0.5, backend)
    grad = torch.ones(3, dtype=dtype, device=DEVICE)
    torch.library.opcheck(_backward_op, (grad, x.detach(), log_total, peak, 1, 0.5, backend))


# ---- bad input


@pytest.mark.parametrize(
    ("x", "error"),
    [
        ([1.0, 2.0], TypeError),
        (np.zeros(3), TypeError),
        (torch.zeros(3, dtype=torch.int64), TypeError),
        (torch.zeros(3, dtype=torch.bool), TypeError),
        (torch.zeros(3, dtype=torch.complex64), TypeError),
        (torch.zeros(3, 3).to_sparse(), TypeError),
    ],
)
def test_a_wrong_x_is_named(backend, x, error):
    with pytest.raises(error, match=r"^x must"):
        logsumexp(x, backend=backend)


@pytest.mark.parametrize("dim", [2, -3, 5])
def test_a_dim_out_of_range_is_named(backend, dim):
    with pytest.raises(IndexError, match=r"^dim must"):
        logsumexp(torch.zeros(2, 3, device=DEVICE), dim, backend=backend)
    with pytest.raises(IndexError, match=r"^dim"):
        logsumexp(torch.tensor(1.0, device=DEVICE), 0, backend=backend)


@pytest.mark.parametrize("beta", [INF, -INF, NAN])
def test_a_beta_that_is_not_finite_is_named(backend, beta):
    x = torch.zeros(2, 3, device=DEVICE)
    with pytest.raises(ValueError, match=r"^beta must be finite"):
        logsumexp(x, -1, beta, backend=backend)
    with pytest.raises(ValueError, match=r"^beta must be finite"):
        logsumexp_backward(x[:, 0], x, x[:, 0], -1, beta, backend=backend)


def test_the_largest_beta(backend):
    """Beyond it, the product of beta and log2(e) would overflow in the kernels and give NaN."""
    x = torch.tensor([[0.0, 0.0], [-1.0, 0.0], [0.0, -1e-38]], device=DEVICE)
    most = torch.finfo(torch.float32).max / 2
    expected = [math.log(2), 0.0, math.log1p(math.exp(-1e-38 * most))]
    assert logsumexp(x, beta=most, backend=backend).tolist() == pytest.approx(expected)
    assert logsumexp(-x, beta=-most, backend=backend).tolist() == pytest.approx(expected)
    for beta in (1e39, -2 * most):
        with pytest.raises(ValueError, match=r"^beta must lie in \[-1.70141e\+38, 1.70141e\+38\]"):
            logsumexp(x.half(), beta=beta, backend=backend)
    assert logsumexp(x.double(), beta=1e39, backend=backend).isfinite().all()


def test_signs_of_infinities_at_negative_beta(backend):
    x = torch.tensor([[INF, INF], [0.0, INF], [0.0, -INF]], device=DEVICE)
    assert logsumexp(x, beta=-1.0, backend=backend).tolist() == [-INF, 0.0, INF]


def test_a_wrong_out_is_named(backend):
    x = torch.zeros(4, 4, device=DEVICE)
    for out, error in (
        (torch.zeros(5), ValueError),
        (torch.zeros(4, 1), ValueError),
        (torch.zeros(8)[::2], ValueError),
        (x[0], ValueError),
        (x[:, 1], ValueError),
        (torch.zeros(4, dtype=torch.float64), TypeError),
        (torch.zeros(4, device="meta"), ValueError),
        ([0.0] * 4, TypeError),
    ):
        with pytest.raises(error, match=r"^out must"):
            logsumexp(x, out=out, backend=backend)
    with pytest.raises(ValueError, match=r"^out must be None"):
        logsumexp(x.clone().requires_grad_(), out=torch.zeros(4, device=DEVICE), backend=backend)


def test_a_wrong_argument_of_the_gradient_is_named(backend):
    x, row = torch.zeros(4, 3, device=DEVICE), torch.zeros(4, device=DEVICE)
    for grad, lse, name, error in (
        (torch.zeros(3), row, "grad", ValueError),
        (row.double(), row, "grad", TypeError),
        (row, torch.zeros(4, 1), "lse", ValueError),
        (row, row.half(), "lse", TypeError),
    ):
        with pytest.raises(error, match=rf"^{name} must"):
            logsumexp_backward(grad, x, lse, backend=backend)
    for peak, error in ((torch.zeros(3), ValueError), (row.double(), TypeError)):
        with pytest.raises(error, match=r"^peak must"):
            logsumexp_backward(row, x, row, peak=peak, backend=backend)
    with pytest.raises(ValueError, match=r"^out must not share memory with x"):
        logsumexp_backward(row, x, row, out=x, backend=backend)


def test_an_unknown_backend_is_named():
    with pytest.raises(ValueError, match=r"^backend must be one of auto, torch, triton, cupy, native; got 'tritn'"):
        logsumexp(torch.zeros(3, device=DEVICE), backend="tritn")
    with pytest.raises(ValueError, match=r"^backend 'triton' cannot run on meta"):
        logsumexp(torch.zeros(3, device="meta"), backend="triton")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_gradient_of_a_row_with_infinity(backend, dtype):
    x = torch.tensor([[0.0, 1.0, math.inf]], dtype=dtype, device=DEVICE)
    lse = torch.tensor([math.inf], dtype=dtype, device=DEVICE)
    slope = logsumexp_backward(torch.ones_like(lse), x, lse, backend=backend)
    assert slope[0, :2].tolist() == [0.0, 0.0]
    assert slope[0, 2].isnan()
