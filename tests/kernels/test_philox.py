"""The random stream in torch, Triton and CUDA C: known answers, equal bits, distributions, counters."""

import math
import random
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
import torch
from boltzbench.harness.discovery.registry import load_registry
from boltzbench.kernels import draws, philox, rbm_training
from boltzbench.kernels.annealed_langevin import annealed_langevin
from boltzbench.kernels.boltzmann_gibbs import boltzmann_gibbs, prepare_units
from boltzbench.kernels.common import dispatch, philox_triton
from boltzbench.kernels.cuda_module import CudaModule
from boltzbench.kernels.ising import ising_sweeps, pack_spins
from boltzbench.kernels.machines import unit_draws
from boltzbench.kernels.machines.states import random_spins
from boltzbench.kernels.parallel_tempering import RbmReplicas, swap_replicas
from boltzbench.kernels.philox import Stream
from boltzbench.kernels.rbm_gibbs import gibbs
from boltzbench.kernels.sgld import SGLD, sgld_update
from boltzbench.kernels.sgld import reference as sgld_reference
from boltzbench.kernels.spin_glass import anneal_spins, lattice_glass
from scipy import stats
from support import TESTS
from support.devices import DEVICE
from triton import jit, next_power_of_2
from triton import language as tl

MODULE = CudaModule(
    TESTS / "kernels" / "cuda" / "random.cu",
    ["words", "uniforms", "normals_of<float>", "normals_of<double>"],
)
THREADS = 128


def _backend(name):
    reason = dispatch.unavailable(name, DEVICE)
    return pytest.param(name, marks=pytest.mark.skipif(reason is not None, reason=str(reason)))


BACKENDS = [_backend(name) for name in ("torch", "triton", "cupy")]


@jit
def _words_kernel(groups, out, n, seed, step, stream_and_tensor, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    group = tl.load(groups + i, mask=i < n, other=0)
    w0, w1, w2, w3 = philox_triton.random_words(group, seed, step, stream_and_tensor)
    place = tl.arange(0, 4 * BLOCK)
    tl.store(out + place, philox_triton.interleave4(w0, w1, w2, w3).to(tl.int64), mask=place < 4 * n)


@jit
def _uniforms_kernel(words, out, n, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    word = tl.load(words + i, mask=i < n, other=0).to(tl.uint32)
    tl.store(out + i, philox_triton.uniform(word), mask=i < n)


@jit
def _normals_kernel(words, out, n, DTYPE: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    w0 = tl.load(words + 4 * i, mask=i < n, other=0).to(tl.uint32)
    w1 = tl.load(words + 4 * i + 1, mask=i < n, other=0).to(tl.uint32)
    w2 = tl.load(words + 4 * i + 2, mask=i < n, other=0).to(tl.uint32)
    w3 = tl.load(words + 4 * i + 3, mask=i < n, other=0).to(tl.uint32)
    one = tl.full((), 1.0, DTYPE)
    z0, z1, z2, z3 = philox_triton.normals(w0, w1, w2, w3, one, DTYPE)
    place = tl.arange(0, 4 * BLOCK)
    tl.store(out + place, philox_triton.interleave4(z0, z1, z2, z3), mask=place < 4 * n)


def draw_words(backend, groups, seed, step, stream, tensor=0):
    """Words of the groups, int64 (groups, 4), by the shipped function of one language."""
    if backend == "torch":
        return philox.random_words(groups, seed, step, stream, tensor)
    n = len(groups)
    out = torch.full((n, 4), -1, dtype=torch.int64, device=DEVICE)
    if backend == "triton":
        fourth = int(stream) + tensor * 256
        block = next_power_of_2(n)
        _words_kernel[(1,)](groups, out, n, philox.signed_seed(seed), step, fourth, BLOCK=block)
    else:
        numbers = [np.uint64(seed), np.uint32(step), np.uint32(stream), np.uint32(tensor)]
        MODULE.launch("words", (-(-n // THREADS),), (THREADS,), [groups, out, n, *numbers], device=DEVICE)
    return out


def to_uniforms(backend, words):
    if backend == "torch":
        return philox.uniforms(words)
    n = words.numel()
    out = torch.full((n,), math.nan, device=DEVICE)
    if backend == "triton":
        _uniforms_kernel[(1,)](words, out, n, BLOCK=next_power_of_2(n))
    else:
        MODULE.launch("uniforms", (-(-n // THREADS),), (THREADS,), [words, out, n], device=DEVICE)
    return out


def to_normals(backend, words, dtype):
    """Normals in float64 for comparison, (groups, 4), computed in ``dtype``."""
    if backend == "torch":
        return philox.normals(words, dtype)
    n = len(words)
    out = torch.full((n, 4), math.nan, dtype=dtype, device=DEVICE)
    if backend == "triton":
        real = tl.float64 if dtype is torch.float64 else tl.float32
        _normals_kernel[(1,)](words, out, n, DTYPE=real, BLOCK=next_power_of_2(n))
    else:
        real = "double" if dtype is torch.float64 else "float"
        MODULE.launch(f"normals_of<{real}>", (-(-n // THREADS),), (THREADS,), [words, out, n], device=DEVICE)
    return out.to(torch.float64)


def as_groups(*values):
    """64-bit group indices as int64 of the same bits."""
    return torch.tensor([v - 2**64 if v >= 2**63 else v for v in values], dtype=torch.int64, device=DEVICE)


def philox_in_python(counter, seed):
    """Philox4x32-10 in Python integers, from the definition in the paper: the reference of all three."""
    c, k = list(counter), [seed & 0xFFFFFFFF, seed >> 32]
    for _ in range(10):
        low, high = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(high >> 32) ^ c[1] ^ k[0], high & 0xFFFFFFFF, (low >> 32) ^ c[3] ^ k[1], low & 0xFFFFFFFF]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c


# ---- words

KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_known_answers(backend, counter, key, answer):
    groups = as_groups(counter[0] | counter[1] << 32)
    seed, tensor, stream = key[0] | key[1] << 32, counter[3] >> 8, counter[3] & 0xFF
    words = draw_words(backend, groups, seed, counter[2], stream, tensor)
    assert words.tolist() == [list(answer)]
    assert philox_in_python(counter, seed) == list(answer)


@pytest.mark.parametrize("backend", BACKENDS)
def test_random_keys_and_counters_give_the_same_bits(backend):
    draws = random.Random(1)
    edges = [
        (0, 0, 1, 0),
        (2**63, 2**32 - 1, 3, 2**24 - 1),
        (2**64 - 1, 2**31, 2, 2**23),
        (2**63 - 1, 2**31 - 1, 1, 2**23 - 1),
        (2**32, 1, 3, 1),
    ]
    cases = edges + [
        (draws.getrandbits(64), draws.getrandbits(32), draws.choice(list(Stream)), draws.getrandbits(24))
        for _ in range(20)
    ]
    for seed, step, stream, tensor in cases:
        groups = [0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**32 + 1, 2**40 + 7, 2**61, 2**63 - 1]
        groups += [draws.getrandbits(63) for _ in range(7)]
        words = draw_words(backend, as_groups(*groups), seed, step, stream, tensor).tolist()
        fourth = int(stream) | tensor << 8
        expected = [philox_in_python((g & 0xFFFFFFFF, g >> 32, step, fourth), seed) for g in groups]
        assert words == expected, (seed, step, stream, tensor)


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_part_of_key_and_counter_matters(backend):
    base = (5, 3, 1, 2)
    variants = [base, (5 + 2**32, 3, 1, 2), (6, 3, 1, 2), (5, 4, 1, 2), (5, 3, 2, 2), (5, 3, 1, 3)]
    groups = as_groups(0, 1, 2**32, 2**32 + 1)
    words = {tuple(row) for v in variants for row in draw_words(backend, groups, *v).tolist()}
    assert len(words) == len(variants) * len(groups)


def test_streams_have_different_numbers_of_8_bits():
    streams = list(Stream.__members__.values())  # with those that share the number of another, which Stream leaves out
    assert len(set(streams)) == len(streams)
    assert all(0 <= stream < 256 for stream in streams)


@pytest.mark.skipif(dispatch.unavailable("cupy", DEVICE) is not None, reason="CUDA C cannot run here")
def test_cuda_c_knows_every_stream_by_its_name(tmp_path):
    stores = "\n".join(f"out[{number}] = STREAM_{stream.name};" for number, stream in enumerate(Stream))
    source = tmp_path / "streams.cu"
    source.write_text(f'#include "philox.cuh"\n__global__ void streams(i64* out) {{\n{stores}\n}}\n')
    out = torch.full((len(Stream),), -1, dtype=torch.int64, device=DEVICE)
    CudaModule(source, ["streams"]).launch("streams", (1,), (1,), [out], device=DEVICE)
    assert out.tolist() == list(Stream)


# ---- uniforms


@pytest.mark.parametrize("backend", BACKENDS)
def test_uniforms_are_the_top_24_bits_exactly(backend):
    edges = [0, 1, 255, 256, 257, 2**31 - 1, 2**31, 2**31 + 256, 2**32 - 257, 2**32 - 256, 2**32 - 1]
    draws = random.Random(2)
    words = torch.tensor(edges + [draws.getrandbits(32) for _ in range(500)], dtype=torch.int64, device=DEVICE)
    u = to_uniforms(backend, words)
    assert u.dtype is torch.float32
    assert u.tolist() == [(word >> 8) / 2**24 for word in words.tolist()]
    assert u.min() == 0
    assert u.max() == 1 - 2**-24


# ---- halves


def test_halves_are_the_words_low_half_first():
    words = torch.tensor([[0x00020001, 0x00040003, 0x00060005, 0xFFFF0007]])
    assert philox.halves(words).tolist() == [[1, 2, 3, 4, 5, 6, 7, 0xFFFF]]


# ---- normals


def _normal_words():
    """Groups of words: random ones, and each combination of extreme words for radius and angle."""
    extremes = [0, 1, 2**8, 2**30, 2**31 - 1, 2**31, 3 * 2**30, 2**32 - 2**8, 2**32 - 2, 2**32 - 1]
    pairs = [(a, b) for a in extremes for b in extremes]
    groups = [(*pairs[i], *pairs[-1 - i]) for i in range(len(pairs))]
    draws = random.Random(3)
    groups += [tuple(draws.getrandbits(32) for _ in range(4)) for _ in range(3000)]
    return torch.tensor(groups, dtype=torch.int64, device=DEVICE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("backend", BACKENDS)
def test_normals_agree_with_box_and_muller(backend, dtype):
    # Rounding of the angle (below 2 pi, so by 4 u, and 3 u from the constant) and of logarithm, root, sine and product.
    u = 2.0**-24 if dtype is torch.float32 else 2.0**-53
    words = _normal_words()
    z = to_normals(backend, words, dtype).cpu().numpy()
    real = np.float32 if dtype is torch.float32 else np.float64
    fraction = words.cpu().numpy().astype(real) * real(2.0**-32) + real(2.0**-33)
    fraction = fraction.astype(np.longdouble)
    radius = np.sqrt(-2 * np.log(fraction[:, 0::2]))
    angle = 2 * np.arccos(np.longdouble(-1)) * fraction[:, 1::2]
    expected = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1).reshape(len(words), 4)
    bound = 12 * u * np.repeat(radius, 2, axis=1)
    error = np.abs(z - expected)
    assert np.isfinite(z).all()
    assert np.abs(z).max() <= 6.77
    assert (error <= bound).all(), float((error[bound > 0] / bound[bound > 0]).max())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("backend", BACKENDS)
def test_normals_are_standard_normal(backend, dtype):
    groups = torch.arange(8192, dtype=torch.int64, device=DEVICE)
    z = to_normals(backend, draw_words(backend, groups, 77, 5, Stream.NOISE, 2), dtype).cpu().numpy()
    n = z.size
    assert abs(z.mean()) < 5 / math.sqrt(n)
    assert abs(z.var() - 1) < 5 * math.sqrt(2 / n)
    assert stats.kstest(z.ravel(), "norm").pvalue > 1e-6
    assert np.abs(np.corrcoef(z.T) - np.eye(4)).max() < 5 / math.sqrt(len(z))
    assert np.abs(np.corrcoef((z**2).T) - np.eye(4)).max() < 5 / math.sqrt(len(z))


# ---- limits of the counter


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ((-1, 0), "seed"),
        ((2**64, 0), "seed"),
        ((0, -1), "step"),
        ((0, 2**32), "step"),
        ((0, 2**32 - 1, 0, 2), "step"),
        ((0, 0, -1), "tensor"),
        ((0, 0, 2**24), "tensor"),
    ],
)
def test_numbers_beyond_the_counter_are_refused(arguments, name):
    with pytest.raises(ValueError, match=f"^{name}"):
        philox.check_counter(*arguments)


def test_the_largest_numbers_fit_the_counter():
    philox.check_counter(2**64 - 1, 2**32 - 1, 2**24 - 1)
    philox.check_counter(0, 2**32 - 4, 0, 4)


def _gibbs(**changes):
    numbers = {"seed": 0} | changes
    return gibbs(torch.zeros(2, 3, dtype=torch.uint8), torch.zeros(3, 2), torch.zeros(3), torch.zeros(2), **numbers)


def _sgld(**changes):
    sgld_update(torch.zeros(3), torch.zeros(3), 0.1, **({"seed": 0, "step": 0} | changes))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("call", "name", "value"),
    [
        (_gibbs, "seed", -1),
        (_gibbs, "seed", 2**64),
        (_gibbs, "first_sweep", -1),
        (_gibbs, "first_sweep", 2**32),
        (_gibbs, "first_chain", -1),
        (_gibbs, "first_chain", 2**63),
        (_sgld, "seed", -1),
        (_sgld, "seed", 2**64),
        (_sgld, "step", -1),
        (_sgld, "step", 2**32),
        (_sgld, "tensor_numbers", [-1]),
        (_sgld, "tensor_numbers", [2**24]),
    ],
)
def test_public_functions_name_the_argument_beyond_the_counter(backend, call, name, value):
    with pytest.raises(ValueError, match=rf"^{name}\b"):
        call(**{name: value}, backend=backend)


# ---- no counter is used twice


class CounterLog:
    """Counts each (key, counter) of the calls that go through it."""

    def __init__(self, monkeypatch):
        self.used = Counter()
        for module in (unit_draws, sgld_reference):
            monkeypatch.setattr(module, "random_words", self)

    def __call__(self, groups, seed, step, stream, tensor=0):
        self.used.update((seed, group, step, int(stream), tensor) for group in groups.flatten().tolist())
        return philox.random_words(groups, seed, step, stream, tensor)

    def require_no_repeat(self, draws):
        assert self.used.total() == draws
        assert max(self.used.values()) == 1


def test_no_counter_is_used_twice_in_a_run(monkeypatch):
    log = CounterLog(monkeypatch)
    chains, visible_units, hidden_units = 6, 9, 5
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(visible_units, hidden_units, generator=generator)
    biases = torch.randn(visible_units, generator=generator), torch.randn(hidden_units, generator=generator)
    for first, last in ((0, 4), (4, 6)):  # a batch split over calls, each continued in a second call
        v = torch.zeros(last - first, visible_units, dtype=torch.uint8)
        for first_sweep, sweeps in ((0, 3), (3, 2)):
            v = gibbs(
                v, weights, *biases, sweeps, seed=9, first_sweep=first_sweep, first_chain=first, backend="torch",
                return_hidden_probability=True,
            ).visible  # fmt: skip
    drawn = chains * 5 * (math.ceil(visible_units / 4) + math.ceil(hidden_units / 4))
    log.require_no_repeat(drawn)

    couplings = (weights @ weights.t()).triu(1)
    machine = prepare_units(couplings + couplings.t(), biases[0])
    for first, last in ((0, 4), (4, 6)):
        x = torch.zeros(last - first, visible_units, dtype=torch.uint8)
        for first_sweep, sweeps in ((0, 3), (3, 2)):
            x = boltzmann_gibbs(x, machine, sweeps, seed=9, first_sweep=first_sweep, first_chain=first, backend="torch")
    drawn += chains * 5 * math.ceil(visible_units / 4)
    log.require_no_repeat(drawn)

    sizes = [(3, 5), (7,), (), (130,)]
    parameters = [torch.nn.Parameter(torch.zeros(size)) for size in sizes]
    groups = [{"params": parameters[:2]}, {"params": parameters[2:], "lr": 0.2}]
    optimizer = SGLD(groups, lr=0.1, seed=9, backend="torch")
    for step in range(4):
        if step == 2:  # a restored run goes on where it stopped
            saved = optimizer.state_dict()
            optimizer = SGLD(groups, lr=0.1, seed=9, backend="torch")
            optimizer.load_state_dict(saved)
        for i, x in enumerate(parameters):
            x.grad = None if (i, step) == (1, 1) else torch.ones_like(x)
        optimizer.step()
    quarters = [math.ceil(x.numel() / 4) for x in parameters]
    log.require_no_repeat(drawn + 4 * sum(quarters) - quarters[1])


# ---- two purposes share no counter


def _sampled(name):
    """A step of a sampler of `boltzbench validate`, written in torch."""
    registered = load_registry()
    sampler, target = registered.samplers[name], registered.targets["quadratic_wells"]
    sampler.advance(sampler.init(target, torch.zeros(3, *target.shape), 7, 0), 2, 1.0)


def _units(n=9):
    return torch.zeros(4, n, dtype=torch.uint8)


WEIGHTS, BIASES = torch.ones(9, 5), (torch.zeros(9), torch.zeros(5))
FUNCTIONS = {
    "initial_state": lambda: rbm_training.initial_state(_units(), 5, seed=7),
    "minibatch": lambda: rbm_training.minibatch(_units(), 2, 7, 0),
    "gibbs": lambda: gibbs(_units(), WEIGHTS, *BIASES, 2, seed=7, backend="torch"),
    "boltzmann_gibbs": lambda: boltzmann_gibbs(
        _units(), prepare_units(torch.zeros(9, 9), torch.zeros(9)), 2, seed=7, backend="torch"
    ),
    "sgld_update": lambda: sgld_update(torch.zeros(9), torch.zeros(9), 0.1, seed=7, step=0, backend="torch"),
    "stochastic rounding": lambda: sgld_update(
        torch.zeros(9).bfloat16(), torch.zeros(9).bfloat16(), 0.1, 0.0, seed=7, step=0, rounding="stochastic",
        backend="torch",
    ),
    "ising_sweeps": lambda: ising_sweeps(
        pack_spins(torch.ones(2, 4, 4, dtype=torch.int8)), 4, 2, 0.4, seed=7, backend="torch"
    ),
    "random_spins": lambda: random_spins(4, 4, 2, seed=7, device=torch.device("cpu")),
    "replicas": lambda: RbmReplicas(WEIGHTS, *BIASES, 4, seed=7),
    "annealed_langevin": lambda: annealed_langevin(
        torch.zeros(5), torch.ones(2).double(), 0.1, seed=7, backend="torch"
    ),
    "swap_replicas": lambda: swap_replicas(
        torch.arange(3, dtype=torch.int32).expand(4, 3).contiguous(), torch.zeros(4, 3).double(),
        torch.linspace(0, 1, 3).double(), seed=7, round_number=0, backend="torch",
    ),
    "glass of bonds": lambda: anneal_spins(
        torch.ones(16, 1, dtype=torch.int32), lattice_glass(4, 4, torch.Generator().manual_seed(0)),
        torch.ones(2).double(), seed=7, backend="torch",
    ),
    "glass of links": lambda: anneal_spins(
        torch.ones(3, 1, dtype=torch.int32), 0.37 * (1 - torch.eye(3)), torch.ones(2).double(), seed=7, backend="torch"
    ),
    "metropolis": lambda: _sampled("metropolis"),
    "sghmc sampler": lambda: _sampled("sghmc"),
}  # fmt: skip
SHARED = {frozenset(("metropolis", "sghmc sampler"))}
"""Samplers of one kind of use: a chain has one of them."""


def test_no_two_public_functions_share_a_random_number(monkeypatch):
    """At one seed, from step 0: whatever a user combines, its parts are independent."""
    used, right = {}, philox.philox4x32
    monkeypatch.setattr(draws, "unavailable", lambda backend, device: "the test counts in torch")

    def counted(counter, seed):
        used[name].update(zip(*(each.flatten().tolist() for each in torch.broadcast_tensors(*counter)), strict=True))
        return right(counter, seed)

    monkeypatch.setattr(philox, "philox4x32", counted)
    for name, call in FUNCTIONS.items():
        used[name] = set()
        call()
        assert used[name], f"{name} draws nothing"
    shared = {frozenset(pair) for pair in combinations(used, 2) if used[pair[0]] & used[pair[1]]}
    assert shared == SHARED


def test_optimizers_of_an_ensemble_have_their_own_noise():
    def moved(optimizer, x):
        x.grad = torch.zeros_like(x)
        optimizer.step()
        return x.detach().clone()

    torch.manual_seed(5)
    xs = [torch.nn.Parameter(torch.zeros(100)) for _ in range(3)]
    one, two = (SGLD([x], 1.0) for x in xs[:2])
    first, second = moved(one, xs[0]), moved(two, xs[1])
    assert not torch.equal(first, second)
    torch.manual_seed(5)
    again = SGLD([xs[2]], 1.0)
    assert torch.equal(moved(again, xs[2]), first)
    other = SGLD([xs[2]], 1.0)
    other.load_state_dict(two.state_dict())
    assert other.param_groups[0]["seed"] == two.param_groups[0]["seed"] != one.param_groups[0]["seed"]
