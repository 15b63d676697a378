"""The CUDA C kernels of the operations under ASan and UBSan, and in two orders of threads, on odd shapes.

Run as a program, this file executes the scenarios of one operation and writes the results to a file; the tests run it
under the sanitizers, once for each schedule of the emulator, and compare.
"""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from boltzbench.kernels import dispatch, emulator
from boltzbench.kernels.logsumexp import logsumexp, logsumexp_backward
from boltzbench.kernels.rbm_gibbs import gibbs, pack_states, prepare_weights
from boltzbench.kernels.sgld import psgld_update, sghmc_update, sgld_update
from boltzbench.kernels.thermodynamics import thermodynamics

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


def _random(*shape, dtype=torch.float32, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def logsumexp_scenarios():
    results = []
    for dtype in DTYPES:
        # Each size in a tensor of its own, so that one element too far is outside of it.
        inputs = [
            _random(rows, n, dtype=dtype) for rows, n in ((1, 1), (3, 31), (9, 33), (3, 128), (2, 1025), (3, 4104))
        ]
        inputs += [_random(n, 37, dtype=dtype).t() for n in (1, 65, 261)]
        inputs += [_random(5, 6, 7, dtype=dtype)[:, ::2, 1:].permute(1, 2, 0), _random(7, 1, dtype=dtype).expand(7, 40)]
        inputs += [_random(4, 3, 2, 3, 5, dtype=dtype).permute(4, 1, 3, 0, 2), _random(130, dtype=dtype)[1:]]
        for x in inputs:
            for beta in (0.7, -1.0):
                lse = logsumexp(x, -1, beta, backend="cupy")
                exact = lse if dtype.itemsize > 2 else lse.to(torch.float32)
                grad = torch.ones_like(lse)
                results += [lse, logsumexp_backward(grad, x, exact, -1, beta, backend="cupy")]
        for n in (32_769, 32_776):
            results.append(logsumexp(_random(1, n, dtype=dtype), backend="cupy"))
    return results


def thermodynamics_scenarios():
    results = []
    for dtype in (torch.float32, torch.bfloat16):
        inputs = [_random(rows, n, dtype=dtype) for rows, n in ((1, 1), (9, 33), (3, 128), (2, 1025), (1, 4103))]
        inputs += [_random(65, 37, dtype=dtype).t(), _random(1, 32_776, dtype=dtype), _random(130, dtype=dtype)[1:]]
        for x in inputs:
            for beta in (0.7, -1.0):
                results += thermodynamics(x, -1, beta, backend="cupy")[:3]
    return results


def rbm_gibbs_scenarios():
    results = []
    for dtype in (torch.float32, torch.bfloat16):
        for chains, visible_units, hidden_units in ((1, 1, 1), (17, 100, 17), (65, 17, 66), (3, 0, 5), (3, 5, 0)):
            visible = (_random(chains, visible_units) > 0).to(torch.uint8)
            weights = _random(visible_units, hidden_units, dtype=dtype)
            for given in (weights, weights.t().contiguous().t()):
                clamped = _random(chains, visible_units, seed=2) > 0.5
                for held in (None, clamped, clamped[0], clamped.t().contiguous().t()):
                    results += gibbs(
                        visible, given, _random(visible_units, dtype=dtype), _random(hidden_units, dtype=dtype), 2,
                        seed=2**64 - 1, clamped=held, return_hidden_probability=True, backend="cupy",
                    )  # fmt: skip
    for precision, pack, plan in (
        ("int8x3", torch.clone, "half_sweeps"),
        ("bf16", pack_states, "half_sweeps"),
        ("bf16x3", torch.clone, "resident"),
        ("int8x3", pack_states, "resident"),
    ):
        for chains, visible_units, hidden_units in ((1, 1, 1), (65, 17, 70), (3, 0, 5), (3, 5, 0)):
            visible = (_random(chains, visible_units) > 0).to(torch.uint8)
            for held in (None, _random(chains, visible_units, seed=2) > 0.5):
                results += [
                    each
                    for each in gibbs(
                        pack(visible), prepare_weights(_random(visible_units, hidden_units), precision),
                        _random(visible_units), _random(hidden_units), 2, _random(chains).abs(), seed=2**64 - 1,
                        clamped=held, return_hidden_probability=plan == "half_sweeps", plan=plan, backend="cupy",
                    )
                    if each is not None
                ]  # fmt: skip
    return results


def sgld_scenarios():
    results = []
    shapes = [(), (1,), (2,), (3,), (5,), (1023,), (4095,), (4097,), (3, 7), (0,)]
    parameters = [_random(*shape, dtype=dtype) for dtype in DTYPES for shape in shapes]
    parameters += [_random(9, 5, dtype=dtype).t() for dtype in DTYPES]
    parameters += [_random(4102, dtype=dtype)[1:] for dtype in DTYPES]  # not aligned
    gradients = [_random(*x.shape, dtype=x.dtype, seed=1) for x in parameters]
    for temperature in (0.0, 1.0):
        sgld_update(parameters, gradients, 0.1, temperature, seed=2**64 - 1, step=2**32 - 1, backend="cupy")
        results += [x.clone() for x in parameters]
    for update in (psgld_update, sghmc_update):
        for chosen in (parameters, [x for x in parameters if x.dtype is torch.bfloat16]):  # mixed, and of one dtype
            states = [torch.ones_like(x, dtype=torch.promote_types(x.dtype, torch.float32)) for x in chosen]
            slopes = [_random(*x.shape, dtype=x.dtype, seed=1) for x in chosen]
            update(chosen, slopes, states, 0.1, seed=1, step=2, rounding="stochastic", backend="cupy")
            results += [x.clone() for x in (*chosen, *states)]
    return results


SCENARIOS = {
    "logsumexp": logsumexp_scenarios,
    "rbm_gibbs": rbm_gibbs_scenarios,
    "sgld": sgld_scenarios,
    "thermodynamics": thermodynamics_scenarios,
}


def _unavailable():
    try:
        emulator.sanitizer_environment()
    except emulator.CompilerNotFoundError as error:
        return str(error)
    return dispatch.unavailable("cupy", torch.device("cpu"))


@pytest.mark.skipif(_unavailable() is not None, reason=str(_unavailable()))
@pytest.mark.parametrize("operation", SCENARIOS)
def test_kernels_are_clean_and_independent_of_the_order_of_threads(operation, tmp_path):
    path = tmp_path / "results.pt"
    run = subprocess.run(
        [sys.executable, __file__, operation, str(path)],
        env=emulator.sanitizer_environment(),
        capture_output=True,
        text=True,
    )
    report = run.stdout + run.stderr
    assert run.returncode == 0, report[-6000:]
    assert "Sanitizer" not in report, report[-6000:]
    assert "runtime error" not in report, report[-6000:]
    results = torch.load(path, weights_only=True)
    forward, reverse = results["forward"], results["reverse"]
    assert len(forward) == len(reverse) > 50
    for a, b in zip(forward, reverse, strict=True):
        assert a.dtype is b.dtype
        assert a.shape == b.shape
        assert not a.isnan().any()
        assert a.contiguous().view(-1).view(torch.uint8).equal(b.contiguous().view(-1).view(torch.uint8))
    assert len({tuple(a.flatten().tolist()) for a in forward}) > len(forward) // 8  # not all zeros, say


def main() -> None:
    operation, path = sys.argv[1:]
    assert emulator.is_sanitizing()
    results = {}
    for order in ("forward", "reverse"):
        with emulator.schedule(order):
            results[order] = [value.contiguous() for value in SCENARIOS[operation]()]
    torch.save(results, Path(path))


if __name__ == "__main__":
    main()
