"""The commands: the only place that prints, prompts, and turns errors into exit codes. Each module is one command."""
