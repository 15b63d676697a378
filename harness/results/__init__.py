"""The results file, the environment and source that it names, and comparison of two runs."""
