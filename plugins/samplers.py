"""The samplers that boltzbench brings, registered by the hook that a package of your own uses.

Each keeps ``x``, ``target``, ``seed``, ``first_chain`` and ``step`` in its state, and draws all its random numbers from
the suite's stream, as a function of seed, chain, step and element.
"""

from collections.abc import Callable

from boltzbench.harness import Sampler, hookimpl
from boltzbench.kernels.dispatch import BACKENDS
from boltzbench.plugins.samplers_discrete import block_gibbs, gibbs_by_colours, ising, ising_packed
from boltzbench.plugins.samplers_langevin import psgld, sghmc, sgld
from boltzbench.plugins.samplers_metropolis import mala, metropolis

BOLTZBENCH_API = 1

SAMPLERS = (
    *(block_gibbs(backend) for backend in BACKENDS),
    *(ising(rule) for rule in ("metropolis", "heat_bath")),
    ising_packed("cupy"),  # of these two the other backends would take a minute and more on a CPU
    gibbs_by_colours("cupy"),
    *(sgld(backend) for backend in BACKENDS),
    psgld(),
    sghmc(),
    metropolis(),
    mala(),
)


@hookimpl
def register_samplers(register: Callable[[Sampler], None]) -> None:
    """The suite's samplers."""
    for sampler in SAMPLERS:
        register(sampler)
