"""Who may import whom: kernels know nothing of the suite, the harness nothing of kernels, plugins what all may."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("harness", "kernels", "plugins")


def imported(path: Path, source: str) -> list[str]:
    """The full dotted names that a file imports, also inside functions; relative ones resolved."""
    package = ["boltzbench", *path.relative_to(ROOT).parent.parts]
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = [*package[: len(package) + 1 - node.level]] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names += [f"{module}.{alias.name}" for alias in node.names]
    return names


def offences(folder: str, names: list[str]) -> list[str]:
    forbidden = {"kernels": ("harness", "plugins"), "harness": ("kernels", "plugins"), "plugins": ()}[folder]
    found = [name for name in names if name.startswith(tuple(f"boltzbench.{other}" for other in forbidden))]
    if folder == "plugins":  # boltzbench.harness.Case is public; boltzbench.harness.types.Case is not
        public = ast.parse((ROOT / "harness" / "__init__.py").read_text())
        listed = next(
            ast.literal_eval(node.value)
            for node in public.body
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__"
        )
        allowed = {"boltzbench.harness", *(f"boltzbench.harness.{name}" for name in listed)}
        found += [name for name in names if name.startswith("boltzbench.harness") and name not in allowed]
    return found + [name for name in names if name.split(".")[0] in FOLDERS]


FILES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path):
    folder = path.relative_to(ROOT).parts[0]
    assert offences(folder, imported(path, path.read_text())) == []


@pytest.mark.parametrize(
    ("path", "source", "wrong"),
    [
        ("kernels/sgld/update.py", "from boltzbench.harness import Case", ["boltzbench.harness.Case"]),
        ("kernels/sgld/update.py", "from ...harness import Case", ["boltzbench.harness.Case"]),
        ("kernels/sgld/update.py", "from ..philox import words", []),
        ("kernels/philox.py", "import boltzbench.plugins.sgld", ["boltzbench.plugins.sgld"]),
        ("harness/cli.py", "def f():\n    from boltzbench import kernels", ["boltzbench.kernels"]),
        ("harness/cli.py", "from .types import Case", []),
        ("plugins/sgld.py", "from boltzbench.harness import Case, hookimpl", []),
        ("plugins/sgld.py", "from boltzbench.kernels.sgld import sgld", []),
        ("plugins/sgld.py", "from boltzbench.harness.types import Case", ["boltzbench.harness.types.Case"]),
        ("plugins/sgld.py", "from ..harness.registry import Plugin", ["boltzbench.harness.registry.Plugin"]),
        ("plugins/sgld.py", "import kernels.sgld", ["kernels.sgld"]),
    ],
)
def test_the_rule_itself(path, source, wrong):
    assert offences(path.split("/")[0], imported(ROOT / path, source)) == wrong
