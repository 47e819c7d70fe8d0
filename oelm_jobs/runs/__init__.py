"""Runs that were submitted: where they stand, and acting on them."""
