"""What several tests share: fakes, small operations, wrong kernels and samplers, goldens, the wheel's contents."""

from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
ROOT = TESTS.parent
