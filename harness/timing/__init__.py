"""Measures how long a launch takes, and which share of the device's limits it reaches."""
