"""A plugin package to start from: what `boltzbench new` writes."""

import re
from importlib import resources
from pathlib import Path
from string import Template


class NewPackageError(ValueError):
    """A package that cannot be written. The message says why."""


def write_package(name: str, folder: Path) -> list[Path]:
    """Writes the package of a sampler called ``name`` to ``folder / name`` and returns its files.

    The module is ``name`` with underscores for hyphens. Raises NewPackageError if the name cannot be one, the folder
    exists, or it cannot be written.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*", name):
        raise NewPackageError(
            f"NAME must be lower-case letters, digits, - and _, and begin with a letter: got {name!r}"
        )
    module = name.replace("-", "_")
    words = {"name": module, "module": module, "distribution": name.replace("_", "-")}
    package = folder / name
    files = {
        "pyproject.toml": "pyproject.toml",
        f"{module}.py": "sampler_torch.py",
        f"test_{module}.py": "test_sampler.py",
        "README.md": "README.md",
    }
    templates = resources.files(__package__) / "templates" / "new"
    try:
        package.mkdir(parents=True)
        for file, template in files.items():
            text = (templates / f"{template}.tmpl").read_text(encoding="utf-8")
            (package / file).write_text(Template(text).substitute(words), encoding="utf-8")
    except OSError as error:
        raise NewPackageError(f"cannot write the package {package}: {error.strerror}") from error
    return [package / file for file in files]
