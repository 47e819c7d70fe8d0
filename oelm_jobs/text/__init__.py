"""Owns the text that the package carries (novels for the demo, GPT-2's merge ranks); `oelm_jobs.data` reads it."""
