"""Decisions on hypotheses: evidence, intervals, verdicts."""
