"""Writes plugin packages to start from."""
