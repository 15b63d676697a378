"""Class weights, label smoothing and probabilities as targets: against torch at q = 0, and against a plain formula."""

import itertools
import math

import pytest
import torch
from boltzbench.kernels.generalised_cross_entropy import GeneralisedCrossEntropy, generalised_cross_entropy
from support.devices import DEVICE
from torch.nn import functional

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
INF, NAN = math.inf, math.nan
CLASSES = 7


def numbers(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(DEVICE, dtype)


def shares(*shape, dim=-1, dtype=torch.float32):
    """Probabilities of which some are 0."""
    values = (numbers(*shape, seed=1, dtype=torch.float64) - 0.3).relu() + 1e-300
    return (values / values.sum(dim, keepdim=True)).to(dtype)


def class_weights(dtype=torch.float32):
    return torch.tensor([0.5, 2.0, 1.0, 0.0, 0.25, 3.0, 1.5], device=DEVICE, dtype=dtype)


def labels_of(shape, dim):
    without = [size for k, size in enumerate(shape) if k != dim]
    return torch.arange(math.prod(without), device=DEVICE).reshape(without) * 5 % CLASSES


def plain(logits, labels, q, weight, label_smoothing=0.0):
    """The losses of rows in float64, term by term."""
    log_p = torch.log_softmax(logits.double(), 1)
    t = labels.double()
    if labels.dtype is torch.int64:
        t = functional.one_hot(labels, logits.shape[1]).double()
    t = (1 - label_smoothing) * t + label_smoothing / logits.shape[1]
    c = t if weight is None else t * weight.double()
    terms = -log_p if q == 0 else -torch.expm1(q * log_p) / q
    return (c * terms).sum(1)


OPTIONS = [
    {"weighted": weighted, "label_smoothing": smoothing, "reduction": reduction, "ignore_index": ignored}
    for weighted, smoothing, reduction, ignored in itertools.product(
        (False, True), (0.0, 0.2, 1.0), ("none", "mean", "sum"), (-100, 5)
    )
]


def loss_and_gradients(function, inputs, *more, weight, **options):
    """Also the gradient with respect to probabilities. Each loss has a different factor."""
    taken = [each.detach().clone().requires_grad_(each.is_floating_point()) for each in inputs]
    loss = function(*taken, *more, weight=weight, **options)
    loss.backward(torch.linspace(-1, 2, loss.numel(), dtype=loss.dtype, device=DEVICE).view(loss.shape))
    return loss.detach(), *(each.grad for each in taken if each.is_floating_point())


def require_what_torch_finds(shape, dtype, target, given, backend):
    """At q = 0: compare with the cross-entropy of float64 logits."""
    wide = torch.float64 if dtype is torch.float64 else torch.float32
    tolerance = 1e-13 if dtype is torch.float64 else 4e-6
    options = dict(given)
    weight = class_weights(dtype) if options.pop("weighted") else None
    dim = min(1, len(shape) - 1)
    t = labels_of(shape, dim) if target == "labels" else shares(*shape, dim=dim, dtype=dtype)
    if target == "labels" and t.dim():
        t[:1] = options["ignore_index"]
    logits = 3 * numbers(*shape, dtype=dtype)
    ours = loss_and_gradients(generalised_cross_entropy, (logits, t), 0.0, weight=weight, backend=backend, **options)
    assert ours[0].dtype is wide
    theirs = loss_and_gradients(
        functional.cross_entropy, (logits.double(), t.double() if t.is_floating_point() else t),
        weight=None if weight is None else weight.double(), **options,
    )  # fmt: skip
    for found, wanted, own in zip(ours, theirs, (wide, dtype, dtype), strict=False):
        bound = max(tolerance, 2 * torch.finfo(own).eps)
        torch.testing.assert_close(
            found.double(), wanted, rtol=bound, atol=tolerance, equal_nan=True,
            msg=lambda text: f"{shape} {given}: {text}",
        )  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(CLASSES,), (6, CLASSES), (2, CLASSES, 3), (0, CLASSES)])
def test_every_option_means_what_it_means_in_torch(shape, dtype):
    for given in OPTIONS:
        require_what_torch_finds(shape, dtype, "labels", given, "torch")
        if given["ignore_index"] < 0:
            require_what_torch_finds(shape, dtype, "probabilities", given, "torch")


def test_the_kernels_take_weights_too(backend):
    for given in OPTIONS:
        if given["weighted"] and not given["label_smoothing"]:
            require_what_torch_finds((2, CLASSES, 3), torch.float32, "labels", given, backend)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("q", [1e-30, 1e-9, 1e-6, 0.3, 0.7, 1.0])
def test_other_q_against_the_plain_formula(backend, q, dtype):
    """Without a loss of digits as q tends to 0."""
    logits, weight = 3 * numbers(9, CLASSES, dtype=dtype), class_weights()
    tolerance = 1e-13 if dtype is torch.float64 else 4e-6
    for target, smoothing in itertools.product((labels_of(logits.shape, 1), shares(9, CLASSES)), (0.0, 0.1)):
        if backend != "torch" and (smoothing or target.is_floating_point()):
            continue  # torch is at work on every backend
        options = {"weight": weight, "label_smoothing": smoothing}
        inputs = (logits, target.to(dtype) if target.is_floating_point() else target)
        ours = loss_and_gradients(generalised_cross_entropy, inputs, q, backend=backend, reduction="none", **options)
        theirs = loss_and_gradients(
            plain, [each.double() if each.is_floating_point() else each for each in inputs], q, **options
        )
        for found, wanted in zip(ours, theirs, strict=True):
            bound = max(tolerance, 2 * torch.finfo(found.dtype).eps)
            torch.testing.assert_close(found.double(), wanted, rtol=bound, atol=tolerance)


def test_one_hot_probabilities_are_labels(backend):
    """Also in rows with infinite logits, where all other terms are 0."""
    rows = [
        [-INF, 0.0, 0.0], [0.0, -INF, -INF], [-INF, -INF, -INF], [INF, 0.0, 1.0], [NAN, 0.0, 1.0], [1e9, 1e9, -1e9],
        [-3e38, -3e38, 1.0], [0.5, -1.0, 2.0],
    ]  # fmt: skip
    for q, label in itertools.product((0.0, 0.7), range(3)):
        x = torch.tensor(rows, device=DEVICE)
        labels = torch.full((len(rows),), label, device=DEVICE)
        one_hot = functional.one_hot(labels, 3).float()
        options = {"reduction": "none", "weight": None, "backend": backend}
        loss, slope = loss_and_gradients(generalised_cross_entropy, (x, labels), q, **options)
        same, other, _ = loss_and_gradients(generalised_cross_entropy, (x, one_hot), q, **options)
        torch.testing.assert_close(same, loss, rtol=1e-6, atol=1e-6, equal_nan=True)
        torch.testing.assert_close(other, slope, rtol=1e-6, atol=1e-6, equal_nan=True)


def test_what_has_no_share_adds_nothing(backend):
    """A masked class without target or without weight: torch has 0 times inf there."""
    x = torch.tensor([[-INF, 1.0, 2.0], [0.5, 1.0, 2.0]], device=DEVICE)
    t = torch.tensor([[0.0, 0.25, 0.75], [0.0, 1.0, 0.0]], device=DEVICE)
    weight = torch.tensor([0.0, 2.0, 1.0], device=DEVICE)
    for q in (0.0, 0.5):
        options = {"weight": weight, "reduction": "none", "backend": backend}
        loss, slope, of_t = loss_and_gradients(generalised_cross_entropy, (x, t), q, **options)
        inside = loss_and_gradients(plain, (x[:, 1:].double(), t[:, 1:].double()), q, weight=weight[1:])
        torch.testing.assert_close(loss[0].double(), inside[0][0], rtol=1e-6, atol=0)
        torch.testing.assert_close(slope[0].double(), functional.pad(inside[1][0], (1, 0)), rtol=1e-6, atol=1e-7)
        assert of_t[1, 2] != 0, "a target of 0 has a gradient"
        masked = torch.zeros(2, dtype=torch.int64, device=DEVICE)
        loss, slope = loss_and_gradients(generalised_cross_entropy, (x, masked), q, **options)
        assert loss.tolist() == [0, 0]
        assert not slope.any()


@pytest.mark.parametrize("q", [0.0, 0.7])
def test_the_level_of_a_row_costs_no_digits(q):
    x, t, weight = (numbers(9, CLASSES) * 8).round() / 8, shares(9, CLASSES), class_weights()
    for target, level in itertools.product((t, labels_of(x.shape, 1)), (8192.0, -1e9, 1e30)):
        options = {"weight": weight, "label_smoothing": 0.1, "reduction": "none"}
        rows = x if level == 8192 else torch.zeros_like(x)
        for plain_part, lifted in zip(
            loss_and_gradients(generalised_cross_entropy, (rows, target), q, **options),
            loss_and_gradients(generalised_cross_entropy, (rows + level, target), q, **options),
            strict=True,
        ):
            assert torch.equal(plain_part, lifted)


@pytest.mark.parametrize("q", [0.0, 0.7])
def test_ignored_rows_have_neither_loss_nor_gradient(q):
    x = torch.tensor([[1.0, 2.0, 3.0], [NAN, INF, -INF], [0.0, 1.0, -1.0]], device=DEVICE).requires_grad_()
    labels = torch.tensor([1, 9, 2], device=DEVICE)
    options = {"label_smoothing": 0.2, "weight": torch.tensor([1.0, 2.0, 4.0], device=DEVICE)}
    loss = generalised_cross_entropy(x, labels, q, ignore_index=9, **options)
    loss.backward()
    assert not x.grad[1].any()
    kept = x.detach()[::2].requires_grad_()
    alone = generalised_cross_entropy(kept, labels[::2], q, **options)
    alone.backward()
    torch.testing.assert_close(loss, alone)
    torch.testing.assert_close(x.grad[::2], kept.grad)
    assert generalised_cross_entropy(x, labels.fill_(9), q, ignore_index=9, **options).isnan()


def test_the_module_keeps_its_weights_as_that_of_torch():
    weight, x, labels = class_weights(), numbers(6, CLASSES), labels_of((6, CLASSES), 1)
    ours = GeneralisedCrossEntropy(0.0, weight=weight, label_smoothing=0.1)
    theirs = torch.nn.CrossEntropyLoss(weight, label_smoothing=0.1)
    torch.testing.assert_close(ours(x, labels), theirs(x, labels))
    assert repr(ours).endswith("label_smoothing=0.1)")
    assert ours.state_dict().keys() == theirs.state_dict().keys() == {"weight"}
    assert not GeneralisedCrossEntropy().state_dict()
    ours.load_state_dict({"weight": 2 * weight})
    torch.testing.assert_close(ours(x, labels), theirs(x, labels))  # the mean divides by the weights
    assert ours.double()(x.double(), labels).dtype is ours.weight.dtype is torch.float64


def test_under_torch_compile():
    """Numbers out of range are errors there too, although no operator checks them where torch computes the loss."""
    x, labels, weight = numbers(6, CLASSES), labels_of((6, CLASSES), 1), class_weights()

    def loss(x, q, smoothing):
        return generalised_cross_entropy(x, labels, q, weight=weight, label_smoothing=smoothing)

    torch.compiler.reset()
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    for q, smoothing in ((0.5, 0.1), (0.75, 0.2), (0.0, 0.3), (0.25, 0.0)):
        torch.testing.assert_close(compiled(x, q, smoothing), loss(x, q, smoothing))
    for q, smoothing, name in ((2.0, 0.1, "q"), (NAN, 0.1, "q"), (0.5, -0.1, "label_smoothing")):
        with pytest.raises(torch._dynamo.exc.Unsupported, match=rf"{name} must lie in \[0, 1\]"):
            compiled(x, q, smoothing)
    with pytest.raises(torch._dynamo.exc.Unsupported, match=r"q must lie in \[0, 1\]"):
        torch.compile(lambda q: torch.func.grad(lambda x: loss(x, q, 0.0))(x), fullgraph=True, backend="aot_eager")(2.0)


@pytest.mark.parametrize(
    ("changed", "error", "words"),
    [
        ({"weight": torch.ones(4)}, ValueError, r"^weight must have shape \(7,\), a number for each class; got \(4,\)"),
        ({"weight": torch.ones(7, 1)}, ValueError, "^weight must have shape"),
        ({"weight": torch.ones(7, dtype=torch.int64)}, TypeError, "^weight must have dtype"),
        ({"weight": [1.0] * 7}, TypeError, "^weight must be a torch tensor"),
        ({"weight": torch.ones(7, device="meta")}, ValueError, "^weight must be on"),
        ({"label_smoothing": 1.5}, ValueError, r"^label_smoothing must lie in \[0, 1\]"),
        ({"label_smoothing": NAN}, ValueError, r"^label_smoothing must lie in \[0, 1\]"),
        ({"q": torch.ones(7)}, TypeError, r"^q must not be a tensor of shape \(7,\): pass class weights by name"),
        ({"reduction": torch.ones(7)}, TypeError, "^reduction must not be a tensor .* pass class weights by name"),
        ({"labels": torch.ones(6)}, ValueError, r"^labels must have shape \(6, 7\) if they are probabilities"),
        ({"labels": torch.ones(6, 7, dtype=torch.int64)}, ValueError, r"^labels must have shape \(6,\)"),
        ({"labels": torch.ones(6, dtype=torch.int32)}, TypeError, "^labels must have dtype int64"),
        ({"labels": torch.full((6,), 7), "label_smoothing": 0.1}, ValueError, r"^labels must lie in \[0, 6\]"),
        ({"labels": torch.ones(6, 7), "ignore_index": 3}, ValueError, "^ignore_index must be negative"),
        ({"labels": torch.ones(6, 7), "logits": torch.ones(6, 7).long()}, TypeError, "^logits must have dtype"),
        ({"labels": torch.ones(6, 0), "logits": torch.ones(6, 0)}, ValueError, "^logits must have at least one class"),
        ({"labels": torch.tensor(1.0), "logits": torch.tensor(1.0)}, ValueError, "^logits must have a dimension"),
        ({"labels": torch.ones(6, 7), "backend": "fast"}, ValueError, "^backend must be"),
    ],
)
def test_wrong_arguments_are_named(changed, error, words):
    given = {"logits": numbers(6, CLASSES).cpu(), "labels": labels_of((6, CLASSES), 1).cpu(), **changed}
    with pytest.raises(error, match=words):
        generalised_cross_entropy(**given)
    if not changed.keys() & {"labels", "logits", "backend"}:
        with pytest.raises(error, match=words):
            GeneralisedCrossEntropy(**changed)(given["logits"], given["labels"])


def test_a_smoothed_label_out_of_range_gives_nan_where_the_host_does_not_check(monkeypatch):
    """On a GPU the labels are not read by the host."""
    x, labels = numbers(4, CLASSES).requires_grad_(), torch.tensor([0, 7, -1, 6], device=DEVICE)
    monkeypatch.setattr("boltzbench.kernels.generalised_cross_entropy._require_labels_in_range", lambda *_: None)
    for q in (0.0, 0.7):
        x.grad = None
        loss = generalised_cross_entropy(x, labels, q, label_smoothing=0.1, reduction="none", weight=class_weights())
        loss.backward(torch.ones_like(loss))
        assert loss.isnan().tolist() == x.grad.isnan().all(1).tolist() == [False, True, True, False]
        assert not x.grad[[0, 3]].isnan().any()
