"""The trainer: GPT and OELM language models, trained exactly, fast, and with honest records.

It imports nothing of the toolkit; the two meet in the files of docs/run-directory.md and in ``train.config``.
Only the standard library is imported here, so that a submitting client without torch can read the configuration.
"""

from __future__ import annotations
