"""What the README shows works as written."""

import re

from support import ROOT

README = (ROOT / "README.md").read_text()


def test_the_kernels_can_be_used_as_shown() -> None:
    (example,) = (block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "SGLD" in block)
    names: dict[str, object] = {}
    exec(example, names)
    energies, x = names["energies"], names["x"]
    assert energies.grad.sum(1).allclose(-0.5 * energies.new_ones(4))  # type: ignore[attr-defined]
    assert bool(x.abs().gt(0).all())  # type: ignore[attr-defined]
