"""Spins, units and their couplings."""
