"""What programs may import in their runs: this folder stands at the end of their PYTHONPATH."""
