"""Generalised cross-entropy on its three backends: against extended precision, gradients, edge values, bad input."""

import math

import numpy as np
import pytest
import torch
from boltzbench.kernels.common import dispatch
from boltzbench.kernels.generalised_cross_entropy import (
    GeneralisedCrossEntropy,
    _backward_op,
    _forward_op,
    generalised_cross_entropy,
    generalised_cross_entropy_backward,
    generalised_cross_entropy_forward,
)
from support.devices import DEVICE

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
INF, NAN = math.inf, math.nan


def tensor(values, dtype=torch.float32):
    return torch.tensor(values, dtype=dtype, device=DEVICE)


def random_case(*shape, dtype=torch.float32, seed=0):
    """Logits with a different level in each row. Every third label is the likeliest class."""
    generator = torch.Generator().manual_seed(seed)
    x = 2 * torch.randn(shape, generator=generator)
    dim = min(1, len(shape) - 1)
    x = (x + 10 * torch.randn([1 if k == dim else size for k, size in enumerate(shape)], generator=generator)).to(dtype)
    labels = torch.randint(0, shape[dim], [s for k, s in enumerate(shape) if k != dim], generator=generator)
    labels.view(-1)[::3] = x.argmax(dim).view(-1)[::3]
    return x.to(DEVICE), labels.to(DEVICE)


def exact(x, labels, q):
    """Losses and gradients of (rows, classes) in extended precision."""
    z = x.detach().double().cpu().numpy().astype(np.longdouble)
    rows, y = np.arange(len(z)), labels.cpu().numpy()
    distance = z - z.max(axis=1, keepdims=True)
    log_p = distance - np.log(np.exp(distance).sum(axis=1, keepdims=True))
    chosen = log_p[rows, y]
    p, one_hot = np.exp(log_p), np.zeros_like(z)
    one_hot[rows, y] = 1
    loss = -np.expm1(q * chosen) / q if q else -chosen
    return loss, np.exp(q * chosen)[:, None] * (p - one_hot)


def test_a_known_loss_of_four_classes(backend):
    """z = (2, -1, 0.5, 0), y = 0, q = 0.7."""
    loss = generalised_cross_entropy(
        tensor([[2, -1, 0.5, 0]], torch.float64), tensor([0], torch.int64), backend=backend
    )
    assert loss.item() == pytest.approx(0.3044180, abs=5e-8)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("q", [0.0, 1e-30, 1e-9, 0.3, 0.7, 1.0])
def test_loss_and_gradient(backend, dtype, q):
    tolerance = 1e-13 if dtype is torch.float64 else 3e-6
    for rows, classes in ((33, 8), (5, 37), (2, 1031)):
        x, labels = random_case(rows, classes, dtype=dtype, seed=classes)
        before, x = x.clone(), x.requires_grad_()
        loss = generalised_cross_entropy(x, labels, q, reduction="none", backend=backend)
        assert loss.dtype is (torch.float64 if dtype is torch.float64 else torch.float32)
        wanted, slopes = exact(x, labels, q)
        error = np.abs(loss.detach().cpu().double().numpy() - wanted)
        assert (error <= tolerance * (1 + np.abs(wanted))).all()
        weights = torch.linspace(-1.5, 2, rows, dtype=loss.dtype, device=DEVICE)
        loss.backward(weights)
        slopes = weights.cpu().double().numpy()[:, None] * slopes
        rounding = {torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}.get(dtype, 0.0)
        error = np.abs(x.grad.cpu().double().numpy() - slopes)
        assert x.grad.dtype is dtype
        assert (error <= (20 * tolerance + rounding) * np.abs(slopes) + tolerance + 2.0**-24 * (rounding > 0)).all()
        assert torch.equal(x.detach(), before)


def test_the_limits_in_q(backend):
    x, labels = random_case(40, 11, dtype=torch.float64)
    cross_entropy = torch.nn.functional.cross_entropy(x, labels, reduction="none")
    p = torch.softmax(x, 1).gather(1, labels[:, None])[:, 0]

    def loss(q):
        return generalised_cross_entropy(x, labels, q, reduction="none", backend=backend)

    torch.testing.assert_close(loss(0.0), cross_entropy, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(loss(1e-13), cross_entropy, rtol=1e-11, atol=1e-14)
    torch.testing.assert_close(loss(1.0), 1 - p, rtol=1e-13, atol=1e-15)
    # The next term of the series: L_q = -log p - q (log p)^2 / 2 + O(q^2).
    torch.testing.assert_close((cross_entropy - loss(1e-6)) / 1e-6, cross_entropy**2 / 2, rtol=1e-4, atol=1e-8)


def test_a_small_loss_keeps_its_digits(backend):
    """An almost certain label in float32: computed as 1 - p**q, the loss would be 0."""
    x = tensor([[0.0, -18.0], [30.0, 12.0]])
    loss = generalised_cross_entropy(x, tensor([0, 0], torch.int64), 0.5, reduction="none", backend=backend)
    assert (loss < 1e-6).all()
    wanted = exact(x, tensor([0, 0], torch.int64), 0.5)[0]
    assert np.abs(loss.double().cpu().numpy() - wanted).max() < 2.0**-23


def test_the_level_of_a_row_costs_no_digits(backend):
    """A loss computed from the log-sum-exp would lose digits: near 8192, float32 numbers are 2**-11 apart."""
    x, labels = random_case(30, 50)
    x = (x * 8).round() / 8
    for q in (0.0, 0.7):
        loss, lifted = (
            generalised_cross_entropy(each, labels, q, reduction="none", backend=backend) for each in (x, x + 8192)
        )
        assert torch.equal(loss, lifted)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("level", [0.0, 1e4, 1e8, -1e9, 1e30, -1e30, "min", "max"])
def test_the_level_of_a_row_costs_the_gradient_no_digits(backend, dtype, level):
    """Four equal logits: (1/4, -3/4, 1/4, 1/4) at q = 0. Two far below them, as in a mask, do not change that."""
    finfo = torch.finfo(dtype)
    level = getattr(finfo, level) if isinstance(level, str) else min(max(level, finfo.min), finfo.max)
    masked = [finfo.min, finfo.min] if level > -1 else []
    labels = tensor([1], torch.int64)
    slope = tensor([[0.25, -0.75, 0.25, 0.25] + [0.0 for _ in masked]], torch.float64)
    for q in (0.0, 0.7):
        x = tensor([[level] * 4 + masked], dtype).requires_grad_()
        generalised_cross_entropy(x, labels, q, backend=backend).backward()
        tolerance = 1e-6 if dtype.itemsize > 2 else 2 * finfo.eps
        torch.testing.assert_close(x.grad.double(), 0.25**q * slope, rtol=tolerance, atol=0)
        theirs = x.detach().double().requires_grad_()
        torch.nn.functional.cross_entropy(theirs, labels).backward()
        torch.testing.assert_close(x.grad.double(), 0.25**q * theirs.grad, rtol=tolerance, atol=0)


def test_the_log_sum_exp_with_and_without_a_peak(backend):
    """Without a tensor for the peak, ``lse`` is the log-sum-exp itself; the backward takes either."""
    x, labels = random_case(9, 12)
    loss, lse, peak = generalised_cross_entropy_forward(x, labels, backend=backend)
    assert torch.equal(peak, x.amax(1))
    same_loss, whole = out = torch.empty_like(loss), torch.empty_like(loss)
    assert generalised_cross_entropy_forward(x, labels, out=out, backend=backend) is out
    assert torch.equal(same_loss, loss)
    assert torch.equal(whole, lse + peak)
    slopes = (
        generalised_cross_entropy_backward(loss, x, labels, given, peak=shift, backend=backend)
        for given, shift in ((lse, peak), (whole, None))
    )
    torch.testing.assert_close(*slopes, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("q", [0.0, 0.7])
def test_a_masked_row_does_not_poison_its_batch(backend, q):
    """The gradient of weights sums over rows, so that one wrong row would spoil it."""
    x, labels = random_case(9, 12)
    x[4] = torch.finfo(torch.float32).min
    x[5], x[6, ::2] = x[5] - 1e9, -1e9
    ours = x.clone().requires_grad_()
    generalised_cross_entropy(ours, labels, q, reduction="sum", backend=backend).backward()
    assert np.abs(ours.grad.double().cpu().numpy() - exact(x, labels, q)[1]).max() < 3e-6


@pytest.mark.parametrize("q", [0.0, 0.6])
def test_gradcheck(backend, q):
    x, labels = random_case(3, 4, 2, dtype=torch.float64)
    labels[0, 0] = -100
    x = (x / 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: generalised_cross_entropy(x, labels, q, backend=backend), x)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("shape", [(7,), (5, 7), (2, 3, 4), (0, 7)])
def test_the_module_replaces_that_of_torch(backend, reduction, shape):
    """At q = 0 the results agree with torch for all shapes and reductions, also with ignored labels."""
    x, labels = random_case(*shape)
    if labels.dim():
        labels[:1] = 3
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    loss = GeneralisedCrossEntropy(0.0, reduction, ignore_index=3, backend=backend)(ours, labels)
    wanted = torch.nn.CrossEntropyLoss(reduction=reduction, ignore_index=3)(theirs, labels)
    torch.testing.assert_close(loss, wanted, rtol=2e-6, atol=2e-6, equal_nan=True)
    loss.sum().backward()
    wanted.sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("q", [0.0, 0.7])
def test_ignored_rows_have_neither_loss_nor_gradient(backend, q):
    x = tensor([[1.0, 2.0, 3.0], [NAN, INF, -INF], [0.0, 1.0, -1.0]]).requires_grad_()
    labels = tensor([1, 9, 2], torch.int64)
    loss = generalised_cross_entropy(x, labels, q, reduction="none", ignore_index=9, backend=backend)
    assert loss[1] == 0
    loss.sum().backward()
    assert torch.equal(x.grad[1], torch.zeros(3, device=DEVICE))
    kept = generalised_cross_entropy(x[::2], labels[::2], q, reduction="mean", backend=backend)
    mean = generalised_cross_entropy(x, labels, q, reduction="mean", ignore_index=9, backend=backend)
    torch.testing.assert_close(mean, kept)
    nothing = generalised_cross_entropy(x, labels.fill_(9), q, ignore_index=9, backend=backend)
    assert nothing.isnan()


@pytest.mark.parametrize("dtype", DTYPES)
def test_infinite_logits(backend, dtype):
    rows = [
        ([-INF, 0.0, 0.0], 0, 1 / 0.7),  # a label of probability 0
        ([-INF, 0.0, 0.0], 1, (1 - 0.5**0.7) / 0.7),
        ([0.0, -INF, -INF], 0, 0.0),
        ([-INF, -INF, -INF], 1, 1 / 0.7),
        ([INF, 0.0, 1.0], 1, 1 / 0.7),
        ([INF, 0.0, 1.0], 0, NAN),
        ([NAN, 0.0, 1.0], 1, NAN),
    ]
    x = tensor([row for row, *_ in rows], dtype).requires_grad_()
    labels = tensor([label for _, label, _ in rows], torch.int64)
    loss = generalised_cross_entropy(x, labels, reduction="none", backend=backend)
    wanted = tensor([value for *_, value in rows], loss.dtype)
    torch.testing.assert_close(loss, wanted, rtol=1e-6, atol=0, equal_nan=True)
    loss.backward(torch.ones_like(loss))
    assert torch.equal(x.grad[[0, 2, 3]], torch.zeros(3, 3, dtype=dtype, device=DEVICE)), "p_y = 0, or p_y = 1"
    slope = 0.5**0.7 * 0.5
    torch.testing.assert_close(x.grad[1].double(), tensor([0.0, -slope, slope], torch.float64), rtol=0.01, atol=1e-9)
    assert x.grad[4].isnan().tolist() == [True, False, False]
    assert x.grad[5:].isnan().all()
    at_zero = generalised_cross_entropy(x.detach(), labels, 0.0, reduction="none", backend=backend)
    assert at_zero[[0, 3, 4]].tolist() == [INF, INF, INF]
    x.grad = None
    generalised_cross_entropy(x[:4], labels[:4], 0.0, reduction="sum", backend=backend).backward()
    assert x.grad[0].tolist() == [-1.0, 0.5, 0.5]
    assert x.grad[3].tolist() == [0.0, -1.0, 0.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_split_rows_and_labels_in_every_part(backend, dtype):
    x, labels = random_case(3, 70_001, dtype=dtype)
    for number, label in enumerate((0, 40_000, 70_000)):
        labels[number] = label
        x[number, label] += 12
    loss, lse, peak = generalised_cross_entropy_forward(x, labels, backend=backend)
    wanted, slopes = exact(x, labels, 0.7)
    assert np.abs(loss.cpu().numpy() - wanted).max() < 3e-6
    torch.testing.assert_close((lse + peak).double(), torch.logsumexp(x.double(), 1), rtol=1e-6, atol=0)
    grad = torch.ones_like(loss)
    slope = generalised_cross_entropy_backward(grad, x, labels, lse, peak=peak, backend=backend).cpu().double().numpy()
    assert np.abs(slope - slopes).max() < (4e-3 if dtype is torch.bfloat16 else 3e-6)
    assert (slope[np.arange(3), labels.cpu()] < -1e-4).all()


def test_strided_logits_and_labels(backend):
    x, labels = random_case(6, 10, 8)
    labels = torch.stack((labels, labels), -1)[..., 0]
    for given, y in (
        (x.permute(2, 1, 0), labels.t()),
        (x[:, :, ::2], labels[:, ::2]),
        (x[:, 1:9], labels % 8),
        (x[:1].expand(6, 10, 8), labels),
        (x.transpose(1, 2).contiguous().transpose(1, 2), labels),
    ):
        rows = given.transpose(1, -1).reshape(-1, given.shape[1])
        loss, lse, peak = generalised_cross_entropy_forward(given, y, backend=backend)
        wanted, slopes = exact(rows, y.reshape(-1), 0.7)
        assert np.abs(loss.reshape(-1).cpu().numpy() - wanted).max() < 3e-6
        slope = generalised_cross_entropy_backward(torch.ones_like(loss), given, y, lse, peak=peak, backend=backend)
        assert slope.is_contiguous()
        assert np.abs(slope.transpose(1, -1).reshape(rows.shape).cpu().numpy() - slopes).max() < 3e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_under_torch_compile(backend, dtype):
    criterion = GeneralisedCrossEntropy(0.7, backend=backend)
    torch._dynamo.reset()
    compiled = torch.compile(lambda x, y: criterion(x * 1.5, y), fullgraph=True, backend="aot_eager")
    x, labels = random_case(9, 7, dtype=dtype)
    eager_x, x = x.clone().requires_grad_(), x.requires_grad_()
    expected, loss = criterion(eager_x * 1.5, labels), compiled(x, labels)
    torch.testing.assert_close(loss, expected, rtol=0, atol=0)
    expected.backward()
    loss.backward()
    torch.testing.assert_close(x.grad, eager_x.grad, rtol=0, atol=0)


def test_opcheck(backend):
    x, labels = random_case(3, 5)
    torch.library.opcheck(_forward_op, (x.requires_grad_(), labels, 0.7, -100, backend))
    x = x.detach()
    loss, lse, peak = generalised_cross_entropy_forward(x, labels, backend=backend)
    torch.library.opcheck(_backward_op, (loss, x, labels, lse, peak, 0.7, -100, backend))


def test_wrong_arguments_are_named(backend):
    x, labels = random_case(4, 6)
    good, lse, peak = generalised_cross_entropy_forward(x, labels, backend=backend)
    for q in (-0.1, 1.1, NAN, INF):
        with pytest.raises(ValueError, match=r"^q must lie in \[0, 1\]"):
            generalised_cross_entropy(x, labels, q, backend=backend)
        with pytest.raises(ValueError, match=r"^q must lie in \[0, 1\]"):
            GeneralisedCrossEntropy(q)
    for wrong, message in ((labels[:3], "shape"), (labels[:, None], "shape")):
        with pytest.raises(ValueError, match=f"^labels must have {message}"):
            generalised_cross_entropy(x, wrong, backend=backend)
    with pytest.raises(TypeError, match=r"^labels must have dtype int64"):
        generalised_cross_entropy(x, labels.int(), backend=backend)
    with pytest.raises(TypeError, match=r"^logits must have dtype"):
        generalised_cross_entropy(x.long(), labels, backend=backend)
    with pytest.raises(ValueError, match=r"^logits must have a dimension of classes"):
        generalised_cross_entropy(x[0, 0], labels[0], backend=backend)
    with pytest.raises(ValueError, match=r"^logits must have at least one class"):
        generalised_cross_entropy(x[:, :0], labels, backend=backend)
    with pytest.raises(ValueError, match=r"^reduction must be one of none, mean, sum; got 'all'"):
        generalised_cross_entropy(x, labels, reduction="all", backend=backend)
    with pytest.raises(ValueError, match=r"^reduction must be one of"):
        GeneralisedCrossEntropy(reduction="all")
    with pytest.raises(TypeError, match=r"^lse must have dtype float32"):
        generalised_cross_entropy_backward(good, x, labels, lse.double(), backend=backend)
    with pytest.raises(TypeError, match=r"^peak must have dtype float32"):
        generalised_cross_entropy_backward(good, x, labels, lse, peak=peak.double(), backend=backend)
    with pytest.raises(ValueError, match=r"^peak must have shape"):
        generalised_cross_entropy_backward(good, x, labels, lse, peak=peak[:2], backend=backend)
    with pytest.raises(
        ValueError, match=r"^out must have a tensor for loss, one for lse and may have one for peak, go"
    ):
        generalised_cross_entropy_forward(x, labels, out=(good,), backend=backend)
    with pytest.raises(ValueError, match=r"^out peak must not share memory with out loss"):
        generalised_cross_entropy_forward(x, labels, out=(good, lse, good), backend=backend)
    with pytest.raises(ValueError, match=r"^grad must have shape"):
        generalised_cross_entropy_backward(good[:2], x, labels, lse, backend=backend)
    with pytest.raises(ValueError, match=r"^out lse must not share memory with out loss"):
        generalised_cross_entropy_forward(x, labels, out=(good, good), backend=backend)
    with pytest.raises(ValueError, match=r"^out must be contiguous"):
        generalised_cross_entropy_backward(good, x, labels, lse, out=torch.empty(6, 4).t(), backend=backend)


@pytest.mark.parametrize("label", [6, -1, 2**40, -(2**40)])
def test_a_label_out_of_range_is_an_error_or_nan(backend, label):
    """The host checks labels on a CPU only. The kernels give NaN and read no memory outside."""
    x, labels = random_case(4, 6)
    labels[2] = label
    if DEVICE.type == "cpu":
        with pytest.raises(ValueError, match=rf"^labels must lie in \[0, 5\] or be ignore_index, -100; got {label}"):
            generalised_cross_entropy(x, labels, backend=backend)
    kernels = dispatch.backend_module(backend, "boltzbench.kernels.generalised_cross_entropy")
    (loss, lse, peak), slope = (torch.empty(4, device=DEVICE) for _ in range(3)), torch.empty_like(x)
    for q in (0.0, 0.7):
        kernels.forward(x, labels, 1, q, -100, loss, lse, peak)
        assert loss.isnan().tolist() == [False, False, True, False]
        kernels.backward(torch.ones_like(loss), x, labels, lse, peak, 1, q, -100, slope)
        assert slope.isnan().all(1).tolist() == [False, False, True, False]
        assert not slope[[0, 1, 3]].isnan().any()
