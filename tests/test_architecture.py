"""The rooms of the tree: who may import whom, how full a folder may be, and that imports go round in no circle."""

import ast
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from support import ROOT

FOLDERS = ("harness", "kernels", "plugins")
MOST_FILES = 14
"""Source files in a folder, besides its README."""

PUBLIC_KERNELS = ("philox", "schedules", "cuda_module", "numbers")
"""Modules at the top of kernels/ that anybody's kernels may import."""
COMPOSITIONS = ("kernels/ais", "kernels/distributed", "kernels/parallel_tempering", "kernels/rbm_training")
"""Algorithms made of several operations: they call the public functions of those."""
FIRST = (Path("kernels/__init__.py"), "boltzbench.kernels.common.triton_runtime")
"""The one import against the table: it must come before anything imports Triton."""

OPERATION = ("kernels", "kernels/common", "kernels/native", "kernels/rows", "kernels/machines")
ALLOWED: dict[str, tuple[str, ...]] = {
    "harness/api": (),
    "harness/agreement": ("harness/api",),
    "harness/discovery": ("harness/api",),
    "harness/inspection": ("harness/api", "harness/results"),
    "harness/results": ("harness/api",),
    "harness/timing": ("harness/api", "harness/agreement", "harness/results"),
    "harness/validation": ("harness/api", "harness/discovery"),
    "harness/execution": (
        *("harness/api", "harness/discovery", "harness/agreement", "harness/timing", "harness/results"),
        "harness/validation",
    ),
    "harness/report": ("harness/api", "harness/results"),
    "harness/cluster": ("harness/api", "harness/results", "harness/execution"),
    "harness/profiling": (
        *("harness/api", "harness/discovery", "harness/inspection", "harness/results", "harness/execution"),
    ),
    "harness/callables": (
        *("harness/api", "harness/discovery", "harness/agreement", "harness/timing", "harness/results"),
        *("harness/execution", "harness/report"),
    ),
    "harness/scaffold": ("harness/api", "harness/discovery"),
    "kernels/builds": (),
    "kernels/emulator": ("kernels/builds",),
    "kernels": ("kernels/builds", "kernels/emulator"),
    "kernels/native": ("kernels", "kernels/builds"),
    "kernels/common": ("kernels", "kernels/emulator", "kernels/native"),
    "kernels/rows": ("kernels", "kernels/builds", "kernels/common", "kernels/native"),
    "kernels/machines": ("kernels", "kernels/common", "kernels/native"),
    "plugins/exact": ("harness",),
    "plugins/support": ("harness", "kernels", "plugins/exact"),
    "plugins/operations": ("harness", "kernels", "plugins/exact", "plugins/support"),
    "plugins/samplers": ("harness", "kernels", "plugins/exact", "plugins/support"),
    "plugins/targets": ("harness", "kernels", "plugins/exact", "plugins/support"),
    "plugins/experiments": ("harness", "kernels", "plugins/exact", "plugins/support"),
    "plugins/baselines": ("harness", "kernels", "plugins/support"),
    "plugins": ("harness", "kernels"),
}
"""What each room imports of the suite, besides itself. A folder of kernels/ that is not named here is an operation."""


def room_of(path: Path) -> str:
    """The room of a file or module of the tree, given below the root: ``harness/timing``, ``kernels/sgld``."""
    parts = path.parts
    if len(parts) > 2:
        return "/".join(parts[:2])
    return parts[0] if parts[0] != "harness" else path.with_suffix("").as_posix()


def imports(path: Path, source: str) -> Iterator[tuple[str, bool]]:
    """The full dotted names that a file imports, and whether it does so when it is loaded; relative ones resolved."""
    package = ["boltzbench", *path.parent.parts]
    tree = ast.parse(source)
    later = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.FunctionDef)
        or (isinstance(block, ast.If) and getattr(block.test, "id", "") == "TYPE_CHECKING")
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) not in later) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = [*package[: len(package) + 1 - node.level]] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((f"{module}.{alias.name}", id(node) not in later) for alias in node.names)


def file_of(name: str) -> Path | None:
    """The file, below the root, of a dotted name or of the module that defines it; None if it is not the suite's."""
    parts = name.split(".")
    if parts[0] != "boltzbench":
        return None
    for end in range(len(parts), 1, -1):
        path = Path(*parts[1:end])
        if (ROOT / path.with_suffix(".py")).is_file():
            return path.with_suffix(".py")
        if (ROOT / path / "__init__.py").is_file():
            return path / "__init__.py"
    return None


def allowed_from(room: str) -> tuple[str, ...]:
    if room in ALLOWED:
        return ALLOWED[room]
    if room.startswith("kernels/"):
        return OPERATION
    return FOLDERS[:1]  # the command line and what starts the rest: every room of the harness


def offences(path: Path, source: str) -> list[str]:
    """A sentence for each import of the file that its room does not allow."""
    room, found = room_of(path), []
    for name, _ in imports(path, source):
        if name.split(".")[0] in FOLDERS:
            found.append(f"{path} imports {name}: import it as boltzbench.{name}")
            continue
        file = file_of(name)
        if file is None or (path, name) == FIRST:
            continue
        other = room_of(file)
        if other == room or _is_allowed(room, other, name):
            continue
        places = ", ".join(allowed_from(room)) or "nothing of the suite"
        found.append(
            f"{path} imports {name}, which stands in {other}/. {room}/ may import {places}: "
            f"move what both need to one of these, or the import to a room that may have it."
        )
    return found


def _is_allowed(room: str, other: str, name: str) -> bool:
    top = other.split("/")[0]
    if room.split("/")[0] == "plugins" and top in ("harness", "kernels"):
        return _is_public(name)
    if room in COMPOSITIONS and top == "kernels" and other not in ALLOWED:
        return _is_public(name)
    allowed = allowed_from(room)
    return other in allowed or (top == "harness" and top in allowed)


def _is_public(name: str) -> bool:
    """Whether a plugin may import this name of the harness or of the kernels."""
    parts = name.split(".")[1:]
    if parts[0] == "kernels" and len(parts) > 1 and parts[1] in (*PUBLIC_KERNELS, "common"):
        return True
    package = ROOT / parts[0] if parts[0] == "harness" else ROOT.joinpath(*parts[:2])
    return len(parts) <= (2 if parts[0] == "harness" else 3) and (
        parts[-1] in _listed(package / "__init__.py") or len(parts) == (1 if parts[0] == "harness" else 2)
    )


def _listed(init: Path) -> tuple[str, ...]:
    """``__all__`` of a package."""
    for node in ast.parse(init.read_text()).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return tuple(ast.literal_eval(node.value))
    return ()


FILES = [path.relative_to(ROOT) for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]


@pytest.mark.parametrize("path", FILES, ids=str)
def test_a_file_imports_what_its_room_may(path):
    assert offences(path, (ROOT / path).read_text()) == []


@pytest.mark.parametrize(
    ("path", "source", "words"),
    [
        (
            "kernels/sgld/update.py",
            "from boltzbench.harness import Case",
            "kernels/sgld/ may import kernels, kernels/c",
        ),
        ("kernels/sgld/update.py", "from ...harness import Case", "boltzbench.harness.Case, which stands in harness"),
        ("kernels/sgld/update.py", "from ..philox import words", ""),
        ("kernels/sgld/update.py", "from ..common.dispatch import unavailable", ""),
        (
            "kernels/sgld/update.py",
            "from ..ising import energy",
            "boltzbench.kernels.ising.energy, which stands in ker",
        ),
        ("kernels/ais/__init__.py", "from ..ising import energy", ""),
        ("kernels/ais/__init__.py", "from ..ising.reference import sweep", "which stands in kernels/ising/"),
        ("kernels/philox.py", "import boltzbench.plugins.ceilings", "which stands in plugins"),
        ("kernels/common/dispatch.py", "from ..sgld import SGLD", "kernels/common/ may import kernels, kernels/emul"),
        ("harness/cli/app.py", "def f():\n    from boltzbench import kernels", "which stands in kernels"),
        ("harness/cli/app.py", "from ..timing.clocks import Clock", ""),
        ("harness/api/operations.py", "from ..timing.clocks import Clock", "may import nothing of the suite"),
        ("harness/report/page.py", "from ..timing.clocks import Clock", "harness/report/ may import harness/api, harn"),
        ("plugins/operations/rows/logsumexp.py", "from boltzbench.harness import Case, hookimpl", ""),
        ("plugins/operations/rows/logsumexp.py", "from boltzbench import harness", ""),
        ("plugins/operations/rows/logsumexp.py", "from boltzbench.kernels.logsumexp import logsumexp", ""),
        ("plugins/operations/rows/logsumexp.py", "from boltzbench.kernels.logsumexp.reference import f", "stands in"),
        ("plugins/operations/rows/logsumexp.py", "from boltzbench.harness.api.operations import Case", "stands in"),
        ("plugins/operations/rows/logsumexp.py", "from boltzbench.plugins.samplers.langevin import sgld", "stands in"),
        ("plugins/operations/rows/logsumexp.py", "import kernels.sgld", "import it as boltzbench.kernels.sgld"),
    ],
)
def test_the_rule_itself(path, source, words):
    found = offences(Path(path), source)
    assert [words in sentence for sentence in found] == [True] * bool(words), found


def test_every_room_of_the_table_exists():
    assert [room for room in ALLOWED if not (ROOT / room / "__init__.py").is_file() and room not in FOLDERS] == []


def circle(graph: dict[str, set[str]]) -> list[str]:
    """The nodes of one circle of the graph; none if it has none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_imports_between_rooms_go_round_in_no_circle():
    rooms: dict[str, set[str]] = {}
    for path in FILES:
        for name, _ in imports(path, (ROOT / path).read_text()):
            file = file_of(name)
            if file is not None and (path, name) != FIRST and room_of(file) != room_of(path):
                rooms.setdefault(room_of(path), set()).add(room_of(file))
    assert circle(rooms) == []


def test_modules_load_in_an_order():
    modules: dict[str, set[str]] = {}
    for path in FILES:
        for name, at_once in imports(path, (ROOT / path).read_text()):
            file = file_of(name)
            if at_once and file is not None and file != path and file not in [path.parent / "__init__.py"]:
                modules.setdefault(str(path), set()).add(str(file))
    assert circle(modules) == []


def test_a_circle_is_seen():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}})
    assert not circle({"a": {"b", "c"}, "b": {"c"}})


def own_devices(folder: Path) -> list[str]:
    """A sentence for each file of tests that chooses its device itself, or asks what runs on a CPU."""
    words = 'torch.device("cuda" if', "for name in dispatch.BACKENDS if dispatch.unavailable(name, CPU)"
    return [
        f"{path.relative_to(folder)} takes no device from support/devices.py: its tests stay on the CPU, or may"
        for path in sorted(folder.rglob("*.py"))
        if path.parts[-2:] not in (("support", "devices.py"), ("tests", "test_architecture.py"))
        if any(each in path.read_text() for each in words)
    ]


def test_tests_of_kernels_run_where_the_gpu_is(tmp_path):
    assert own_devices(ROOT / "tests") == []
    (tmp_path / "test_mine.py").write_text('DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")')
    assert len(own_devices(tmp_path)) == 1


def drawing(root: Path) -> set[str]:
    """Modules whose random numbers no seed repeats."""
    words = re.compile(r"SystemRandom|urandom|import secrets|uuid[14]\b|default_rng\(\)|\bRandom\(\)|torch\.seed\(\)")
    paths = (path for top in FOLDERS for path in (root / top).rglob("*.py"))
    return {path.relative_to(root).as_posix() for path in paths if words.search(path.read_text())}


def test_tests_draw_from_a_seed(tmp_path):
    """`tests/conftest.py` replaces what the clock draws; of the third module nothing but names of files is random."""
    assert drawing(ROOT) == {"harness/timing/stopwatch.py", "harness/timing/launch_audit.py", "harness/results/file.py"}
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "mine.py").write_text("numbers = np.random.default_rng()")
    assert drawing(tmp_path) == {"plugins/mine.py"}


SOURCES = (".py", ".cu", ".cuh", ".hpp", ".cpp")


def crowded(root: Path) -> list[str]:
    """A sentence for each folder with too many source files."""
    found = []
    for folder in sorted(
        {path.parent for top in FOLDERS for path in (root / top).rglob("*") if path.suffix in SOURCES}
    ):
        count = sum(path.suffix in SOURCES for path in folder.iterdir())
        if count > MOST_FILES:
            name = folder.relative_to(root)
            found.append(f"{name}/ holds {count} source files, more than {MOST_FILES}: divide it into rooms")
    return found


def test_no_folder_is_crowded(tmp_path):
    assert crowded(ROOT) == []
    for number in range(15):
        (tmp_path / "harness").mkdir(exist_ok=True)
        (tmp_path / "harness" / f"m{number}.py").write_text("")
    assert crowded(tmp_path) == ["harness/ holds 15 source files, more than 14: divide it into rooms"]


def test_every_room_has_a_door():
    """A README that says what is inside, what it may import, and where a new thing goes."""
    rooms = [room for room in ALLOWED if (ROOT / room).is_dir()] + ["harness", "kernels", "plugins", "tests"]
    assert [room for room in rooms if not (ROOT / room / "README.md").is_file()] == []


def unnamed(readme: str, folder: Path) -> list[str]:
    """Files that a room holds and its README does not name, and files that its table lists and that do not exist."""
    files = {path.name for path in folder.iterdir() if path.suffix in SOURCES and path.name != "__init__.py"}
    named = set(re.findall(r"`(\w+\.\w+)`", readme))
    listed = {name for row in re.findall(r"^\| ?([^|]+)", readme, re.M) for name in re.findall(r"`(\w+\.\w+)`", row)}
    return sorted(files - named | {name for name in listed if not any(folder.rglob(name))})


@pytest.mark.parametrize("room", [*ALLOWED, "harness", "harness/cli"])
def test_the_readme_of_a_room_names_its_files(room):
    assert unnamed((ROOT / room / "README.md").read_text(), ROOT / room) == []


def test_a_file_that_a_readme_misses_is_seen(tmp_path):
    (tmp_path / "there.py").write_text("")
    assert unnamed("| `there.py` | what is there |", tmp_path) == []
    assert unnamed("", tmp_path) == ["there.py"]
    assert unnamed("| `there.py`, `gone.cuh` | `other.py` |", tmp_path) == ["gone.cuh"]
