"""The frozen dataclasses of studies, runs and targets, in the terms of docs/architecture.md."""
