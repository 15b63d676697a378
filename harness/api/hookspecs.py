"""The hooks that a plugin may implement, in pluggy's terms. The built-in plugins use these and nothing else.

A plugin is a module (or an installed package's module) named by an entry point of the group ``boltzbench``::

    [project.entry-points.boltzbench]
    my_samplers = "my_package.my_module"

The module states ``BOLTZBENCH_API = 1`` and marks its functions with ``@hookimpl``. plugins/README.md has a plugin to
read for each hook.
"""

from collections.abc import Callable

import pluggy

from .ceilings import Ceiling
from .experiments import Experiment
from .operations import Implementation, Operation
from .samplers import Sampler, Target

hookspec = pluggy.HookspecMarker("boltzbench")
hookimpl = pluggy.HookimplMarker("boltzbench")


@hookspec
def register_operations(register: Callable[[Operation], None]) -> None:
    """Call ``register(operation)`` once for every operation that the plugin defines.

    Called once, before any implementation is asked for. Operation names are unique over all plugins.
    """


@hookspec
def register_implementations(register: Callable[[Implementation], None]) -> None:
    """Call ``register(implementation)`` once for every implementation that the plugin brings.

    ``implementation.operation`` may name an operation of any plugin. Names are unique within an operation. Import a
    GPU library inside ``prepare``, not here, so that a machine without it can still list the implementation.
    """


@hookspec
def register_ceilings(register: Callable[[Ceiling], None]) -> None:
    """Call ``register(ceiling)`` once for every way to drive a limit of the hardware that the plugin brings.

    ``ceiling.resource`` is one of `boltzbench.harness.RESOURCES`, and its name is unique within a resource. Of all
    that can be measured on a device the best one is the ceiling, so a plugin can raise one of the suite's but not
    lower it. Choose the amount so that a launch takes a millisecond or more on the largest device, and let
    ``unavailable`` refuse devices for which it is too much. Everything is allocated in ``prepare``, not here.
    """


@hookspec
def register_targets(register: Callable[[Target], None]) -> None:
    """Call ``register(target)`` once for every law to sample from that the plugin brings.

    Target names are unique over all plugins. Every sampler of every plugin is tried on the target at each of its
    ``temperatures``, unless the sampler refuses it. A law with exact draws and known projections puts samplers to the
    hardest test.
    """


@hookspec
def register_samplers(register: Callable[[Sampler], None]) -> None:
    """Call ``register(sampler)`` once for every sampler that the plugin brings.

    Sampler names are unique over all plugins. It is tried on the targets of every plugin; let ``refuses`` give the
    reason for those that it is not made for. Randomness must be a function of seed, chain, step and element alone.
    """


@hookspec
def register_experiments(register: Callable[[Experiment], None]) -> None:
    """Call ``register(experiment)`` once for every experiment that the plugin brings.

    Experiment names are unique over all plugins. `validate` runs them after the samplers and holds each estimate to
    its exact value; `report` draws their plots and pictures.
    """
