"""Tests of what people are told of runs, and that it is told once."""
