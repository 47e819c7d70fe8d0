"""Hypotheses decided: evidence, intervals, verdicts."""
