"""Runs cases under a profiler, and joins its counters with what the machine code predicts."""
