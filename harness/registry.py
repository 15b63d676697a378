"""Finds the installed plugins and asks each what it brings, so that no plugin can spoil another.

pluggy alone would not do: one entry point that fails to import ends the loading of all, a name given twice is
skipped in silence, a misspelt hook goes unnoticed, and one raising hook loses what every plugin returned. So each
entry point is loaded by itself, into a plugin manager of its own, and each of its hooks is called by itself. What
goes wrong is kept as a problem of that plugin, and what that one hook call registered is dropped as a whole.
"""

import dataclasses
import inspect
import os
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from types import MappingProxyType
from typing import Any, TypeVar

import pluggy

from . import hookspecs
from .faults import (
    ceiling_faults,
    experiment_faults,
    implementation_faults,
    operation_faults,
    sampler_faults,
    target_faults,
)
from .sampling import Sampler, Target
from .time_limit import TookTooLong, limited_to
from .types import API_VERSION, RESOURCES, Ceiling, Experiment, Implementation, Operation
from .wording import UnknownName, describe_error, unknown

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
    loading = [_Loading.begin(entry_point) for entry_point in _chosen(sorted(entry_points, key=_precedence))]

    first: dict[str, _Loading] = {}
    for each in loading:
        if each.name in first:
            each.problem(f"not loaded: {first[each.name].label} has the same name")
        else:
            first[each.name] = each
            each.load()

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


def _chosen(entry_points: list[metadata.EntryPoint]) -> list[metadata.EntryPoint]:
    wanted = [name.strip() for name in os.environ.get(PLUGINS_VARIABLE, "").split(",") if name.strip()]
    if not wanted:
        return entry_points
    installed = {entry_point.name for entry_point in entry_points}
    for name in wanted:
        if name not in installed:
            raise unknown(f"plugin in {PLUGINS_VARIABLE}", name, installed)
    return [entry_point for entry_point in entry_points if entry_point.name in wanted]


@dataclass
class _Loading:
    """A plugin while it is being loaded and asked."""

    entry_point: metadata.EntryPoint
    label: str
    manager: pluggy.PluginManager | None = None  # None until, and unless, it loads
    operations: tuple[str, ...] = ()
    problems: list[str] = field(default_factory=list)

    @classmethod
    def begin(cls, entry_point: metadata.EntryPoint) -> "_Loading":
        return cls(entry_point, Plugin(entry_point.name, entry_point.value, *_origin(entry_point)).label)

    @property
    def name(self) -> str:
        return self.entry_point.name

    def end(self) -> Plugin:
        origin = _origin(self.entry_point)
        loaded = self.manager is not None
        return Plugin(self.name, self.entry_point.value, *origin, tuple(self.problems), self.operations, loaded)

    def problem(self, words: str) -> None:
        self.problems.append(f"{self.label}: {words}")

    def accepts(self, faults: Iterable[str]) -> bool:
        """Make a problem of each of ``faults``; True if there are none."""
        before = len(self.problems)
        for words in faults:
            self.problem(words)
        return len(self.problems) == before

    def load(self) -> None:
        """Import the plugin and read its hooks."""
        try:
            with limited_to(LOADING_SECONDS):
                plugin = self.entry_point.load()
        except (Exception, SystemExit, TookTooLong) as error:  # a plugin's script may well end in sys.exit()
            self.problem(f"cannot be imported from {self.entry_point.value}: {describe_error(error)}")
            return
        api = getattr(plugin, "BOLTZBENCH_API", None)
        if api is None:
            self.problem(f"not loaded: {self.entry_point.value} must state BOLTZBENCH_API = {API_VERSION}")
            return
        if type(api) is not int or api != API_VERSION:
            self.problem(
                f"not loaded: written for BOLTZBENCH_API = {reprlib.repr(api)}, while this boltzbench has {API_VERSION}"
            )
            return
        manager = pluggy.PluginManager("boltzbench")
        manager.add_hookspecs(hookspecs)
        try:
            manager.register(plugin, name=self.name)
        except Exception as error:  # a hook whose parameters are not the specification's
            self.problem(f"not loaded: {describe_error(error)}")
            return
        self.manager = manager
        self._report_hooks_that_never_run(manager, plugin)

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
            self.problem(f"brings nothing: no function of {self.entry_point.value} is marked with @hookimpl")

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
