"""The built-in plugins: one file per operation, bound to the harness by the public hooks."""
