"""Spin samplers of other libraries, on the CPU. Each uses its own random stream, so the law of its draws is tested.

- ``numba`` (``ising``): a checkerboard sweep as users of Numba write it: a table of flip probabilities, spins in int8,
  rows in parallel, NumPy's random numbers of each thread. Unpacking and packing the spins is part of a launch.
- ``thrml`` (``ising``): block Gibbs of thrml on the even sites, then the odd ones, compiled by JAX, which takes all
  cores. Unpacking and packing the spins is part of a launch.
- ``dwave_samplers`` (``spin_glass``): `SimulatedAnnealingSampler` of D-Wave, whose sweeps update the spins in order,
  with a double for each coupling and read, in one thread. Its sign of the couplings is the opposite.
"""

import functools
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from boltzbench.harness import Implementation, Inputs, Launch, Tensors, Unsupported, hookimpl
from boltzbench.kernels.ising import pack_spins, unpack_spins
from boltzbench.kernels.spin_glass import pack_walkers, unpack_walkers
from boltzbench.plugins.support.libraries import own_seed, require_graph, unavailable

BOLTZBENCH_API = 1


@functools.cache
def _checkerboard() -> tuple[Callable[..., None], Callable[..., None], Callable[..., None]]:
    """Compiled ``unpack(words, spins)``, ``sweep(spins, flips, colour)`` and ``pack(spins, words)``.

    ``flips[lattice, spin + 1, around + 4]``: the probability of a flip for the sum of the spins ``around``.
    """
    import numba
    import numpy as np

    @numba.njit(parallel=True)  # type: ignore[untyped-decorator, unused-ignore]
    def unpack(words: Any, spins: Any) -> None:
        lattices, height, width = spins.shape
        for line in numba.prange(lattices * height):
            lattice, i = line // height, line % height
            for colour in range(2):
                for half in range(width // 2):
                    up = words[lattice, colour, i, half // 32] >> (half % 32) & 1
                    spins[lattice, i, 2 * half + ((i + colour) & 1)] = 1 if up else -1

    @numba.njit(parallel=True, fastmath=True)  # type: ignore[untyped-decorator, unused-ignore]
    def sweep(spins: Any, flips: Any, colour: int) -> None:
        lattices, height, width = spins.shape
        for line in numba.prange(lattices * height):
            lattice, i = line // height, line % height
            s, p = spins[lattice], flips[lattice]
            for half in range(width // 2):
                j = 2 * half + ((i + colour) & 1)
                around = s[(i + 1) % height, j] + s[i - 1, j] + s[i, (j + 1) % width] + s[i, j - 1]
                if np.random.random() < p[s[i, j] + 1, around + 4]:
                    s[i, j] = -s[i, j]

    @numba.njit(parallel=True)  # type: ignore[untyped-decorator, unused-ignore]
    def pack(spins: Any, words: Any) -> None:
        lattices, height, width = spins.shape
        for line in numba.prange(lattices * height):
            lattice, i = line // height, line % height
            for colour in range(2):
                for word in range(words.shape[3]):
                    bits = np.uint32(0)
                    for half in range(32 * word, min(32 * word + 32, width // 2)):
                        if spins[lattice, i, 2 * half + ((i + colour) & 1)] > 0:
                            bits |= np.uint32(1) << np.uint32(half - 32 * word)
                    words[lattice, colour, i, word] = bits

    return unpack, sweep, pack


def prepare_numba(inputs: Inputs, outputs: Tensors) -> Launch:
    import numba
    import numpy as np

    if not inputs["spins"].numel():
        raise Unsupported("it takes no empty batch")
    unpack, sweep, pack = _checkerboard()
    lattices, _, height, _ = inputs["spins"].shape
    spins = np.empty((lattices, height, inputs["width"]), dtype=np.int8)
    words, result = inputs["spins"].numpy().view(np.uint32), outputs["advanced"].numpy().view(np.uint32)
    spin, around = np.arange(-1.0, 2.0)[:, None], np.arange(-4.0, 5.0)
    change = 2 * spin * (inputs["coupling"] * around + inputs["field"])  # of the energy
    change[np.abs(change) < 1e-9] = 0.0  # the rounding of a sum that is 0; beta may be infinite

    def launch() -> Tensors:
        numba.set_num_threads(min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))
        with np.errstate(over="ignore", invalid="ignore"):
            exponent = np.where(change == 0, 0.0, inputs["beta"].numpy()[:, None, None] * change)
            flips = np.exp(-exponent) if inputs["rule"] == "metropolis" else 1 / (1 + np.exp(exponent))
        unpack(words, spins)
        for _ in range(inputs["sweeps"]):
            sweep(spins, flips, 0)
            sweep(spins, flips, 1)
        pack(spins, result)
        return outputs

    launch()  # compiles
    return launch


def prepare_thrml(inputs: Inputs, outputs: Tensors) -> Launch:
    """An edge for each bond of the torus: two between the same sites where it is two sites wide or high."""
    if inputs["rule"] != "heat_bath":
        raise Unsupported("it has the heat bath only")
    if not inputs["spins"].numel():
        raise Unsupported("it takes no empty batch")
    if not bool(inputs["beta"].isfinite().all()):
        raise Unsupported("it takes no infinite inverse temperature")
    (lattices, _, height, _), width = inputs["spins"].shape, inputs["width"]
    require_graph(lattices, 2 * height * width)
    import jax
    from thrml import Block, SamplingSchedule, SpinNode, sample_states
    from thrml.models import IsingEBM, IsingSamplingProgram

    sites = [[SpinNode() for _ in range(width)] for _ in range(height)]
    places = [(i, j) for i in range(height) for j in range(width)]
    bonds = [(sites[i][j], sites[(i + a) % height][(j + b) % width]) for i, j in places for a, b in ((0, 1), (1, 0))]
    colours = [[(i, j) for i, j in places if (i + j) % 2 == colour] for colour in (0, 1)]
    blocks = [Block([sites[i][j] for i, j in own]) for own in colours]
    rows, columns = ([torch.tensor([place[axis] for place in own]) for own in colours] for axis in (0, 1))
    schedule = SamplingSchedule(n_warmup=inputs["sweeps"], n_samples=1, steps_per_sample=1)
    couplings = jax.numpy.full(len(bonds), inputs["coupling"])
    fields = jax.numpy.full(len(places), inputs["field"])

    @jax.jit  # type: ignore[untyped-decorator, unused-ignore]
    def sample(key: Any, even: Any, odd: Any, beta: Any) -> Any:
        def one(key: Any, even: Any, odd: Any, beta: Any) -> Any:
            energy = IsingEBM([sites[i][j] for i, j in places], bonds, fields, couplings, beta)
            program = IsingSamplingProgram(energy, blocks, [])
            return sample_states(key, program, schedule, [even, odd], [], blocks)

        return jax.vmap(one)(jax.random.split(key, lattices), even, odd, beta)

    keys = [jax.random.key(own_seed(inputs, "first_sweep"))]

    def launch() -> Tensors:
        keys[0], key = jax.random.split(keys[0])
        up = unpack_spins(inputs["spins"], width) > 0
        start = [jax.numpy.asarray(up[:, i, j].numpy()) for i, j in zip(rows, columns, strict=True)]
        drawn = sample(key, *start, jax.numpy.asarray(inputs["beta"].float().numpy()))
        spins = torch.empty(up.shape, dtype=torch.int8)
        for i, j, states in zip(rows, columns, drawn, strict=True):
            spins[:, i, j] = 2 * torch.utils.dlpack.from_dlpack(states[:, 0].astype("int8")) - 1
        outputs["advanced"].copy_(pack_spins(spins))
        return outputs

    launch()  # compiles
    return launch


def prepare_dwave(inputs: Inputs, outputs: Tensors) -> Launch:
    """The model is built in each launch, from the pairs with a coupling."""
    if not inputs["spins"].numel():
        raise Unsupported("it takes no empty batch")
    from dwave.samplers import SimulatedAnnealingSampler

    sampler, n = SimulatedAnnealingSampler(), len(inputs["spins"])
    criteria = {"heat_bath": "Gibbs", "metropolis": "Metropolis"}[inputs["rule"]]
    seeds = [own_seed(inputs, "first_sweep")]

    def launch() -> Tensors:
        couplings, fields = inputs["couplings"].double().triu(1), inputs["fields"]
        rows, columns = (each.tolist() for each in couplings.nonzero(as_tuple=True))
        pairs = dict(zip(zip(rows, columns, strict=True), (-couplings[couplings != 0]).tolist(), strict=True))
        seeds[0] = (seeds[0] + 1) & 0x7FFFFFFF
        found = sampler.sample_ising(
            dict.fromkeys(range(n), 0.0) if fields is None else dict(enumerate((-fields.double()).tolist())),
            pairs,
            num_reads=32 * inputs["spins"].shape[1],
            initial_states=(unpack_walkers(inputs["spins"]).numpy(), range(n)),
            initial_states_generator="none",
            beta_schedule_type="custom",
            beta_schedule=(1 / inputs["temperatures"]).numpy(),
            proposal_acceptance_criteria=criteria,
            seed=seeds[0],
        )
        outputs["annealed"].copy_(pack_walkers(torch.from_numpy(found.record.sample.copy())))
        outputs["energies"].copy_(torch.from_numpy(found.record.energy.copy()))
        return outputs

    return launch


@hookimpl
def register_implementations(register: Callable[[Implementation], None]) -> None:
    for operation, name, backend, module, distribution, prepare in (
        ("ising", "numba", "numba", "numba", "numba", prepare_numba),
        ("ising", "thrml", "jax", "thrml", "thrml", prepare_thrml),
        ("spin_glass", "dwave_samplers", "dwave", "dwave.samplers", "dwave-samplers", prepare_dwave),
    ):
        reason = partial(unavailable, module, distribution, backend, "cpu")
        register(Implementation(operation, name, backend, prepare, reason, own_stream=True))
