"""Judges samplers and experiments by exact laws."""
