"""The JSON Schema of results files in the package: ``python -m support.results_schema``, in tests/, writes it."""

import json

from boltzbench.harness.results.schema import json_schema

from support import ROOT

PUBLISHED = ROOT / "harness/results/schema.json"


def text() -> str:
    """What the published file should hold."""
    return json.dumps(json_schema(), indent=1) + "\n"


if __name__ == "__main__":
    PUBLISHED.write_text(text())
