"""The CUDA C kernels of the operations under ASan and UBSan, and in two orders of threads, on odd shapes.

Run as a program, this file executes the scenarios of one operation and writes the results to a file; the tests run it
under the sanitizers, once for each schedule of the emulator, and compare.
"""

import mmap
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
import torch
from boltzbench.kernels import emulator, schedules
from boltzbench.kernels.annealed_langevin import annealed_langevin
from boltzbench.kernels.boltzmann_gibbs import boltzmann_gibbs, prepare_spins, prepare_units
from boltzbench.kernels.common import dispatch
from boltzbench.kernels.enumeration import log_partition, rbm_log_partition
from boltzbench.kernels.generalised_cross_entropy import (
    generalised_cross_entropy_backward,
    generalised_cross_entropy_forward,
)
from boltzbench.kernels.ising import ising_sweeps, pack_spins
from boltzbench.kernels.logsumexp import logsumexp, logsumexp_backward
from boltzbench.kernels.parallel_tempering import swap_replicas
from boltzbench.kernels.philox import Stream, normals, random_words
from boltzbench.kernels.rbm_free_energy import free_energy
from boltzbench.kernels.rbm_gibbs import gaussian_gibbs, gibbs, pack_states, prepare_weights
from boltzbench.kernels.rbm_gradient import log_likelihood_gradient
from boltzbench.kernels.sgld import psgld_update, request, sghmc_update, sgld_update
from boltzbench.kernels.spin_glass import anneal_spins, lattice_glass, random_walkers
from boltzbench.kernels.thermodynamics import thermodynamics

MAP_NORESERVE = 0x4000  # Linux; in `mmap` from Python 3.13
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


def _random(*shape, dtype=torch.float32, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


FAR = 2**31 + 8
"""A distance that 32 bits do not hold."""


def _unwritten(elements, dtype):
    """Zeros that take no memory until they are written, and then a page at a time."""
    return torch.frombuffer(
        mmap.mmap(-1, elements * dtype.itemsize, flags=mmap.MAP_PRIVATE | MAP_NORESERVE), dtype=dtype
    )


def _far_apart(dtype):
    """Rows, or elements of a row, that lie more than 2**31 elements apart."""
    memory = _unwritten(3 * FAR, dtype)
    layouts = (
        ((2, 1032), (FAR, 1)),
        ((2, 37), (FAR - 3, 1)),
        ((3, 2), (1, FAR)),
        ((2, 40), (FAR, 2**26 + 1)),
        ((2, 3, 40), (FAR, 2**24, 1)),
    )
    for shape, strides in layouts:
        yield memory.as_strided(shape, strides).copy_(_random(*shape, dtype=dtype))


def _same_as_close_together(function, x):
    """The results, which are also those of the same numbers in contiguous memory."""
    results, close = function(x), function(x.contiguous())
    for one, other in zip(results, close, strict=True):
        torch.testing.assert_close(one, other)
    return results


def logsumexp_scenarios():
    def forward_and_backward(x):
        lse = logsumexp(x, -1, 0.7, backend="cupy")
        exact = lse if x.dtype.itemsize > 2 else lse.to(torch.float32)
        return lse, logsumexp_backward(torch.ones_like(lse), x, exact, -1, 0.7, backend="cupy")

    results = [
        y for dtype in DTYPES for x in _far_apart(dtype) for y in _same_as_close_together(forward_and_backward, x)
    ]
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


def annealed_langevin_scenarios():
    results = []
    for walkers in (1, 2, 3, 4, 5, 1023, 1025):
        x = _random(walkers).clamp(-3, 3)
        for first_walker in (0, 1, 3, 2**40 - 2):
            for threshold in (None, 0.5):
                numbers = {"first_walker": first_walker, "threshold": threshold, "seed": 2**64 - 1, "first_step": 2**30}
                found = annealed_langevin(x, schedules.geometric(3, 1.0, 0.1), 0.05, **numbers, backend="cupy")
                results += [each for each in found if each is not None]
    return results


def generalised_cross_entropy_scenarios():
    results = []
    for dtype in (torch.float32, torch.bfloat16):
        inputs = [_random(rows, n, dtype=dtype) for rows, n in ((1, 1), (9, 33), (3, 128), (2, 1025), (1, 4103))]
        inputs += [_random(37, 65, dtype=dtype).t(), _random(2, 32_776, dtype=dtype), _random(130, dtype=dtype)[1:]]
        inputs += [_random(3, 7, 10, dtype=dtype)]
        for x in inputs:
            dim = min(1, x.dim() - 1)
            shape = [size for k, size in enumerate(x.shape) if k != dim]
            labels = (_random(*shape, seed=1).abs() * x.shape[dim]).long().clamp(max=x.shape[dim] - 1)
            labels.view(-1)[-1] = x.shape[dim] - 1
            for q in (0.0, 0.7):
                loss, lse = generalised_cross_entropy_forward(x, labels, q, backend="cupy")
                slope = generalised_cross_entropy_backward(loss + 1, x, labels, lse, q, backend="cupy")
                results += [loss, lse, slope]
    return results


def thermodynamics_scenarios():
    results = []
    for dtype in (torch.float32, torch.bfloat16):
        inputs = [_random(rows, n, dtype=dtype) for rows, n in ((1, 1), (9, 33), (3, 128), (2, 1025), (1, 4103))]
        inputs += [_random(65, 37, dtype=dtype).t(), _random(1, 32_776, dtype=dtype), _random(130, dtype=dtype)[1:]]
        for x in inputs:
            for beta in (0.7, -1.0):
                results += thermodynamics(x, -1, beta, backend="cupy")[:3]
        for x in _far_apart(dtype):
            results += _same_as_close_together(lambda x: thermodynamics(x, -1, 0.7, backend="cupy")[:3], x)
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
        ("bf16", torch.clone, "cluster"),
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
    for chains, visible_units, hidden_units in ((1, 1, 1), (65, 17, 70), (3, 0, 5), (3, 5, 0)):
        results += gaussian_gibbs(
            _random(chains, visible_units), _random(visible_units, hidden_units), _random(visible_units),
            _random(hidden_units), _random(visible_units).abs() + 0.1, 2, seed=2**64 - 1,
            clamped=_random(chains, visible_units, seed=2) > 0.5, return_hidden_probability=True, backend="cupy",
        )  # fmt: skip
    return results


def rbm_free_energy_scenarios():
    results = []
    for dtype in (torch.float32, torch.bfloat16):
        for chains, visible_units, hidden_units in ((1, 1, 1), (17, 100, 17), (130, 33, 66), (3, 0, 5), (3, 5, 0)):
            visible = (_random(chains, visible_units) > 0).to(torch.uint8)
            weights, biases = _random(visible_units, hidden_units, dtype=dtype), _random(100, dtype=dtype)
            for given in (weights, weights.t().contiguous().t()):
                for beta in (0.7, torch.linspace(0.5, 2.0, chains), 0.3, torch.linspace(2.0, 0.5, chains)):
                    results.append(
                        free_energy(visible, given, biases[:visible_units], biases[:hidden_units], beta, backend="cupy")
                    )
    return results


def enumeration_scenarios():
    results = []
    for visible, hidden in ((0, 3), (3, 0), (1, 1), (7, 9), (13, 17), (14, 40)):
        for scale in (0.1, 1.0, 4.0):
            weights, biases = scale * _random(visible, hidden), _random(max(visible, hidden))
            for beta in (0.0, 0.5):
                found = rbm_log_partition(weights, biases[:visible], biases[:hidden], beta, backend="cupy")
                results.append(found)
    for units in (0, 1, 8, 16, 17, 21):
        above = 0.2 * _random(units, units).triu(1)
        for beta in (0.0, 0.5, 1.0):
            results.append(log_partition(above + above.t(), _random(units), beta, backend="cupy"))
    return results


def boltzmann_gibbs_scenarios():
    results = []
    for chains, units, least in ((1, 1, -9.0), (33, 5, 9.0), (70, 37, 0.8), (32, 64, 1.3), (3, 41, -9.0)):
        couplings = (_random(units, units) * (_random(units, units, seed=3) > least)).triu(1)
        couplings, fields = couplings + couplings.t(), _random(units)
        held = _random(chains, units, seed=2) > 0.5
        for prepare, dtype, low in ((prepare_units, torch.uint8, 0), (prepare_spins, torch.int8, -1)):
            states = torch.where(_random(chains, units, seed=1) > 0, 1, low).to(dtype)
            for clamped in (None, held, held[0], held.t().contiguous().t()):
                for beta in (0.7, torch.linspace(0.0, 2.0, chains)):
                    numbers = {"seed": 2**64 - 1, "first_sweep": 2**32 - 2, "clamped": clamped}
                    machine = prepare(couplings, fields)
                    results.append(boltzmann_gibbs(states, machine, 2, beta, backend="cupy", **numbers))
    return results


def ising_scenarios():
    results = []
    sizes = ((1, 2, 2), (70, 4, 4), (3, 6, 70), (2, 4, 64), (2, 40, 130), (130, 2, 66))
    for lattices, height, width in sizes:
        spins = pack_spins(_random(lattices, height, width))
        beta = torch.linspace(0, 1, lattices, dtype=torch.float64)
        for rule, field in (("metropolis", 0.0), ("heat_bath", 0.0), ("metropolis", 0.5)):
            for plan in ("half_sweeps", "resident"):
                for seed in (0, 2**64 - 1):
                    numbers = {"rule": rule, "field": field, "plan": plan, "seed": seed, "first_sweep": 2**32 - 2}
                    results.append(ising_sweeps(spins, width, 2, beta, backend="cupy", **numbers))
    return results


def parallel_tempering_scenarios():
    results = []
    for ladders, rungs in ((1, 1), (1, 2), (7, 3), (100, 16), (3, 300), (257, 1)):
        replica_at = _random(ladders, rungs).argsort(1).to(torch.int32)
        energies, betas = _random(ladders, rungs, dtype=torch.float64), torch.linspace(0, 2, rungs).double()
        for round_number in (0, 1, 2**32 - 1):
            for seed in (0, 2**64 - 1):
                numbers = {"seed": seed, "round_number": round_number, "first_ladder": 2**40}
                results += swap_replicas(replica_at, energies, betas, backend="cupy", **numbers)
    return results


def rbm_gradient_scenarios():
    results = []
    sizes = ((1, 1, 1, 1), (17, 30, 100, 17), (33, 5, 131, 66), (300, 257, 7, 5), (3, 2, 4, 0), (3, 2, 0, 4))
    for data_chains, model_chains, visible_units, hidden_units in sizes:
        data = (_random(data_chains, visible_units) > 0).to(torch.uint8)
        model = (_random(model_chains, visible_units, seed=1) > 0).to(torch.uint8)
        weights, bias = _random(visible_units, hidden_units), _random(hidden_units)
        for given in (weights, weights.t().contiguous().t()):
            results += log_likelihood_gradient(data, model, given, bias, backend="cupy")
        hidden = (_random(data_chains, hidden_units, seed=2) > 0).to(torch.uint8)
        results += log_likelihood_gradient(data, model, weights, bias, data_hidden=hidden, backend="cupy")
    return results


def _beyond_element_2_31(dtype):
    """The last elements of one tensor, by its last blocks alone."""
    x, g = _unwritten(FAR + 4096, dtype), _unwritten(FAR + 4096, dtype)
    x[-8192:], g[-8192:] = _random(8192, dtype=dtype), _random(8192, dtype=dtype, seed=1)
    first = len(x) - 8192
    xi = normals(random_words(torch.arange(first // 4, len(x) // 4), 3, 4, Stream.NOISE, 0), torch.float64).flatten()
    expected = x[first:].double() - 0.05 * g[first:].double() + 0.1**0.5 * xi
    blocks = request._blocks
    with mock.patch.object(request, "_blocks", lambda *of: blocks(*of)[-3:]):
        sgld_update(x, g, 0.1, 1.0, seed=3, step=4, backend="cupy")
    torch.testing.assert_close(x[first:].double(), expected, rtol=2 * torch.finfo(dtype).eps, atol=1e-5)
    return x[first:].clone()


def sgld_scenarios():
    results = [_beyond_element_2_31(dtype) for dtype in DTYPES]
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


def spin_glass_scenarios():
    results = []
    generator = torch.Generator().manual_seed(0)
    graphs = [lattice_glass(height, width, generator) for height, width in ((1, 1), (2, 2), (5, 6), (9, 10))]
    for n, strength in ((6, 1), (9, 2), (11, 2)):
        upper = torch.randint(-strength, strength + 1, (n, n), generator=generator).triu(1)
        graphs.append(upper + upper.t())
    for couplings in graphs:
        for walkers in (32, 96, 4128 if len(couplings) < 10 else 160):
            spins = random_walkers(len(couplings), walkers, generator, torch.device("cpu"))
            for first_walker in (0, 2**40):
                numbers = {"first_walker": first_walker, "seed": 2**64 - 1, "first_sweep": 2**32 - 2}
                found = anneal_spins(spins, couplings, schedules.geometric(2, 3.0, 0.3), **numbers, backend="cupy")
                results += [found.spins, found.energies]
    return results


SCENARIOS = {
    "enumeration": enumeration_scenarios,
    "annealed_langevin": annealed_langevin_scenarios,
    "boltzmann_gibbs": boltzmann_gibbs_scenarios,
    "generalised_cross_entropy": generalised_cross_entropy_scenarios,
    "ising": ising_scenarios,
    "logsumexp": logsumexp_scenarios,
    "parallel_tempering": parallel_tempering_scenarios,
    "rbm_free_energy": rbm_free_energy_scenarios,
    "rbm_gibbs": rbm_gibbs_scenarios,
    "rbm_gradient": rbm_gradient_scenarios,
    "sgld": sgld_scenarios,
    "spin_glass": spin_glass_scenarios,
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
