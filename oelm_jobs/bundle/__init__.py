"""Bundles: all that a study's verdicts rest on in one archive, which anyone can check and report on."""
