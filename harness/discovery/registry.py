"""Finds the installed plugins and asks each what it brings, so that no plugin can spoil another.

pluggy alone would not do: one entry point that fails to import ends the loading of all, a name given twice is
skipped in silence, a misspelt hook goes unnoticed, and one raising hook loses what every plugin returned. So each
entry point is loaded by itself, into a plugin manager of its own, and each of its hooks is called by itself. What
goes wrong is kept as a problem of that plugin, and what that one hook call registered is dropped as a whole.
"""

import dataclasses
import importlib
import inspect
import os
import pkgutil
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata
from types import MappingProxyType
from typing import Any, TypeVar

import pluggy

from ..api import hookspecs
from ..api.ceilings import RESOURCES, Ceiling
from ..api.experiments import Experiment
from ..api.messages import UnknownName, describe_error, unknown
from ..api.operations import API_VERSION, Implementation, Operation
from ..api.samplers import Sampler, Target
from .faults import (
    ceiling_faults,
    experiment_faults,
    implementation_faults,
    operation_faults,
    sampler_faults,
    target_faults,
)
from .time_limit import TookTooLong, limited_to

__all__ = ["ENTRY_POINT_GROUP", "PLUGINS_VARIABLE", "Plugin", "Registry", "UnknownName", "load_registry"]

ENTRY_POINT_GROUP = "boltzbench"
PLUGINS_VARIABLE = "BOLTZBENCH_PLUGINS"
"""Environment variable: the entry-point names to load, separated by commas. Unset or empty: all."""

LOADING_SECONDS = 60.0
"""How long the import of a plugin may take, and each of its hooks."""

T = TypeVar("T", Operation, Implementation, Ceiling, Target, Sampler, Experiment)


@dataclass(frozen=True)
class Plugin:
    """One entry point: where it comes from, the operations it defined, and what was wrong with it."""

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
class Registry:
    """All that the plugins brought. An operation's implementations are in order: torch first, then by name.

    The ceilings are in the order of `RESOURCES`, then by name; targets, samplers and experiments, by
    name, in that of the plugins.
    """

    operations: Mapping[str, Operation]
    implementations: tuple[Implementation, ...]
    plugins: tuple[Plugin, ...]
    ceilings: tuple[Ceiling, ...] = ()
    targets: Mapping[str, Target] = field(default_factory=dict)
    samplers: Mapping[str, Sampler] = field(default_factory=dict)
    experiments: Mapping[str, Experiment] = field(default_factory=dict)

    @property
    def problems(self) -> tuple[str, ...]:
        return tuple(problem for plugin in self.plugins for problem in plugin.problems)

    @property
    def loaded(self) -> tuple[str, ...]:
        """The names of the plugins that could be loaded."""
        return tuple(plugin.name for plugin in self.plugins if plugin.loaded)

    def implementations_of(self, operation: str) -> list[Implementation]:
        return [each for each in self.implementations if each.operation == operation]

    def select(
        self, operations: Sequence[str] = (), implementations: Sequence[str] = ()
    ) -> list[tuple[Operation, list[Implementation]]]:
        """The operations and implementations of these names; none given means all.

        Raises UnknownName for an operation that no plugin defines, and for an implementation that none of the
        chosen operations has.
        """
        for name in operations:
            if name not in self.operations:
                raise unknown("operation", name, self.operations)
        chosen = [each for name, each in self.operations.items() if not operations or name in operations]
        names = {each.name for operation in chosen for each in self.implementations_of(operation.name)}
        for name in implementations:
            if name not in names:
                of = f" of {', '.join(operations)}" if operations else ""
                raise unknown(f"implementation{of}", name, names)
        if not implementations:
            return [(operation, self.implementations_of(operation.name)) for operation in chosen]
        matching = [
            (operation, [each for each in self.implementations_of(operation.name) if each.name in implementations])
            for operation in chosen
        ]
        return [(operation, found) for operation, found in matching if found]


def load_registry(entry_points: Iterable[metadata.EntryPoint] | None = None) -> Registry:
    """Load the plugins that ``entry_points`` name; by default those of every installed distribution.

    Never raises for what a plugin does: see `Registry.problems`. Raises UnknownName if the environment variable
    ``BOLTZBENCH_PLUGINS`` asks for a plugin that is not installed.
    """
    if entry_points is None:
        entry_points = metadata.entry_points(group=ENTRY_POINT_GROUP)
    loading = _loaded(sorted(entry_points, key=_precedence))

    operations: dict[str, Operation] = {}
    for each in loading:
        given = each.call("register_operations", Operation)
        if each.accepts(operation_faults(given, operations)):
            operations.update({operation.name: operation for operation in given})
            each.operations = tuple(operation.name for operation in given)

    implementations: dict[tuple[str, str], Implementation] = {}
    for each in loading:
        brought = each.call("register_implementations", Implementation)
        if each.accepts(implementation_faults(brought, operations, implementations)):
            for one in brought:
                implementations[one.operation, one.name] = dataclasses.replace(one, plugin=each.label)

    ceilings: dict[tuple[str, str], Ceiling] = {}
    for each in loading:
        limits = each.call("register_ceilings", Ceiling)
        if each.accepts(ceiling_faults(limits, ceilings)):
            for limit in limits:
                ceilings[limit.resource, limit.name] = dataclasses.replace(limit, plugin=each.label)

    targets: dict[str, Target] = {}
    for each in loading:
        laws = each.call("register_targets", Target)
        if each.accepts(target_faults(laws, targets)):
            targets.update({law.name: dataclasses.replace(law, plugin=each.label) for law in laws})

    samplers: dict[str, Sampler] = {}
    for each in loading:
        found = each.call("register_samplers", Sampler)
        if each.accepts(sampler_faults(found, samplers)):
            samplers.update({one.name: dataclasses.replace(one, plugin=each.label) for one in found})

    experiments: dict[str, Experiment] = {}
    for each in loading:
        questions = each.call("register_experiments", Experiment)
        if each.accepts(experiment_faults(questions, experiments)):
            experiments.update({one.name: dataclasses.replace(one, plugin=each.label) for one in questions})

    rank = {name: position for position, name in enumerate(operations)}
    ordered = sorted(implementations.values(), key=lambda i: (rank[i.operation], i.backend != "torch", i.name))
    resources = list(RESOURCES)
    limits = sorted(ceilings.values(), key=lambda c: (resources.index(c.resource), c.name))
    plugins = tuple(each.end() for each in loading)
    return Registry(
        MappingProxyType(operations), tuple(ordered), plugins, tuple(limits), MappingProxyType(targets),
        MappingProxyType(samplers), MappingProxyType(experiments),
    )  # fmt: skip


def _origin(entry_point: metadata.EntryPoint) -> tuple[str, str]:
    distribution = entry_point.dist
    return (distribution.name, distribution.version) if distribution else ("unknown distribution", "?")


def _precedence(entry_point: metadata.EntryPoint) -> tuple[bool, str, str, str]:
    # The suite's own plugins come first: whoever takes a name that is taken already is the one refused.
    distribution, _ = _origin(entry_point)
    return distribution != "boltzbench", distribution, entry_point.name, entry_point.value


def _loaded(entry_points: Sequence[metadata.EntryPoint]) -> list["_Loading"]:
    """The plugins that the environment variable names, or all: imported, with packages replaced by their modules."""
    wanted = [name.strip() for name in os.environ.get(PLUGINS_VARIABLE, "").split(",") if name.strip()]
    pending = [
        _Loading(entry_point.name, entry_point.value, _origin(entry_point), entry_point.load)
        for entry_point in entry_points
        if not wanted or any(_lies_in(entry_point.name, name) or _lies_in(name, entry_point.name) for name in wanted)
    ]
    loading: list[_Loading] = []
    first: dict[str, _Loading] = {}
    while pending:
        each = pending.pop(0)
        if each.name in first:
            each.problem(f"not loaded: {first[each.name].label} has the same name")
        else:
            first[each.name] = each
            parts = each.load()
            if parts is not None:
                pending[:0] = parts
                continue
        loading.append(each)
    for name in wanted:
        if not any(_lies_in(each, name) for each in first):
            raise unknown(f"plugin in {PLUGINS_VARIABLE}", name, [*first, *(each.name for each in entry_points)])
    return [each for each in loading if not wanted or any(_lies_in(each.name, name) for name in wanted)]


def _lies_in(name: str, around: str) -> bool:
    """Whether the plugin ``name`` is ``around`` or stands in the package of that name."""
    return f"{name}.".startswith(f"{around}.")


@dataclass
class _Loading:
    """A plugin while it is being loaded and asked."""

    name: str
    module: str
    origin: tuple[str, str]
    importer: Callable[[], Any]
    manager: pluggy.PluginManager | None = None  # None until, and unless, it loads
    operations: tuple[str, ...] = ()
    problems: list[str] = field(default_factory=list)

    @property
    def label(self) -> str:
        return self.end().label

    def end(self) -> Plugin:
        loaded = self.manager is not None
        return Plugin(self.name, self.module, *self.origin, tuple(self.problems), self.operations, loaded)

    def problem(self, words: str) -> None:
        self.problems.append(f"{self.label}: {words}")

    def accepts(self, faults: Iterable[str]) -> bool:
        """Make a problem of each of ``faults``; True if there are none."""
        before = len(self.problems)
        for words in faults:
            self.problem(words)
        return len(self.problems) == before

    def load(self) -> list["_Loading"] | None:
        """Import the plugin and read its hooks. Of a package of plugins, return its modules instead."""
        try:
            with limited_to(LOADING_SECONDS):
                plugin = self.importer()
        except (Exception, SystemExit, TookTooLong) as error:  # a plugin's script may well end in sys.exit()
            self.problem(f"cannot be imported from {self.module}: {describe_error(error)}")
            return None
        api = getattr(plugin, "BOLTZBENCH_API", None)
        if api is None:
            if parts := self._parts(plugin):
                return parts
            self.problem(f"not loaded: {self.module} must state BOLTZBENCH_API = {API_VERSION}")
            return None
        if type(api) is not int or api != API_VERSION:
            self.problem(
                f"not loaded: written for BOLTZBENCH_API = {reprlib.repr(api)}, while this boltzbench has {API_VERSION}"
            )
            return None
        manager = pluggy.PluginManager("boltzbench")
        manager.add_hookspecs(hookspecs)
        try:
            manager.register(plugin, name=self.name)
        except Exception as error:  # a hook whose parameters are not the specification's
            self.problem(f"not loaded: {describe_error(error)}")
            return None
        self.manager = manager
        self._report_hooks_that_never_run(manager, plugin)
        return None

    def _parts(self, package: Any) -> list["_Loading"]:
        """The modules of a package that has no hook of its own, but for those whose names begin with ``_``."""
        if any(name.startswith("register_") for name in vars(package)):
            return []
        names = sorted(each.name for each in pkgutil.iter_modules(getattr(package, "__path__", ())))
        return [
            _Loading(f"{self.name}.{name}", module, self.origin, partial(importlib.import_module, module))
            for name in names
            if not name.startswith("_")
            for module in [f"{self.module}.{name}"]
        ]

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
        """What the plugin registers in this hook; nothing, and a problem, if the call goes wrong."""
        if self.manager is None:
            return []
        given: list[T] = []
        refused: list[TypeError] = []  # kept, because the plugin may catch what register raises

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
            self.manager = None  # it is asked nothing more, nor loaded by a worker
        if refused:
            fault = f"TypeError: {refused[0]}"
        if fault:
            self.problem(f"{hook} failed: {fault}")
            return []
        if returned:
            self.problem(f"{hook} must call register and return None: {_what_was_returned(returned)}")
            return []
        return given


def _what_was_returned(returned: Any) -> str:
    value = returned[0] if isinstance(returned, list) else returned
    if inspect.iscoroutine(value):
        value.close()  # or Python warns that it was never awaited
        return "it is a coroutine function (async def), which is not run"
    if inspect.isgenerator(value) or inspect.isasyncgen(value):
        return "it is a generator function (it has a yield), which is not run"
    return f"it returned {reprlib.repr(value)}"
