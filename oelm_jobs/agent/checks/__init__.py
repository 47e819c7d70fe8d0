"""Checks of a target before runs are sent to it."""
