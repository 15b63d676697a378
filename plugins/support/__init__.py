"""Helpers that several plugins share."""
