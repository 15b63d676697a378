"""Finds the installed plugins and loads each one separately, so that a faulty plugin cannot affect the others.

pluggy alone does not suffice. One entry point that fails to import ends the loading of all others. A duplicate name is
skipped silently, a misspelt hook is never noticed, and a hook that raises discards what every other plugin returned.
Here each plugin has its own plugin manager, and each of its hooks is called separately. A failure becomes a problem of
that plugin. A faulty registration is dropped alone, and a hook that raises keeps what it has registered until then.
"""

import dataclasses
import importlib
import inspect
import os
import pkgutil
import reprlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata
from types import MappingProxyType
from typing import Any, Literal

import pluggy

from ..api import hookspecs
from ..api.ceilings import RESOURCES, Ceiling
from ..api.distributed import DistributedAlgorithm
from ..api.experiments import Experiment
from ..api.messages import UnknownName, describe_error, unknown, unknown_beside
from ..api.operations import API_VERSION, Implementation, Operation
from ..api.samplers import Sampler, Target
from .faults import T, key_of, registration_faults
from .time_limit import TookTooLong, limited_to

__all__ = ["ENTRY_POINT_GROUP", "PLUGINS_VARIABLE", "Plugin", "Registry", "UnknownName", "load_registry"]

ENTRY_POINT_GROUP = "boltzbench"
PLUGINS_VARIABLE = "BOLTZBENCH_PLUGINS"
"""Environment variable: the plugins to load, separated by commas. Unset or empty: all.

A name is that of an entry point, or the dotted name of a subpackage or module in its package, such as
``operations.rows.logsumexp``.
"""

LOADING_SECONDS = 60.0
"""Time limit for the import of a plugin, and for each of its hooks."""

_TYPES: dict[str, type[Any]] = {
    "register_operations": Operation,
    "register_implementations": Implementation,  # after all operations, which they name
    "register_ceilings": Ceiling,
    "register_targets": Target,
    "register_samplers": Sampler,
    "register_experiments": Experiment,
    "register_distributed": DistributedAlgorithm,
}
"""What each hook registers, in the order in which the hooks are called."""


@dataclass(frozen=True)
class Plugin:
    """One plugin: where it comes from, the operations it defines, and what went wrong with it."""

    name: str
    module: str
    distribution: str
    version: str
    problems: tuple[str, ...] = ()
    operations: tuple[str, ...] = ()
    loaded: bool = True

    @property
    def label(self) -> str:
        """``sgld (boltzbench 0.1.0)``"""
        return f"{self.name} ({self.distribution} {self.version})"


@dataclass(frozen=True)
class OtherSizes:
    """The cases that take the place of an operation's own: each of the ``sizes`` in each dtype and scenario.

    Without dtypes and scenarios they are those that the operation chooses. Without ``operations``, all are meant.
    """

    sizes: tuple[Mapping[str, int], ...]
    dtypes: tuple[str, ...] = ()
    scenarios: tuple[str, ...] = ()
    operations: tuple[str, ...] = ()
    purpose: Literal["check", "bench"] = "check"


@dataclass(frozen=True)
class Registry:
    """Everything that the plugins registered.

    Operations, targets, samplers and experiments are in the order of the plugins. Implementations are in the order of
    the operations, torch first, then by name; ceilings in the order of `RESOURCES`, then by name. ``other_sizes`` are
    those that `axes.with_other_sizes` gave to the operations.
    """

    operations: Mapping[str, Operation]
    implementations: tuple[Implementation, ...]
    plugins: tuple[Plugin, ...]
    ceilings: tuple[Ceiling, ...] = ()
    targets: Mapping[str, Target] = field(default_factory=dict)
    samplers: Mapping[str, Sampler] = field(default_factory=dict)
    experiments: Mapping[str, Experiment] = field(default_factory=dict)
    distributed: Mapping[str, DistributedAlgorithm] = field(default_factory=dict)
    other_sizes: OtherSizes | None = None

    @property
    def problems(self) -> tuple[str, ...]:
        return tuple(problem for plugin in self.plugins for problem in plugin.problems)

    @property
    def loaded(self) -> tuple[str, ...]:
        """The names of the plugins that could be loaded."""
        return tuple(plugin.name for plugin in self.plugins if plugin.loaded)

    def needed_by(self, implementation: Implementation) -> tuple[str, ...]:
        """The names of the plugins to load for an implementation: its own, and the definers of all operations that its
        plugin names, since one process may run all implementations of a plugin."""
        own = [plugin for plugin in self.plugins if plugin.label == implementation.plugin]
        operations = {each.operation for each in self.implementations if each.plugin == implementation.plugin}
        return tuple(each.name for each in self.plugins if each in own or operations & {*each.operations})

    def definer(self, operation: str) -> str:
        """The name of the plugin that defines an operation."""
        return next(plugin.name for plugin in self.plugins if operation in plugin.operations)

    def implementations_of(self, operation: str) -> list[Implementation]:
        return [each for each in self.implementations if each.operation == operation]

    def select(
        self, operations: Sequence[str] = (), implementations: Sequence[str] = ()
    ) -> list[tuple[Operation, list[Implementation]]]:
        """The operations and implementations of these names; an empty sequence selects all.

        Raises UnknownName for an operation that no plugin defines, and for an implementation that none of the
        chosen operations has. The message includes the problems of all plugins, since a failed plugin may have
        defined the missing name.
        """
        for name in operations:
            if name not in self.operations:
                raise unknown_beside(self.problems, "operation", name, self.operations)
        chosen = [each for name, each in self.operations.items() if not operations or name in operations]
        names = {each.name for operation in chosen for each in self.implementations_of(operation.name)}
        for name in implementations:
            if name not in names:
                of = f" of {', '.join(operations)}" if operations else ""
                raise unknown_beside(self.problems, f"implementation{of}", name, names)
        if not implementations:
            return [(operation, self.implementations_of(operation.name)) for operation in chosen]
        matching = [
            (operation, [each for each in self.implementations_of(operation.name) if each.name in implementations])
            for operation in chosen
        ]
        return [(operation, found) for operation, found in matching if found]


def load_registry(
    entry_points: Iterable[metadata.EntryPoint] | None = None,
    *,
    broken: Mapping[str, str] | None = None,
    announce: Callable[[str, str], None] = lambda plugin, failure: None,
) -> Registry:
    """Load the plugins that ``entry_points`` name; by default those of every installed distribution.

    An entry point may also name a package that registers nothing itself: then each of its modules is a plugin, except
    those with names that begin with ``_``.

    ``announce`` is called with the name of a plugin before its code runs, and with what failed if that code never
    returns. ``broken`` plugins are not loaded: it gives the problem of each.

    What a plugin does wrong raises nothing here: see `Registry.problems`. Raises UnknownName if the environment
    variable ``BOLTZBENCH_PLUGINS`` names a plugin that is not installed.
    """
    if entry_points is None:
        entry_points = metadata.entry_points(group=ENTRY_POINT_GROUP)
    loading = _load_plugins(sorted(entry_points, key=_precedence), broken or {}, announce)
    registered: dict[type[Any], dict[Any, Any]] = {kind: {} for kind in _TYPES.values()}
    for hook, kind in _TYPES.items():
        for plugin in loading:
            if plugin.loaded:
                announce(plugin.name, f"{hook} failed")
            given = plugin.call(hook, kind)
            given = plugin.without_faulty(given, registration_faults(kind, given, registered))
            if kind is Operation:  # it has no field for the plugin's name
                plugin.operations = tuple(operation.name for operation in given)
            else:
                given = [dataclasses.replace(each, plugin=plugin.label) for each in given]
            registered[kind].update({key_of(each): each for each in given})

    operations, resources = list(registered[Operation]), list(RESOURCES)
    implementations = sorted(
        registered[Implementation].values(),
        key=lambda each: (operations.index(each.operation), each.backend != "torch", each.name),
    )
    ceilings = sorted(registered[Ceiling].values(), key=lambda each: (resources.index(each.resource), each.name))
    return Registry(
        MappingProxyType(registered[Operation]),
        tuple(implementations),
        tuple(plugin.result() for plugin in loading),
        tuple(ceilings),
        MappingProxyType(registered[Target]),
        MappingProxyType(registered[Sampler]),
        MappingProxyType(registered[Experiment]),
        MappingProxyType(registered[DistributedAlgorithm]),
    )


def _origin(entry_point: metadata.EntryPoint) -> tuple[str, str]:
    distribution = entry_point.dist  # without a name while pip is replacing it
    return (distribution and distribution.name) or "unknown distribution", distribution.version if distribution else "?"


def _precedence(entry_point: metadata.EntryPoint) -> tuple[bool, str, str, str]:
    # The suite's own plugins come first: of two plugins that register the same name, the later one is refused.
    distribution, _ = _origin(entry_point)
    return distribution != "boltzbench", distribution, entry_point.name, entry_point.value


def _load_plugins(
    entry_points: Sequence[metadata.EntryPoint], broken: Mapping[str, str], announce: Callable[[str, str], None]
) -> list["_Loading"]:
    """Import all plugins, or those that the environment variable names. Modules take the place of their package."""
    wanted = [name.strip() for name in os.environ.get(PLUGINS_VARIABLE, "").split(",") if name.strip()]
    pending = [
        _Loading(entry_point.name, entry_point.value, _origin(entry_point), entry_point.load)
        for entry_point in entry_points
    ]
    known: list[str] = []
    first: dict[str, _Loading] = {}
    finished: list[_Loading] = []
    while pending:
        each = pending.pop(0)
        known.append(each.name)
        if wanted and not any(_is_within(each.name, name) or _is_within(name, each.name) for name in wanted):
            continue
        if each.name in first:
            each.problem(f"not loaded: {first[each.name].label} has the same name")
        else:
            first[each.name] = each
            if each.name in broken:
                each.problem(broken[each.name])
                finished.append(each)
                continue
            announce(each.name, f"cannot be imported from {each.module}")
            if modules := each.load():
                pending[:0] = modules
                continue
        finished.append(each)
    for name in wanted:
        if not any(_is_within(each, name) for each in first):
            problems = [problem for each in finished for problem in each.problems]
            raise unknown_beside(problems, f"plugin in {PLUGINS_VARIABLE}", name, known)
    return [each for each in finished if not wanted or any(_is_within(each.name, name) for name in wanted)]


def _is_within(name: str, package: str) -> bool:
    """Whether ``name`` is the plugin ``package`` or a module in the package of that name."""
    return f"{name}.".startswith(f"{package}.")


@dataclass
class _Loading:
    """A plugin during loading."""

    name: str
    module: str
    origin: tuple[str, str]
    importer: Callable[[], Any]
    package: str = ""
    manager: pluggy.PluginManager | None = None  # set only if loading succeeds
    operations: tuple[str, ...] = ()
    problems: list[str] = field(default_factory=list)

    @property
    def loaded(self) -> bool:
        return self.manager is not None

    @property
    def label(self) -> str:
        return self.result().label

    def result(self) -> Plugin:
        return Plugin(self.name, self.module, *self.origin, tuple(self.problems), self.operations, self.loaded)

    def problem(self, words: str) -> None:
        self.problems.append(f"{self.label}: {words}")

    def without_faulty(self, given: Sequence[T], faults: Iterable[tuple[int, str]]) -> list[T]:
        """The sound registrations of ``given``; each of the ``faults``, of the one at a place, becomes a problem."""
        found = [*faults]
        for _, sentence in found:
            self.problem(sentence)
        faulty = {place for place, _ in found}
        return [each for place, each in enumerate(given) if place not in faulty]

    def load(self) -> list["_Loading"]:
        """Import the plugin and find its hooks. If it is a package of plugins, return its modules instead."""
        try:
            with limited_to(LOADING_SECONDS):
                plugin = self.importer()
        except (Exception, SystemExit, TookTooLong) as error:  # a script may well end in sys.exit()
            self.problem(f"cannot be imported from {self.module}: {describe_error(error)}")
            return []
        api = getattr(plugin, "BOLTZBENCH_API", None)
        has_hooks = any(name.startswith("register_") for name in dir(plugin))
        if api is None and not has_hooks and hasattr(plugin, "__path__"):
            modules = [*self._modules(plugin)]
            if not modules:
                self.problem(
                    f"brings nothing: package {self.module} has neither hooks nor modules (names that begin with _ do "
                    f"not count); add a module that states BOLTZBENCH_API = {API_VERSION}"
                )
            return modules
        if api is None:
            where = f"module {self.module} of package {self.package}" if self.package else self.module
            advice = "" if has_hooks or not self.package else "; or begin its name with _ if it is no plugin"
            self.problem(f"not loaded: {where} must state BOLTZBENCH_API = {API_VERSION}{advice}")
            return []
        if type(api) is not int or api != API_VERSION:
            self.problem(
                f"not loaded: {self.module} is written for BOLTZBENCH_API = {reprlib.repr(api)}, while this boltzbench "
                f"has {API_VERSION}; install a version of the plugin for it"
            )
            return []
        manager = pluggy.PluginManager("boltzbench")
        manager.add_hookspecs(hookspecs)
        try:
            manager.register(plugin, name=self.name)
        except Exception as error:  # a hook whose parameters differ from the specification
            self.problem(f"not loaded: {describe_error(error)}")
            return []
        self.manager = manager
        self._report_hooks_that_never_run(manager, plugin)
        return []

    def _modules(self, package: Any) -> Iterator["_Loading"]:
        """The plugins in a package: its modules and subpackages, except those with names that begin with ``_``."""
        for name in sorted(each.name for each in pkgutil.iter_modules(package.__path__)):
            if not name.startswith("_"):
                module = f"{package.__name__}.{name}"
                importer = partial(importlib.import_module, module)
                yield _Loading(f"{self.name}.{name}", module, self.origin, importer, package.__name__)

    def _report_hooks_that_never_run(self, manager: pluggy.PluginManager, plugin: Any) -> None:
        known = [name for name in vars(hookspecs) if name.startswith("register_")]
        marked = [
            caller.name
            for caller in manager.get_hookcallers(plugin) or []
            if not all(implementation.optionalhook for implementation in caller.get_hookimpls())
        ]
        unmarked = [name for name in known if name not in marked and hasattr(plugin, name)]
        for name in marked:
            if name not in known:
                self.problem(f"hook never called: {unknown('hook', name, known)}")
        for name in unmarked:
            self.problem(f"hook never called: {name} lacks @hookimpl")
        if not marked and not unmarked:
            self.problem(f"brings nothing: no function of {self.module} is marked with @hookimpl")

    def call(self, hook: str, expected: type[T]) -> list[T]:
        """What the plugin registers in this hook; if the call fails, until then, and the failure becomes a problem."""
        if self.manager is None:
            return []
        given: list[T] = []
        refused: list[TypeError] = []  # kept, because the plugin may catch what `register` raises

        def register(thing: T) -> None:
            if not isinstance(thing, expected):
                kind = type(thing).__name__
                article = "an" if expected.__name__[0] in "IO" else "a"
                words = f"register takes {article} {expected.__name__}, got {reprlib.repr(thing)} ({kind})"
                refused.append(TypeError(words))
                raise refused[-1]
            given.append(thing)

        returned, fault = None, ""
        try:
            with limited_to(LOADING_SECONDS):
                returned = getattr(self.manager.hook, hook)(register=register)
        except (Exception, SystemExit) as error:
            fault = describe_error(error)
        except TookTooLong as error:
            fault = describe_error(error)
            self.manager = None  # no other hook is called, and no worker loads it
            given.clear()
        if refused:
            fault = f"TypeError: {refused[0]}"
        if fault:
            fault = f"{hook} failed: {fault}"
        elif returned:
            fault = f"{hook} must call register and return None: {_what_was_returned(returned)}"
        if fault:
            kept = ", ".join(str(each.name) for each in given)
            self.problem(fault + (f"; it had registered {kept}, and nothing after" if kept and not returned else ""))
        return given


def _what_was_returned(returned: Any) -> str:
    value = returned[0] if isinstance(returned, list) else returned
    if inspect.iscoroutine(value):
        value.close()  # or Python warns that it was never awaited
        return "it is a coroutine function (async def), which is not run"
    if inspect.isgenerator(value) or inspect.isasyncgen(value):
        return "it is a generator function (it has a yield), which is not run"
    return f"it returned {reprlib.repr(value)}"
