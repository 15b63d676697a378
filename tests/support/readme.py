"""The table of operations in README.md, made from the registry: ``python -m support.readme``, in tests/, writes it."""

from support import ROOT
from support.operations import operations

BEGIN, END = "| operation | computes |\n|---|---|\n", "\n\n[kernels/]"
README = ROOT / "README.md"


def parts() -> tuple[str, str, str]:
    """README before the rows of the table, the rows, and README after them."""
    before, begin, rest = README.read_text().partition(BEGIN)
    rows, end, after = rest.partition(END)
    return before + begin, rows, end + after


def rows() -> str:
    """The rows that the table should have."""
    ordered = sorted(operations(), key=lambda each: each.name)
    return "\n".join(f"| `{each.name}` | {each.summary.removesuffix('.')} |" for each in ordered)


if __name__ == "__main__":
    before, _, after = parts()
    README.write_text(before + rows() + after)
