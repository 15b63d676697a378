"""Targets for samplers, one file for each family."""
