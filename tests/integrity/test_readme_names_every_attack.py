"""The tables of the README and the tests name the same."""

import re
from pathlib import Path

HERE = Path(__file__).parent


def test_readme_names_every_attack() -> None:
    files = [path for path in HERE.glob("test_*.py") if path.name != Path(__file__).name]
    tests = [name for path in files for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)]
    named = re.findall(r"`(test_\w+)`", (HERE / "README.md").read_text())
    assert sorted(set(named)) == sorted(set(tests))
