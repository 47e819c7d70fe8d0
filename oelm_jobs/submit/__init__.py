"""Submitting runs, each at most once."""
