"""Run directories, old result folders and logs, read into loaded runs."""
