"""oelm-jobs: run a few groups of training experiments on GPUs that are somewhere else, and get an answer that holds."""

__version__ = "0.1.0"
