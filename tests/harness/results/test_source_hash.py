import functools
import importlib
import sys

import pytest
from boltzbench.harness.results import source_hash as module
from boltzbench.harness.results.source_hash import files_hash, source_hash

FILES = {
    "plugins/__init__.py": "",
    "plugins/first.py": """
        from functools import partial
        from {name}.kernels.one import compute
        from {name}.plugins import data, effect, other_data
        from boltzbench.harness import Case

        SIZE = data.SIZE

        def prepare(backend, inputs): return _helper(backend)
        def _helper(backend): return compute, SIZE
        def other(): return other_data

        class Callable:
            def __call__(self): pass
    """,
    "plugins/second.py": """
        def prepare(inputs):
            import {name}.kernels.two.kernel as kernel
            return kernel
    """,
    "plugins/third.py": "def prepare(inputs): from ..kernels import two; return two\n",
    "plugins/data.py": "SIZE = 3",
    "plugins/other_data.py": "",
    "plugins/effect.py": "",
    "kernels/__init__.py": "",
    "kernels/shared.py": "",
    "kernels/unused.py": "",
    "kernels/shared.cuh": "",
    "kernels/one/__init__.py": "from .compute import compute\n",
    "kernels/one/compute.py": "from ..shared import words\ncompute = 1\n",
    "kernels/one/by_name.py": "raise SystemExit('must not be imported')\n",
    "kernels/one/one.cu": "",
    "kernels/two/__init__.py": "",
    "kernels/two/kernel.py": "",
    "kernels/two/by_name.py": "not python",
    "kernels/two/two.cu": "",
}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of plugins and kernels with a unique name, because source hashes are cached by module."""
    name = "p" + tmp_path.name.replace("-", "_")
    for path, text in FILES.items():
        file = tmp_path / name / path
        file.parent.mkdir(parents=True, exist_ok=True)
        lines = text.format(name=name).strip("\n").splitlines()
        indent = len(lines[0]) - len(lines[0].lstrip()) if lines else 0
        file.write_text("\n".join(line[indent:] for line in lines) + "\n")
    (tmp_path / name / "kernels/shared.py").write_text("words = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield tmp_path / name
    for loaded in [each for each in sys.modules if each.partition(".")[0] == name]:
        del sys.modules[loaded]


def hashes(package):
    for kept in (module._function_hash, module._imports, module._parts, module._find):
        kept.cache_clear()
    plugins = (importlib.import_module(f"{package.name}.plugins.{each}") for each in ("first", "second", "third"))
    return {each.__name__.rpartition(".")[2]: source_hash(each.prepare) for each in plugins}


@pytest.mark.parametrize(
    ("path", "changed"),
    [
        ("plugins/first.py", {"first"}),
        ("plugins/second.py", {"second"}),
        ("plugins/data.py", {"first"}),
        ("plugins/other_data.py", set()),
        ("plugins/effect.py", {"first"}),
        ("plugins/__init__.py", {"first", "second", "third"}),
        ("kernels/__init__.py", {"first", "second", "third"}),
        ("kernels/shared.py", {"first"}),
        ("kernels/unused.py", set()),
        ("kernels/shared.cuh", {"first", "second", "third"}),
        ("kernels/one/__init__.py", {"first"}),
        ("kernels/one/compute.py", {"first"}),
        ("kernels/one/by_name.py", {"first"}),
        ("kernels/one/one.cu", {"first"}),
        ("kernels/two/kernel.py", {"second", "third"}),
        ("kernels/two/by_name.py", {"third"}),
        ("kernels/two/two.cu", {"second", "third"}),
    ],
)
def test_the_hash_changes_with_its_own_source(package, path, changed):
    before = hashes(package)
    with (package / path).open("a") as file:
        file.write("# changed\n")
    after = hashes(package)
    assert {name for name in before if before[name] != after[name]} == changed


@pytest.mark.parametrize("name", ["more.hpp", "more.cpp"])
def test_a_new_device_source_counts(package, name):
    before = hashes(package)
    (package / "kernels/one" / name).write_text("")
    after = hashes(package)
    assert [name for name in before if before[name] != after[name]] == ["first"]


def test_a_header_that_a_device_source_includes_from_a_neighbouring_folder_counts(package):
    (package / "kernels/shapes").mkdir()
    header = package / "kernels/shapes/rows.cuh"
    header.write_text("")
    (package / "kernels/one/one.cu").write_text('#include "shapes/rows.cuh"\n#include "gone/rows.cuh"\n')
    before = hashes(package)
    header.write_text("// changed")
    after = hashes(package)
    assert [name for name in before if before[name] != after[name]] == ["first"]


def test_nothing_is_imported_to_be_hashed(package):
    hashes(package)
    assert f"{package.name}.kernels.one.by_name" not in sys.modules
    assert f"{package.name}.kernels.two" not in sys.modules


def test_the_hash_ignores_where_the_files_are(tmp_path):
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a").write_text("same")
    here, there = tmp_path / "here" / "a", tmp_path / "there" / "a"
    assert files_hash({"a": here}) == files_hash({"a": there}) != files_hash({"b": here})


def test_partials_methods_and_callables(package):
    hashes(package)
    first = importlib.import_module(f"{package.name}.plugins.first")
    second = importlib.import_module(f"{package.name}.plugins.second")
    plain = source_hash(first.prepare)
    assert len(plain) == 16
    assert source_hash(functools.partial(functools.partial(first.prepare, "cupy"), inputs=1)) == plain
    assert source_hash(functools.partial(first.prepare, functools.reduce)) == plain, "of another distribution"
    assert source_hash(first.Callable()) == source_hash(first.Callable) != plain

    @functools.wraps(first.prepare)
    def wrapper():
        pass

    assert source_hash(wrapper) == plain
    both = source_hash(first.prepare, second.prepare)
    assert both not in (plain, source_hash(second.prepare))
    assert both == source_hash(functools.partial(first.prepare, inputs=second.prepare))


def test_functions_of_one_file_may_depend_on_different_modules(package):
    hashes(package)
    first = importlib.import_module(f"{package.name}.plugins.first")
    names = {
        function: {file.partition("/")[2] for file in module._files_behind(first.__name__, function)}
        for function in ("prepare", "other", "no such name")
    }
    own = {"data.py", "compute.py", "by_name.py", "one.cu", "shared.py", "shared.cuh"}
    assert names["prepare"] - names["other"] == own
    assert names["other"] - names["prepare"] == {"other_data.py"}
    assert names["no such name"] == names["prepare"] | names["other"], "then all imports count"


def test_a_module_without_a_file_has_the_hash_of_its_name():
    space = {"__name__": "made_by_exec"}
    exec("def prepare(): pass", space)
    assert source_hash(space["prepare"]) == source_hash(space["prepare"]) != source_hash(len)


@pytest.mark.parametrize(
    ("family", "name", "other"), [("rows", "logsumexp", "sgld"), ("langevin", "sgld", "logsumexp")]
)
def test_each_operation_of_the_suite_has_its_own_kernels(family, name, other):
    files = module._files_behind(f"boltzbench.plugins.operations.{family}.{name}", "register_implementations")
    own = {f"boltzbench.kernels.{name}/{file}" for file in (f"{name}.cu", "triton_kernels.py", "cuda_kernels.py")}
    assert (
        own | {"boltzbench.kernels.common/philox.cuh", f"boltzbench.plugins.operations.{family}/{name}.py"}
        <= files.keys()
    )
    assert not [file for file in files if f".{other}/" in file or file.endswith(f"/{other}.py") or "harness" in file]
