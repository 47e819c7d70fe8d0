"""Checks before anything is queued."""
