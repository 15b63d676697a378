"""One file for each family of samplers."""
