"""Carries out a plan: one trial for each step, in worker processes."""
