"""Judges an implementation against the reference and the exact laws of its operation."""
