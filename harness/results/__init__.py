"""The results file, the environment and source hashes that it records, and the comparison of two runs.

``read_run(path)`` reads a results file; it raises ``ResultsError``.
"""

from .file import ResultsError, read_run

__all__ = ["ResultsError", "read_run"]
