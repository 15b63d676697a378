"""Kernels of other libraries: they are unavailable with a reason, or checked like every implementation."""

import importlib.util
import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from boltzbench.harness import Status, Unsupported
from boltzbench.harness.agreement.agreement import check_case, check_law
from boltzbench.kernels.spin_glass import energies
from boltzbench.plugins.baselines import cross_entropy as peers_cross_entropy
from boltzbench.plugins.baselines import logsumexp as peers_logsumexp
from boltzbench.plugins.baselines import samplers as peers_samplers
from boltzbench.plugins.baselines import spins as peers_spins
from boltzbench.plugins.operations.langevin import sgld
from boltzbench.plugins.operations.machines import rbm_gibbs
from boltzbench.plugins.operations.rows import generalised_cross_entropy as cross_entropy
from boltzbench.plugins.operations.rows import logsumexp
from boltzbench.plugins.operations.spins import ising, spin_glass
from boltzbench.plugins.support import libraries, peer_kernels
from boltzbench.plugins.support.libraries import LONGEST_QUACK_ROW
from support.operations import registry

CPU, GPU = torch.device("cpu"), torch.device("cuda")
REGISTRY = registry()
BASELINES = [each for each in REGISTRY.implementations if each.plugin.startswith("baselines.")]
ALL_PEERS = [each for each in BASELINES if each.name != "torch_compile"]
PEERS = {each.name: each for each in ALL_PEERS if each.operation not in ("generalised_cross_entropy", "ising")}
CURAND = PEERS.pop("curand")
OF_ISING = {each.name: each for each in ALL_PEERS if each.operation == "ising"}
PEERS["numba"] = OF_ISING["numba"]
CROSS_ENTROPIES = {each.name: each for each in ALL_PEERS if each.operation == "generalised_cross_entropy"}
MODULES = {
    "cupyx": "cupyx", "quack": "quack", "liger": "liger_kernel",
    "bernoulli_rbm": "sklearn", "thrml": "thrml", "torchebm": "torchebm",
    "numba": "numba", "dwave_samplers": "dwave.samplers", "blackjax": "blackjax",
}  # fmt: skip


def cases_of(operation):
    return [case for case in operation.cases if case.preset == "smoke" and case.purpose != "real"]


def test_all_peers_are_registered():
    assert REGISTRY.problems == ()
    assert PEERS.keys() == MODULES.keys()
    assert CROSS_ENTROPIES.keys() == {"quack", "liger", "flag_gems"}
    assert OF_ISING.keys() == {"numba", "thrml"}


@pytest.mark.parametrize("name", MODULES)
def test_a_library_that_is_not_installed_is_unavailable(name, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda module, *more: None if module == MODULES[name] else find(module, *more)
    )
    for device in (CPU, GPU):
        assert PEERS[name].unavailable(device).endswith(" is not installed")


def test_a_module_without_its_package_is_unavailable():
    reason = libraries.unavailable("no_such_package.module", "no-such-package", "torch", None, CPU)
    assert reason == "no-such-package is not installed"


@pytest.mark.parametrize("name", MODULES)
def test_a_library_on_an_unsupported_device_is_unavailable(name, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda module, *more: object())
    wrong = dict.fromkeys(("bernoulli_rbm", "thrml", "numba", "dwave_samplers", "blackjax"), GPU)
    wrong |= {"cupyx": CPU, "quack": CPU, "liger": CPU}
    reason = PEERS[name].unavailable(wrong.get(name, GPU))
    words = None if name == "torchebm" else "runs on the CPU only" if wrong[name] is GPU else "needs a GPU"
    assert reason is None if words is None else words in reason


@pytest.mark.parametrize("case", cases_of(rbm_gibbs.OPERATION), ids=lambda case: case.label)
def test_bernoulli_rbm_agrees_where_it_can(case):
    agreement = check_case(rbm_gibbs.OPERATION, PEERS["bernoulli_rbm"], case, CPU, [0, 1])
    unmade = case.scenario.startswith("clamped") or case.dtype != "float32" or 0 in case.sizes.values()
    assert agreement.status is (Status.UNAVAILABLE if unmade else Status.PASSED), agreement.message


def require_laws(operation, peer):
    """All laws pass, except those that hold for the suite's random stream only."""
    found = [check_law(peer, operation, law, CPU, 0) for law in operation.laws]
    wanted = [Status.UNAVAILABLE if law.shared_stream else Status.PASSED for law in operation.laws]
    assert [each.status for each in found] == wanted, found


def test_bernoulli_rbm_keeps_the_laws():
    require_laws(rbm_gibbs.OPERATION, PEERS["bernoulli_rbm"])


def test_bernoulli_rbm_with_the_wrong_bias_is_rejected():
    def prepare(inputs, outputs):
        return peers_samplers.prepare_bernoulli_rbm({**inputs, "hidden_bias": -inputs["hidden_bias"]}, outputs)

    case = rbm_gibbs._case(256, 64, 64)
    agreement = check_case(rbm_gibbs.OPERATION, replace(PEERS["bernoulli_rbm"], prepare=prepare), case, CPU, [0])
    assert agreement.status in (Status.WRONG_LAW, Status.WRONG_VALUES)


def fake(monkeypatch, name, **members):
    """Install a module of this dotted name with these members, and its parent packages."""
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        monkeypatch.setitem(sys.modules, ".".join(parts[:end]), ModuleType(".".join(parts[:end])))
    for key, value in members.items():
        setattr(sys.modules[name], key, value)


CURAND_HEADER = """
struct curandStatePhilox4_32_10_t { unsigned long long word; };
inline unsigned long long mixed(unsigned long long x) {  // of SplitMix64
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ x >> 27) * 0x94d049bb133111ebull;
    return x ^ x >> 31;
}
inline void curand_init(unsigned long long seed, unsigned long long sequence, unsigned long long,
                        curandStatePhilox4_32_10_t* state) {
    state->word = mixed(mixed(seed) + 0x9e3779b97f4a7c15ull * sequence);
}
inline float drawn(curandStatePhilox4_32_10_t* state) {
    const unsigned long long word = mixed(state->word += 0x9e3779b97f4a7c15ull);
    const double u = ((word >> 32) + 0.5) * 0x1p-32, v = (unsigned)word * 0x1p-32;
    return (float)(sqrt(-2 * log(u)) * cos(6.283185307179586 * v));
}
inline float4 curand_normal4(curandStatePhilox4_32_10_t* state) {
    return {drawn(state), drawn(state), drawn(state), SPREAD * drawn(state)};
}
"""


@pytest.fixture
def curand(tmp_path, monkeypatch):
    """Makes the kernel with cuRAND that the emulator runs, with another generator; every fourth number is ``spread``
    times too large."""

    def make(spread=1.0):
        (tmp_path / "curand_kernel.h").write_text(CURAND_HEADER.replace("SPREAD", f"{spread}f"))
        for name in ("library_types.h", "nv/target"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).touch()
        monkeypatch.setattr(peers_samplers, "curand_headers", lambda: (tmp_path,))
        return CURAND

    peers_samplers.curand_module.cache_clear()
    yield make
    peers_samplers.curand_module.cache_clear()


@pytest.mark.parametrize(("spread", "status"), [(1.0, Status.PASSED), (1.3, Status.WRONG_LAW)])
def test_the_kernel_with_curand_agrees(curand, spread, status):
    agreement = check_case(sgld.OPERATION, curand(spread), sgld._case(2, 1 << 14), CPU, [0])
    assert agreement.status is Status.UNAVAILABLE, "its second tensor has no whole groups of four"
    agreement = check_case(sgld.OPERATION, curand(spread), sgld._case(1, 1 << 14), CPU, [0])
    assert agreement.status is status, agreement.message


def test_the_headers_of_curand_are_those_of_the_toolkit_or_of_packages(tmp_path, monkeypatch):
    for name in ("CUDA_HOME", "CUDA_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert "cuRAND's headers were not found" in CURAND.unavailable(GPU)
    folders = [
        tmp_path / folder
        for folder in (
            "nvidia/cu13/include", "triton/backends/nvidia/include", "cupy/_core/include/cupy/_cccl/libcudacxx"
        )
    ]  # fmt: skip
    for folder, name in zip(folders, ("curand_kernel.h", "library_types.h", "nv/target"), strict=True):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).touch()
    assert peers_samplers.curand_headers() == tuple(folders)
    assert CURAND.unavailable(CPU) == "cuRAND needs a GPU"


def test_a_library_that_is_not_installed_has_no_kernels_to_inspect(monkeypatch):
    for name in ("liger_kernel", "flag_gems", "quack"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *more: None)
    assert [CROSS_ENTROPIES[name].variants() for name in ("liger", "flag_gems", "quack")] == [(), (), ()]


def test_the_kernel_of_a_cubin_of_quack_is_found():
    assert peer_kernels.symbol_of(b"\x7fELF\0.nv.info.kernel_a\0.text.kernel_a\0.rela\0") == "kernel_a"


class EulerMaruyama:
    """torchebm's step: ``x + step drift + sqrt(2 step) s xi``."""

    spread = 2.0

    def __init__(self, device, dtype):
        self.dtype = dtype

    def step(self, state, step_size, *, drift, noise_scale=None, generator=None):
        x = state["x"]
        moved = x + drift(x, torch.zeros(len(x))) * step_size
        if noise_scale is not None:
            xi = torch.randn(x.shape, dtype=self.dtype, generator=generator)
            moved = moved + (self.spread * noise_scale**2) ** 0.5 * xi * step_size**0.5
        return {"x": moved}


class TooWide(EulerMaruyama):
    spread = 3.0


@pytest.mark.parametrize("case", cases_of(sgld.OPERATION), ids=lambda case: case.label)
def test_torchebm_is_called_correctly(case, monkeypatch):
    fake(monkeypatch, "torchebm.integrators", EulerMaruyamaIntegrator=EulerMaruyama)
    agreement = check_case(sgld.OPERATION, PEERS["torchebm"], case, CPU, [0])
    unmade = case.scenario == "mixed" or "16" in case.dtype or 0 in case.sizes.values()
    assert agreement.status is (Status.UNAVAILABLE if unmade else Status.PASSED), agreement.message


def test_a_torchebm_that_is_wrong_is_rejected(monkeypatch):
    fake(monkeypatch, "torchebm.integrators", EulerMaruyamaIntegrator=TooWide)
    agreement = check_case(sgld.OPERATION, PEERS["torchebm"], sgld.OPERATION.cases[0], CPU, [0])
    assert agreement.status is Status.WRONG_LAW


class OnArrays(ModuleType):
    """What blackjax needs of JAX, on NumPy's arrays; nothing is compiled."""

    numpy, random = np, SimpleNamespace(key=np.random.default_rng, split=lambda key: (key, key))

    @staticmethod
    def jit(function):
        return function

    @staticmethod
    def block_until_ready(arrays):
        return arrays


def blackjax_kernel(spread):
    """blackjax's SGLD: ``x + step grad + sqrt(2 T step) xi``, with the gradient of the log density."""

    def kernel(key, position, gradient_of, minibatch, step_size, temperature=1.0):
        scale = np.float32((spread * temperature * step_size) ** 0.5)
        uphill = gradient_of(position, minibatch)
        return [
            x + np.float32(step_size) * g + scale * key.standard_normal(x.shape, dtype=np.float32)
            for x, g in zip(position, uphill, strict=True)
        ]

    return SimpleNamespace(build_kernel=lambda: kernel)


@pytest.fixture
def blackjax(monkeypatch):
    if PEERS["blackjax"].unavailable(CPU):
        fake(monkeypatch, "blackjax", sgld=blackjax_kernel(2.0))
        monkeypatch.setitem(sys.modules, "jax", OnArrays("jax"))


@pytest.mark.parametrize("case", cases_of(sgld.OPERATION), ids=lambda case: case.label)
def test_blackjax_agrees(case, blackjax):
    agreement = check_case(sgld.OPERATION, PEERS["blackjax"], case, CPU, [0])
    unmade = case.scenario == "mixed" or case.dtype != "float32" or 0 in case.sizes.values()
    assert agreement.status is (Status.UNAVAILABLE if unmade else Status.PASSED), agreement.message


def test_blackjax_keeps_the_laws(blackjax):
    require_laws(sgld.OPERATION, PEERS["blackjax"])


@pytest.mark.parametrize("change", [{"temperature": 0.9}, {"step_size": 2.0}], ids=str)
def test_a_blackjax_that_is_wrong_is_rejected(change, blackjax):
    def prepare(inputs, outputs):
        wrong = {name: factor * inputs[name] for name, factor in change.items()}
        return peers_samplers.prepare_blackjax({**inputs, **wrong}, outputs)

    case = sgld._case(1, 1 << 16)
    agreement = check_case(sgld.OPERATION, replace(PEERS["blackjax"], prepare=prepare), case, CPU, [0])
    assert not agreement.passed
    assert agreement.status is not Status.ERROR, agreement.message


of_thrml = pytest.mark.skipif(OF_ISING["thrml"].unavailable(CPU) is not None, reason="thrml is not installed")


@of_thrml
@pytest.mark.parametrize("scenario", ["", "field", "antiferromagnet", "metropolis", "beta-infinite"])
def test_thrml_sweeps_a_lattice(scenario):
    case = next(case for case in ising.CASES if case.scenario == scenario)
    agreement = check_case(ising.OPERATION, OF_ISING["thrml"], case, CPU, [0])
    unmade = scenario in ("metropolis", "beta-infinite")
    assert agreement.status is (Status.UNAVAILABLE if unmade else Status.PASSED), agreement.message


@of_thrml
@pytest.mark.parametrize("change", [{"coupling": 0.8}, {"field": 0.3}, {"sweeps": 1}], ids=str)
def test_a_thrml_that_is_wrong_is_rejected(change):
    def prepare(inputs, outputs):
        return peers_spins.prepare_thrml({**inputs, **change}, outputs)

    case = ising._case(64, 16, 16, 2)
    agreement = check_case(ising.OPERATION, replace(OF_ISING["thrml"], prepare=prepare), case, CPU, [0])
    assert agreement.status is Status.WRONG_LAW, agreement.message


@pytest.fixture
def numba(monkeypatch):
    """Numba, or where it is not installed the same code in Python."""
    if PEERS["numba"].unavailable(CPU):

        def njit(**options):
            return lambda function: function

        config = SimpleNamespace(NUMBA_NUM_THREADS=1)
        fake(monkeypatch, "numba", njit=njit, prange=range, set_num_threads=lambda threads: None, config=config)
        monkeypatch.setattr(peers_spins, "_checkerboard", peers_spins._checkerboard.__wrapped__)


SMALL_LATTICES = [case for case in cases_of(ising.OPERATION) if case.sizes["width"] < 128]


@pytest.mark.parametrize("case", SMALL_LATTICES, ids=lambda case: case.label)
def test_numba_agrees(case, numba):
    agreement = check_case(ising.OPERATION, PEERS["numba"], case, CPU, [0])
    assert agreement.status is (Status.PASSED if case.sizes["lattices"] else Status.UNAVAILABLE), agreement.message


@pytest.mark.parametrize("name", ["enumeration heat_bath field", "enumeration metropolis"])
def test_numba_keeps_a_law(name, numba):
    law = next(law for law in ising.OPERATION.laws if law.name == name)
    agreement = check_law(PEERS["numba"], ising.OPERATION, law, CPU, 0)
    assert agreement.passed, agreement.message


@pytest.mark.parametrize(
    ("scenario", "sweeps", "change"),
    [
        ("", 2, {"coupling": 0.8}),
        ("", 1, {"rule": "metropolis"}),
        ("field", 2, {"field": 0.0}),
        ("metropolis", 2, {"coupling": -1.0}),
    ],
    ids=str,
)
def test_a_numba_sweep_that_is_wrong_is_rejected(scenario, sweeps, change, numba):
    def prepare(inputs, outputs):
        return peers_spins.prepare_numba({**inputs, **change}, outputs)

    case = ising._case(64, 16, 16, sweeps, scenario)
    agreement = check_case(ising.OPERATION, replace(PEERS["numba"], prepare=prepare), case, CPU, [0])
    assert agreement.status is Status.WRONG_LAW, agreement.message


class SimulatedAnnealing:
    """The sweeps of D-Wave's sampler: minimises ``sum h s + sum J s s``, spin by spin, all reads at once."""

    def sample_ising(
        self, h, J, *, num_reads, initial_states, initial_states_generator, beta_schedule_type, beta_schedule,
        proposal_acceptance_criteria, seed,
    ):  # fmt: skip
        states, labels = initial_states
        assert (initial_states_generator, beta_schedule_type) == ("none", "custom")
        assert len(states) == num_reads
        assert list(labels) == list(h)
        couplings, generator = np.zeros((len(h), len(h))), np.random.Generator(np.random.PCG64(seed))
        for (i, j), strength in J.items():
            couplings[i, j] = couplings[j, i] = strength
        fields, s = np.array([*h.values()]), states.copy()
        for beta in beta_schedule:
            for i in range(len(h)):
                change = -2 * s[:, i] * (s @ couplings[i] + fields[i])
                with np.errstate(over="ignore"):
                    gibbs = 1 / (1 + np.exp(beta * change))
                    p = {"Gibbs": gibbs, "Metropolis": np.exp(-beta * change)}[proposal_acceptance_criteria]
                s[generator.random(num_reads) < p, i] *= -1
        energy = 0.5 * ((s @ couplings) * s).sum(1) + s @ fields
        return SimpleNamespace(record=SimpleNamespace(sample=s, energy=energy))


@pytest.fixture
def dwave(monkeypatch):
    if PEERS["dwave_samplers"].unavailable(CPU):
        fake(monkeypatch, "dwave.samplers", SimulatedAnnealingSampler=SimulatedAnnealing)


@pytest.mark.parametrize("case", cases_of(spin_glass.OPERATION), ids=lambda case: case.label)
def test_dwave_samplers_agree(case, dwave):
    agreement = check_case(spin_glass.OPERATION, PEERS["dwave_samplers"], case, CPU, [0])
    assert agreement.status is (Status.PASSED if case.sizes["walkers"] else Status.UNAVAILABLE), agreement.message


def test_dwave_samplers_keep_the_laws(dwave):
    require_laws(spin_glass.OPERATION, PEERS["dwave_samplers"])


@pytest.mark.parametrize("sweeps", [1, 4])
@pytest.mark.parametrize("wrong", ["hotter", "other rule", "no fields"])
def test_annealing_that_is_wrong_is_rejected(wrong, sweeps, dwave):
    def prepare(inputs, outputs):
        given = dict(inputs)
        if wrong == "no fields":
            given["fields"] = None
        elif wrong == "other rule":
            given["rule"] = "metropolis"
        else:
            given["temperatures"] = 2 * inputs["temperatures"]
        launch = peers_spins.prepare_dwave(given, outputs)

        def with_energies():
            found = launch()
            found["energies"].copy_(energies(found["annealed"], inputs["couplings"], inputs["fields"]))
            return found

        return with_energies

    case = spin_glass._case(9, 1024, sweeps, "real" if wrong == "no fields" else "")
    implementation = replace(PEERS["dwave_samplers"], prepare=prepare)
    agreement = check_case(spin_glass.OPERATION, implementation, case, CPU, [0])
    assert agreement.status is Status.WRONG_LAW, agreement.message


CROSS_ENTROPY_CASES = [
    *cases_of(cross_entropy.OPERATION),
    cross_entropy._case(64, 128, "bfloat16", "cross-entropy"),
    cross_entropy._case(64, 128, "bfloat16", "cross-entropy backward"),
]


def cross_entropy_fwd(x, target, return_lse, ignore_index=-100):
    assert return_lse
    lse = torch.logsumexp(x.float(), 1)
    loss = lse - x.float().gather(1, target.clamp(min=0)[:, None])[:, 0]
    return torch.where(target == ignore_index, 0.0, loss), lse


def cross_entropy_bwd_out(x, target, dloss, lse, dx, ignore_index):
    slope = torch.exp(x.float() - lse[:, None]) - torch.nn.functional.one_hot(target.clamp(min=0), x.shape[1])
    dx.copy_(torch.where(target == ignore_index, 0.0, dloss)[:, None] * slope)


class LigerFunction:
    @staticmethod
    def apply(x, target, weight, ignored, z_loss, smoothing, reduction):
        assert (weight, ignored, z_loss, smoothing, reduction) == (None, -100, 0.0, 0.0, "none")
        return torch.nn.functional.cross_entropy(x, target, reduction="none"), None, None, None


@pytest.mark.parametrize("case", cases_of(logsumexp.OPERATION), ids=lambda case: case.label)
@pytest.mark.parametrize("name", ["quack", "liger"])
def test_log_sum_exp_of_a_cross_entropy_agrees(name, case, monkeypatch):
    fake(monkeypatch, "quack.cross_entropy", cross_entropy_fwd=cross_entropy_fwd)
    fake(monkeypatch, "liger_kernel.ops", LigerCrossEntropyFunction=LigerFunction)
    agreement = check_case(logsumexp.OPERATION, PEERS[name], case, CPU, [0])
    # A rounded float32 loss may exceed the bound for many rows, or for a row far from its first element.
    rounded = name == "liger" and case.scenario in ("short", "split")
    assert agreement.status in (Status.PASSED, Status.UNAVAILABLE) or rounded, agreement.message
    if case.purpose == "bench" and not case.scenario:
        assert agreement.passed


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"beta": 0.5}, "no inverse temperature"),
        ({"grad": torch.ones(3)}, "gradient is that of a loss"),
        ({"x": torch.ones(3, 4, dtype=torch.float64)}, "no float64 result"),
        ({"x": torch.ones(4, 3).t()}, "not contiguous"),
        ({"x": torch.ones(3, 0)}, "no empty input"),
    ],
)
def test_unsupported_rows_are_reported(change, words):
    inputs = {"x": torch.ones(3, 4), "beta": 1.0, "dim": 1, **change}
    with pytest.raises(Unsupported, match=words):
        peers_logsumexp.prepare_quack(inputs, {"y": torch.empty(3)})


def flag_gems_loss(logits, labels, weight=None, reduction="mean", ignore_index=-100, label_smoothing=0.0):
    assert (weight, reduction, ignore_index, label_smoothing) == (None, "none", -100, 0.0)
    return torch.nn.functional.cross_entropy(logits, labels, reduction="none")


@pytest.mark.parametrize("case", CROSS_ENTROPY_CASES, ids=lambda case: case.label)
@pytest.mark.parametrize("name", ["quack", "liger", "flag_gems"])
def test_cross_entropy_agrees_at_q_0(name, case, monkeypatch):
    members = {"cross_entropy_fwd": cross_entropy_fwd, "cross_entropy_bwd_out": cross_entropy_bwd_out}
    fake(monkeypatch, "quack.cross_entropy", **members)
    fake(monkeypatch, "liger_kernel.ops", LigerCrossEntropyFunction=LigerFunction)
    fake(monkeypatch, "flag_gems.fused", cross_entropy_loss=flag_gems_loss)
    agreement = check_case(cross_entropy.OPERATION, CROSS_ENTROPIES[name], case, CPU, [0])
    words = case.scenario.split()
    unmade = "cross-entropy" not in words or "level" in words
    unmade |= name != "quack" and (case.dtype != "float32" or "backward" in words)
    made = Status.WRONG_VALUES if "infinities" in words else Status.PASSED  # inf - inf
    assert agreement.status is (Status.UNAVAILABLE if unmade else made), agreement.message


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"q": 0.7}, "cross-entropy only"),
        ({"apart": True}, "one log-sum-exp"),
        ({"logits": torch.ones(3, 4, dtype=torch.float64)}, "no float64 result"),
        ({"logits": torch.ones(4, 3).t()}, "not contiguous"),
        ({"logits": torch.ones(0, 4)}, "no empty input"),
        ({"logits": torch.ones(1, LONGEST_QUACK_ROW + 1)}, "columns at most"),
    ],
)
def test_unsupported_losses_are_reported(change, words):
    inputs = {"logits": torch.ones(3, 4), "labels": torch.zeros(3, dtype=torch.int64), "q": 0.0, "apart": False}
    with pytest.raises(Unsupported, match=words):
        peers_cross_entropy.prepare_quack({**inputs, **change}, {})
