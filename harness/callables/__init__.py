"""Checks and times any callable: `measure`, `compare`, `sweep`, and `bound`, which helps to choose a bound."""
