"""Checks of whether a comparison was fair: by configurations, and by what the runs recorded."""
