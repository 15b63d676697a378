"""Reads in a child process what the plugins register, so that none of their code runs in the command's own process.

The result is a registry in which functions are replaced: by `Elsewhere`, which only says what it stands for, or by a
`Table` of what the function returned in the child. A plugin whose code ends or hangs the child becomes a problem.
"""

import os
import pickle
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

from ..api.experiments import Experiment
from ..api.messages import UsageError, describe_error
from ..api.operations import Implementation, Operation
from ..api.samplers import Sampler, Target, reason_against
from ..discovery import registry as registry_module
from ..discovery.axes import with_other_sizes
from ..discovery.registry import OtherSizes, Plugin, Registry, load_registry
from ..discovery.signature import Signature, signature
from ..discovery.time_limit import TookTooLong, limited_to
from ..results.environment import cuda_unusable
from ..results.source_hash import Named, functions_behind
from .process import prepare_to_load_plugins

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    import torch


Places = dict[tuple[str, str], dict[str, str | None]]
"""Why things cannot run, by kind of device."""

T = TypeVar("T")


@dataclass(frozen=True)
class Elsewhere(Named):
    """Stands for a function of a plugin that this process has not imported."""

    behind: tuple[tuple[str, str], ...] = ()
    what: str = "a function of a plugin"

    def __call__(self, *arguments: Any) -> Any:
        raise RuntimeError(f"{self.what} exists only in the processes that load its plugin")


@dataclass(frozen=True)
class Table:
    """A function of one argument as a table: what it returned, by the argument's label, type or name."""

    what: str
    values: Mapping[str, Any] = field(default_factory=dict)
    errors: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, argument: Any) -> Any:
        key = key_of(argument)
        if key in self.errors:
            raise RuntimeError(f"{self.what} raised {self.errors[key]}")
        if key not in self.values:
            raise RuntimeError(f"{self.what} was not asked about {key}")
        return self.values[key]


def key_of(argument: Any) -> str:
    """Names a case, a device or a target in a `Table`."""
    for attribute in ("label", "type", "name"):
        if isinstance(found := getattr(argument, attribute, None), str):
            return found
    raise TypeError(f"no name: {argument!r}")


@dataclass(frozen=True)
class Catalogue:
    """What crosses the connection: the registry's parts, and problems found on the way."""

    operations: tuple[Operation, ...]
    implementations: tuple[Implementation, ...]
    plugins: tuple[Plugin, ...]
    targets: tuple[Target, ...]
    samplers: tuple[Sampler, ...]
    experiments: tuple[Experiment, ...]
    signatures: Mapping[str, Signature] = field(default_factory=dict)


def read_catalogue(
    device: str,
    *,
    where: bool = False,
    pairs: bool = False,
    many: bool = False,
    other_sizes: OtherSizes | None = None,
) -> Registry:
    """The registry of the installed plugins, without their functions. ``many`` is as in `start_server`.

    Its operations have the cases of ``other_sizes``, if given, instead of their own.

    Tables exist for the cost of cases; if ``where``, for `unavailable` and `automatic` by kind of device; if ``pairs``,
    for `unavailable` and `refuses` of samplers. Raises UsageError as `load_registry` and `with_other_sizes` do.
    """
    return _registry(_read(device, where, pairs, many, (), other_sizes), other_sizes)


def read_described(
    device: str, operations: Sequence[str], *, pairs: bool = False
) -> tuple[Registry, Mapping[str, Signature]]:
    """As `read_catalogue` with ``where``, and the signatures of those of ``operations`` that exist."""
    found = _read(device, True, pairs, False, operations, None)
    return _registry(found, None), found.signatures


def _registry(found: Catalogue, other_sizes: OtherSizes | None) -> Registry:
    return Registry(
        {each.name: each for each in found.operations},
        found.implementations,
        found.plugins,
        (),
        {each.name: each for each in found.targets},
        {each.name: each for each in found.samplers},
        {each.name: each for each in found.experiments},
        other_sizes=other_sizes,
    )


def _read(
    device: str,
    where: bool,
    pairs: bool,
    many: bool,
    described: Sequence[str],
    other_sizes: OtherSizes | None,
) -> Catalogue:
    from .child import Died, start_server  # here, because `--help` needs no multiprocessing

    start_server(__name__ if where else f"{__package__}.worker", many=many)  # `list` needs no worker after this
    broken: dict[str, str] = {}
    while True:
        current: list[str] = ["", ""]

        def note(phase: Any, current: list[str] = current) -> None:
            if isinstance(phase, tuple):
                current[:] = [str(each) for each in phase]

        try:
            return _ask(device, (where, pairs, [*described], broken, other_sizes), note)
        except Died as death:
            plugin, failure = current
            if not plugin or plugin in broken:
                raise RuntimeError(f"the plugins cannot be read: {death}") from death
            broken[plugin] = f"{failure}: {death}"


def _ask(device: str, wanted: tuple[Any, ...], note: Callable[[Any], None]) -> Catalogue:
    from .child import GRACE_SECONDS, Child

    child = Child(_serve, device, os.environ, note)
    try:
        limit = registry_module.LOADING_SECONDS
        seconds = limit + GRACE_SECONDS  # in the child, Python code is stopped first
        found = child.ask("describe", *wanted, limit, seconds=seconds, renew=True)
    finally:
        child.end()
    if not isinstance(found, Catalogue):
        raise UsageError(str(found))
    return found


def _serve(connection: "Connection", device: str) -> None:
    import torch

    from .child import answer_all

    known = "cuda:0" if torch.cuda.is_available() else "cpu"
    place = torch.device(known if device == "auto" else device)
    prepare_to_load_plugins(place)

    def announce(plugin: str, failure: str) -> None:
        connection.send(("phase", (plugin, failure)))

    def describe(
        question: str,
        where: bool,
        pairs: bool,
        described: Sequence[str],
        broken: Mapping[str, str],
        other_sizes: OtherSizes | None,
        limit: float,
    ) -> Catalogue | str:
        registry_module.LOADING_SECONDS = limit
        try:
            registry = with_other_sizes(load_registry(broken=broken, announce=announce), other_sizes)
        except UsageError as error:
            return str(error)
        describing = _Describing(registry, place, announce)
        signatures = {name: describing.signature(name) for name in described if name in registry.operations}
        return replace(describing.catalogue(where, pairs), signatures=signatures)

    answer_all(connection, describe)


def described_operation(registry: Registry, name: str, device: "torch.device") -> Operation:
    """What the catalogue says of an operation, from a registry that has imported its plugin."""
    (plugin,) = (each.label for each in registry.plugins if name in each.operations)
    return _Describing(registry, device, lambda plugin, failure: None).operation(registry.operations[name], plugin)


class _Describing:
    """Turns a registry into a catalogue, in the process that has imported the plugins."""

    def __init__(self, registry: Registry, device: "torch.device", announce: Callable[[str, str], None]) -> None:
        self._registry, self._device, self._announce = registry, device, announce
        self._names = {plugin.label: plugin.name for plugin in registry.plugins}
        self._problems: dict[str, list[str]] = {plugin.label: [] for plugin in registry.plugins}

    def catalogue(self, where: bool, pairs: bool) -> Catalogue:
        registry = self._registry
        places = self._places() if where else {}
        definers = {name: plugin.label for plugin in registry.plugins for name in plugin.operations}
        operations = self._plain(
            (self.operation(each, definers[each.name], where) for each in registry.operations.values()),
            lambda each: definers[each.name],
        )
        kept = {each.name for each in operations}
        implementations = self._plain(
            (self._implementation(each, places) for each in registry.implementations), lambda each: each.plugin
        )
        targets = self._plain(
            (
                replace(
                    each,
                    parameters={},
                    energy=cast(Any, Elsewhere(what=f"the energy of {each.name}")),
                    law=cast(Any, Elsewhere(what=f"the law of {each.name}")),
                    clamped=None,  # `refuses` of the samplers takes it into account
                )
                for each in registry.targets.values()
            ),
            lambda each: each.plugin,
        )
        samplers = self._plain(
            (self._sampler(each, places, pairs) for each in registry.samplers.values()), lambda each: each.plugin
        )
        experiments = self._plain(
            (
                replace(each, run=cast(Any, Elsewhere(what=f"experiment {each.name}")))
                for each in registry.experiments.values()
            ),
            lambda each: each.plugin,
        )
        return Catalogue(
            operations,
            tuple(each for each in implementations if each.operation in kept),
            tuple(replace(each, problems=(*each.problems, *self._problems[each.label])) for each in registry.plugins),
            targets,
            samplers,
            experiments,
        )

    def _plain(self, things: Iterable[T], plugin_of: Callable[[T], str]) -> tuple[T, ...]:
        """Those that can be sent to the parent. The others become problems of their plugins."""
        from .child import plain

        found = []
        for each in things:
            try:
                plain(pickle.dumps(each))
            except Exception as error:
                kind, name = type(each).__name__.lower(), cast(Any, each).name
                words = f"{kind} {name!r} has fields that are no plain values: {describe_error(error)}"
                self._problems[plugin_of(each)].append(f"{plugin_of(each)}: {words}")
                continue
            found.append(each)
        return tuple(found)

    def operation(self, operation: Operation, plugin: str, where: bool = False) -> Operation:
        def elsewhere(function: str) -> Any:
            return Elsewhere(what=f"{function} of {operation.name}")

        automatic: Any = None
        if operation.automatic is not None:
            function, device = operation.automatic, self._device
            words = self._words(plugin, "automatic()", lambda: function(device)) if where else ""
            automatic = Table("automatic", {device.type: words or ""})
        return replace(
            operation,
            cases=tuple(replace(case, sizes=dict(case.sizes)) for case in operation.cases),
            make_inputs=Elsewhere(_behind(operation.make_inputs), f"make_inputs of {operation.name}"),
            make_outputs=elsewhere("make_outputs"),
            reference=elsewhere("the reference"),
            cost=self._cost(operation, plugin),
            laws=tuple(replace(law, test=cast(Any, elsewhere(f"the law {law.name!r}"))) for law in operation.laws),
            judge_draws=None if operation.judge_draws is None else elsewhere("judge_draws"),
            automatic=automatic,
            case=None if operation.case is None else elsewhere("case"),
        )

    def signature(self, name: str) -> Signature:
        import torch

        self._announce(self._registry.definer(name), f"make_inputs or make_outputs of {name} failed")
        try:
            with limited_to(registry_module.LOADING_SECONDS):
                return signature(self._registry.operations[name], torch.device("cpu"))
        except (Exception, SystemExit, TookTooLong) as error:
            return Signature(problem=f"its inputs and outputs cannot be made: {describe_error(error)}")

    def _cost(self, operation: Operation, plugin: str) -> Any:
        costs, errors = {}, {}
        self._announce(self._names[plugin], f"cost of {operation.name} failed")
        for case in operation.cases:
            try:
                with limited_to(registry_module.LOADING_SECONDS):
                    costs[case.label] = operation.cost(case)
            except (Exception, SystemExit, TookTooLong) as error:
                errors[case.label] = describe_error(error)
        return Table(f"cost of {operation.name}", costs, errors)

    def _implementation(self, implementation: Implementation, places: Places) -> Implementation:
        of = f"{implementation.operation} {implementation.name}"
        build: Any = None if implementation.build is None else Elsewhere(what=f"build of {of}")
        return replace(
            implementation,
            prepare=cast(Any, Elsewhere(_behind(implementation.prepare), f"prepare of {of}")),
            unavailable=cast(
                Any, Table("unavailable()", places.get((implementation.operation, implementation.name), {}))
            ),
            variants=cast(Any, Elsewhere(what=f"variants of {of}")),
            build=build,
        )

    def _sampler(self, sampler: Sampler, places: Places, pairs: bool) -> Sampler:
        refusals: dict[str, Any] = {}
        errors: dict[str, str] = {}
        for name, target in self._registry.targets.items() if pairs else ():
            self._announce(self._names[sampler.plugin], f"refuses() of sampler {sampler.name} failed on {name}")
            try:
                with limited_to(registry_module.LOADING_SECONDS):
                    reason = reason_against(sampler, target, self._device)
                refusals[name] = reason if isinstance(reason, str) else None
            except (Exception, SystemExit, TookTooLong) as error:
                errors[name] = describe_error(error)

        def elsewhere(function: str) -> Any:
            return Elsewhere(what=f"{function} of {sampler.name}")

        return replace(
            sampler,
            init=elsewhere("init"),
            advance=elsewhere("advance"),
            dynamics=elsewhere("dynamics"),
            refuses=cast(Any, Table("refuses()", refusals, errors)),
            unavailable=cast(Any, Table("unavailable()", places.get(("", sampler.name), {self._device.type: None}))),
            accepted=None,
        )

    def _places(self) -> Places:
        """For each implementation, and for each sampler of the operation "": why it cannot run, by kind of device."""
        import torch

        no_cuda = cuda_unusable()
        places: Places = {}
        for device in (torch.device("cpu"), torch.device("cuda", 0)):
            unusable = no_cuda if device.type == "cuda" else None
            if unusable is None:
                prepare_to_load_plugins(device)
            things: list[tuple[tuple[str, str], Implementation | Sampler]] = [
                *(((each.operation, each.name), each) for each in self._registry.implementations),
                *((("", each.name), each) for each in self._registry.samplers.values()),
            ]
            for key, each in things:

                def ask(each: Implementation | Sampler = each, device: torch.device = device) -> str | None:
                    return each.unavailable(device)

                reason = unusable or self._words(each.plugin, "unavailable()", ask)
                places.setdefault(key, {})[device.type] = reason
        return places

    def _words(self, plugin: str, function: str, ask: Callable[[], str | None]) -> str | None:
        self._announce(self._names[plugin], f"{function} failed")
        try:
            with limited_to(registry_module.LOADING_SECONDS):
                words = ask()
        except (Exception, SystemExit, TookTooLong) as error:
            return f"{function} raised {describe_error(error)}"
        return None if words is None else str(words)


def _behind(function: Callable[..., Any]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(functions_behind(function)))
