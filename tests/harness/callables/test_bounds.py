"""`bound` accepts honest arithmetic and rejects what accumulates in a narrower dtype."""

import pytest
import torch
from boltzbench.harness import Bound, bound, measure
from boltzbench.harness.callables.bounds import reduction_length


def draw(*shape, dtype=torch.float32):
    return torch.randn(*shape).to(dtype)


def in_blocks(a, b):
    """A product whose sum is rounded to its dtype after each block of 16."""
    return sum(p @ q for p, q in zip(a.split(16, 1), b.split(16), strict=True))


def one_by_one(x):
    """The slowest and least precise honest sum: one accumulator in float32."""
    total = torch.zeros(x.shape[0])
    for column in x.float().unbind(1):
        total = total + column
    return total.to(x.dtype)


def with_tf32(a, b):
    """Factors rounded to 11 bits, as tensor cores do."""
    rounded = [(each.view(torch.int32) + 0x1000 & ~0x1FFF).view(torch.float32) for each in (a, b)]
    return rounded[0] @ rounded[1]


def passes(fn, *args, reference, **options):
    return measure(fn, *args, reference=reference, timed=False, **options).passed


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("length", [256, 1024])
def test_it_rejects_a_product_that_accumulates_in_16_bits(dtype, length):
    a, b = draw(64, length, dtype=dtype), draw(length, 64, dtype=dtype)
    assert passes(torch.mm, a, b, reference=torch.mm)
    assert not passes(in_blocks, a, b, reference=torch.mm)


@pytest.mark.parametrize("shift", [0.0, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_accepts_a_plain_sum_in_float32_and_rejects_one_without_its_last_term(dtype, shift):
    x = (draw(256, 2048) + shift).to(dtype)
    assert passes(one_by_one, x, reference=lambda x: x.sum(1))
    if shift == 0 or dtype is torch.float32:  # else the term is below the precision of the sum
        assert not passes(lambda x: one_by_one(x[:, :-1]), x, reference=lambda x: x.sum(1))


def test_it_rejects_tf32_unless_that_is_asked_for():
    a, b = draw(64, 512), draw(512, 64)
    assert not passes(with_tf32, a, b, reference=torch.mm)
    assert passes(with_tf32, a, b, reference=torch.mm, bound=Bound(typical=2**-9))


def test_it_accepts_functions_of_torch_and_their_gradients():
    x = draw(64, 300)
    for fn in (lambda x: x.softmax(1), torch.nn.functional.gelu, lambda x: x.logsumexp(1), lambda x: x.var(1)):
        assert passes(fn, x, reference=fn, backward=True)
        assert passes(fn, x.bfloat16(), reference=fn)


def test_the_formula():
    found = bound(torch.bfloat16, 1024)
    eps, growth = 2**-7, 4 * 36 * 2**-23
    assert (found.relative, found.typical) == (pytest.approx(2 * eps + growth), pytest.approx(eps + growth))
    assert bound(torch.float32, 4).typical == pytest.approx(25 * 2**-23)
    assert bound(torch.float64).typical == pytest.approx(21 * 2**-52)
    assert bound(torch.float32, 4, accumulate=torch.bfloat16).typical == pytest.approx(24 * 2**-7 + 2**-23)
    assert bound(torch.int64, 9) == Bound()
    values = torch.tensor([3.0, -4.0, float("inf"), float("nan")], dtype=torch.float64)
    allowed = Bound(0.1, 0.01, 0.5).allowed(values)
    assert allowed[:2].tolist() == pytest.approx([0.3 + 0.01 * 12.5**0.5 + 0.5, 0.4 + 0.01 * 12.5**0.5 + 0.5])
    assert Bound(typical=1.0).allowed(1e200 * values[:2]).tolist() == pytest.approx([12.5**0.5 * 1e200] * 2)


def test_the_length_of_a_reduction_is_counted():
    a, b = draw(5, 7).requires_grad_(), draw(7, 3).requires_grad_()
    assert reduction_length([a @ b], [a, b]) == 14
    assert reduction_length([2 * a], [a, b]) == 1
    causal = torch.ones(5, 5).tril()
    assert reduction_length([causal @ a], [a]) == 5
    assert reduction_length([a.detach()], [a]) is None


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        (("float32",), TypeError, "dtype must be a torch.dtype, such as torch.bfloat16: got 'float32'"),
        ((torch.float32, 0), ValueError, "reduction_length must be at least 1: got 0"),
        ((torch.float32, 1.5), TypeError, "reduction_length must be a whole number: got 1.5"),
    ],
)
def test_bad_arguments(arguments, kind, words):
    with pytest.raises(kind, match=words):
        bound(*arguments)
    with pytest.raises(TypeError, match="accumulate must be a floating-point dtype"):
        bound(torch.float32, accumulate=torch.int8)
    with pytest.raises(ValueError, match="relative must be a finite number of at least 0: got nan"):
        Bound(relative=float("nan"))
