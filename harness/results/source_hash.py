"""A hash of the source behind an implementation, which changes with that source and with no other.

The modules are located and read but never imported, so imports inside functions count too.
"""

import ast
import functools
import hashlib
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from importlib.util import resolve_name
from pathlib import Path
from typing import Any

HARNESS = __package__.rpartition(".")[0]
"""Excluded: the harness is not part of a kernel's source. `environment` records its hash."""

SUITE = HARNESS.partition(".")[0]
_INCLUDE = re.compile(r'^#include "(\w+)/([^"/]+)"', re.MULTILINE)
DEVICE_SOURCES = ("*.cu", "*.cuh", "*.cpp", "*.hpp")


def source_hash(*functions: Callable[..., Any]) -> str:
    """16 hexadecimal digits for the source behind ``functions``, such as an implementation's ``prepare``.

    A `functools.partial` counts as its function and those of its arguments that are functions of the same
    distribution. The file of a function counts as a whole. Of its imports only those count that the function reaches by
    name, because one file may implement several operations. From there on all imports are followed, including those
    inside functions, into the function's top-level package and into boltzbench without its harness.

    A package counts as a whole if something other than a module is imported from it, since it may load its modules by
    name. CUDA C and C++ files beside a counted module count too, and headers that they include from other folders. A
    module without a file counts by its name. Hashes are cached: later changes of a file are not noticed.
    """
    behind = sorted(set().union(*map(functions_behind, functions)))
    return _combined((f"{module} {name}", _function_hash(module, name)) for module, name in behind)


@dataclass(frozen=True)
class Named:
    """Stands for a function by the modules and names of its source: see `functions_behind`."""

    behind: tuple[tuple[str, str], ...]


def files_hash(files: Mapping[str, Path]) -> str:
    """16 hexadecimal digits for the contents of ``files`` and their names (the keys), independent of their paths."""
    return _combined((name, hashlib.sha256(files[name].read_bytes()).hexdigest()) for name in sorted(files))


def _combined(parts: Iterable[tuple[str, str]]) -> str:
    return hashlib.sha256("\n".join(f"{name} {digest}" for name, digest in parts).encode()).hexdigest()[:16]


def functions_behind(function: Any) -> set[tuple[str, str]]:
    """Module and top-level name of a function, or of all functions in a `functools.partial`.

    What stands for a function of another process knows them: it has them as ``behind``.
    """
    if isinstance(function, Named):
        return set(function.behind)
    if not isinstance(function, functools.partial):
        inner = inspect.unwrap(function)
        named = inner if hasattr(inner, "__qualname__") else type(inner)
        return {(named.__module__ or type(named).__module__, named.__qualname__.partition(".")[0])}
    found = functions_behind(function.func)
    tops = {module.partition(".")[0] for module, _ in found}
    for argument in (*function.args, *function.keywords.values()):
        if callable(argument):
            found |= {each for each in functions_behind(argument) if each[0].partition(".")[0] in tops}
    return found


@functools.cache
def _function_hash(module: str, name: str) -> str:
    files = _files_behind(module, name)
    return files_hash(files) if files else module


def _files_behind(module: str, function: str) -> dict[str, Path]:
    """The files behind ``function`` of ``module``, by names that do not depend on the place of installation."""
    followed = {module.partition(".")[0], SUITE}
    files: dict[str, Path] = {}
    seen: set[tuple[str, bool, str]] = set()
    todo = [(module, True, function)]
    while todo:
        place = name, whole, start = todo.pop()
        if place in seen or name.partition(".")[0] not in followed or f"{name}.".startswith(f"{HARNESS}."):
            continue
        seen.add(place)
        todo.append((name.rpartition(".")[0], False, ""))  # importing a module also runs its parent packages
        spec = _find(name)
        if spec is None or not spec.has_location or spec.origin is None:
            continue
        path, is_package = Path(spec.origin), spec.submodule_search_locations is not None
        package = name if is_package else name.rpartition(".")[0]
        for each in (path, *(each for pattern in DEVICE_SOURCES for each in path.parent.glob(pattern))):
            files[f"{package}/{each.name}"] = each
            for folder, header in _INCLUDE.findall(each.read_text(errors="replace")) if each != path else ():
                if (beside := path.parents[1] / folder / header).is_file():
                    files[f"{package.rpartition('.')[0]}.{folder}/{header}"] = beside
        if is_package and whole:
            todo += [(f"{name}.{each.stem}", True, "") for each in path.parent.glob("*.py") if each != path]
        if path.suffix == ".py":
            imports = [each for each in _imports(path, package, start) if each[0].partition(".")[0] in followed]
            todo += [(_module_of(*each), True, "") for each in imports]
    return files


def _module_of(base: str, name: str) -> str:
    """The module that ``from base import name`` needs: the module ``base.name``, unless ``base`` rebinds that name."""
    inside = _find(f"{base}.{name}") if name else None
    if inside is None or not inside.has_location:
        return base
    spec = _find(base)
    rebound = any(name in each.binds for each in _parts(Path(spec.origin))) if spec and spec.origin else False
    return base if rebound else f"{base}.{name}"


@dataclass(frozen=True)
class _Part:
    """A top-level statement of a file, or one name of a top-level import, with the names it binds and needs."""

    is_definition: bool
    binds: frozenset[str]
    needs: frozenset[str]
    imports: tuple[ast.Import | ast.ImportFrom, ...]


@functools.cache
def _parts(path: Path) -> tuple[_Part, ...]:
    try:
        tree = ast.parse(path.read_bytes())
    except SyntaxError:  # the import reports it; the bytes of the file are in the hash
        return ()
    return tuple(_part(each) for statement in tree.body for each in _one_by_one(statement))


def _one_by_one(statement: ast.stmt) -> list[ast.stmt]:
    if isinstance(statement, ast.Import):
        return [ast.Import([alias]) for alias in statement.names]
    if isinstance(statement, ast.ImportFrom):
        return [ast.ImportFrom(statement.module, [alias], statement.level) for alias in statement.names]
    return [statement]


def _part(statement: ast.stmt) -> _Part:
    nodes = list(ast.walk(statement))
    is_definition = False
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        is_definition, binds = True, {statement.name}
    else:
        binds = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
        binds |= {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        binds |= {(node.asname or node.name).partition(".")[0] for node in nodes if isinstance(node, ast.alias)}
    needs = {node.id for node in nodes if isinstance(node, ast.Name)}
    imports = tuple(node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom))
    return _Part(is_definition, frozenset(binds), frozenset(needs), imports)


@functools.cache
def _imports(path: Path, package: str, start: str) -> frozenset[tuple[str, str]]:
    """The imports of a file as (module, "") or (module, name). With ``start``, only those that this name reaches."""
    found: set[tuple[str, str]] = set()
    for part in _reached(_parts(path), start):
        for node in part.imports:
            if isinstance(node, ast.Import):
                found |= {(alias.name, "") for alias in node.names}
            else:
                relative = "." * node.level + (node.module or "")
                base = resolve_name(relative, package) if node.level else relative
                found |= {(base, alias.name) for alias in node.names}
    return frozenset(found)


def _reached(parts: tuple[_Part, ...], start: str) -> tuple[_Part, ...]:
    """The parts that ``start`` needs, and the statements without a used name, which run for their effect."""
    if not any(start in part.binds for part in parts):
        return parts
    named = frozenset().union(*(part.needs for part in parts), {start})
    reached = [part for part in parts if not (part.is_definition or part.binds & named)]
    wanted = {start}.union(*(part.needs for part in reached))
    while more := [part for part in parts if part.binds & wanted and part not in reached]:
        reached += more
        wanted = wanted.union(*(part.needs for part in more))
    return tuple(reached)


@functools.cache
def _find(name: str) -> ModuleSpec | None:
    """The location of a module, or None. `importlib.util.find_spec` would import its parent packages."""
    if name in sys.modules:
        return getattr(sys.modules[name], "__spec__", None)
    parent, path = name.rpartition(".")[0], None
    if parent:
        around = _find(parent)
        if around is None or around.submodule_search_locations is None:
            return None
        path = list(around.submodule_search_locations)
    specs = (finder.find_spec(name, path) for finder in sys.meta_path if hasattr(finder, "find_spec"))
    return next((spec for spec in specs if spec is not None), None)
