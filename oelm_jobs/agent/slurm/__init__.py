"""Running on a Slurm cluster: submission, claims, states, cancel."""
