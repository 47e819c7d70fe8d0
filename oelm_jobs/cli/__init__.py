"""The commands: the only place that prints, prompts, and turns errors into exit codes. Each module is one command."""

import gc

# What a command makes lives until it ends, what it imports first of all: looking for garbage among it finds none.
gc.set_threshold(1_000_000)
