"""The hooks that a plugin may implement, as pluggy specifications. The built-in plugins use only these.

A plugin is a module that an entry point of the group ``boltzbench`` names::

    [project.entry-points.boltzbench]
    my_samplers = "my_package.my_module"

The module states ``BOLTZBENCH_API = 1`` and marks its hooks with ``@hookimpl``. If the entry point names a package
without hooks, each module in it is a plugin, except those with names that begin with ``_``. plugins/README.md has an
example for each hook.
"""

from collections.abc import Callable

import pluggy

from .ceilings import Ceiling
from .distributed import DistributedAlgorithm
from .experiments import Experiment
from .operations import Implementation, Operation
from .samplers import Sampler, Target

hookspec = pluggy.HookspecMarker("boltzbench")
hookimpl = pluggy.HookimplMarker("boltzbench")


@hookspec
def register_operations(register: Callable[[Operation], None]) -> None:
    """Call ``register(operation)`` once for every operation that the plugin defines.

    The harness calls this hook of all plugins before any `register_implementations`. Operation names are unique over
    all plugins. As with every hook, a faulty registration becomes a problem and leaves its neighbours alone.
    """


@hookspec
def register_implementations(register: Callable[[Implementation], None]) -> None:
    """Call ``register(implementation)`` once for every implementation that the plugin provides.

    ``implementation.operation`` may name an operation of any plugin. Names are unique within an operation. Import GPU
    libraries inside ``prepare``, not here, so that a machine without them can still list the implementation.
    """


@hookspec
def register_ceilings(register: Callable[[Ceiling], None]) -> None:
    """Call ``register(ceiling)`` once for every ceiling that the plugin provides.

    ``ceiling.resource`` is one of `boltzbench.harness.RESOURCES`; names are unique within a resource. The fastest
    ceiling that runs on a device sets the limit, so a plugin can raise a limit of the suite but not lower it. Choose
    the amount so that a launch takes at least a millisecond on the largest device, and let ``unavailable`` refuse
    devices that are too small for it. Allocate everything in ``prepare``, not here.
    """


@hookspec
def register_targets(register: Callable[[Target], None]) -> None:
    """Call ``register(target)`` once for every target distribution that the plugin provides.

    Target names are unique over all plugins. `validate` runs every sampler of every plugin on the target at each of its
    ``temperatures``, unless the sampler refuses it. The strictest tests need exact draws and observables with known
    marginals.
    """


@hookspec
def register_samplers(register: Callable[[Sampler], None]) -> None:
    """Call ``register(sampler)`` once for every sampler that the plugin provides.

    Sampler names are unique over all plugins. `validate` runs the sampler on the targets of every plugin; let
    ``refuses`` return the reason for each target that it does not support. Random numbers must be a function of seed,
    chain, step and element alone.
    """


@hookspec
def register_experiments(register: Callable[[Experiment], None]) -> None:
    """Call ``register(experiment)`` once for every experiment that the plugin provides.

    Experiment names are unique over all plugins. `validate` runs the experiments after the samplers and tests each
    estimate against its exact value; `report` draws their plots and pictures.
    """


@hookspec
def register_distributed(register: Callable[[DistributedAlgorithm], None]) -> None:
    """Call ``register(algorithm)`` once for every algorithm over many processes that the plugin provides.

    Names are unique over all plugins. `distributed` runs each on all ranks, compares the bits of its result with those
    of one rank, and times both. Random numbers must be named by chain, replica or site, and never by rank.
    """
