"""Compares a wheel with the tree it was built from: ``python tests/support/wheel_contents.py WHEEL [TREE]``.

Every source file of the packaged folders must be in the wheel, and nothing else but the wheel's own metadata. Prints
what differs and exits 1 if anything does. An editable install cannot show this: there every file is found.
"""

import sys
import zipfile
from pathlib import Path

FOLDERS = ("harness", "kernels", "plugins")
SUFFIXES = {".py", ".cu", ".cuh", ".cpp", ".hpp", ".j2", ".css", ".js", ".json", ".tmpl"}
NAMES = {"py.typed", "README.md"}


def expected(tree: Path) -> set[str]:
    """The names that the wheel of ``tree`` must have."""
    files = [path for folder in FOLDERS for path in (tree / folder).rglob("*") if path.is_file()]
    return {
        f"boltzbench/{path.relative_to(tree).as_posix()}"
        for path in files
        if path.suffix in SUFFIXES or path.name in NAMES
    }


def differences(wheel: Path, tree: Path) -> list[str]:
    """One line for each file that only one of the two has, or that differs between them."""
    wanted = expected(tree)
    with zipfile.ZipFile(wheel) as archive:
        found = {name for name in archive.namelist() if not name.endswith("/")}
        packaged = {name for name in found if not name.split("/")[0].endswith(".dist-info")}
        changed = [
            name
            for name in sorted(wanted & packaged)
            if archive.read(name) != (tree / name.removeprefix("boltzbench/")).read_bytes()
        ]
    return [
        *(f"not in the wheel: {name}" for name in sorted(wanted - packaged)),
        *(f"only in the wheel: {name}" for name in sorted(packaged - wanted)),
        *(f"differs: {name}" for name in changed),
    ]


def main(arguments: list[str]) -> int:
    if len(arguments) not in (1, 2):
        print("usage: wheel_contents.py WHEEL [TREE]", file=sys.stderr)
        return 2
    wheel = Path(arguments[0])
    tree = Path(arguments[1]) if len(arguments) == 2 else Path(__file__).resolve().parents[2]
    lines = differences(wheel, tree)
    print("\n".join(lines) if lines else f"{wheel.name}: {len(expected(tree))} files, as in the tree")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
