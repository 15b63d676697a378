"""What tests share: the registered operations, fakes, wrong kernels and samplers, goldens, the example to copy."""

from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
ROOT = TESTS.parent
