"""Finds plugins and judges what they register."""
