"""Targets files and the options of sbatch in them."""
