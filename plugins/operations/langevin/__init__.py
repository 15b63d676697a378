"""Langevin updates."""
