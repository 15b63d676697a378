"""Measures the judge itself: how often it rejects right samplers, and which errors it finds and names."""
