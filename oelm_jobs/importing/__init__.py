"""Read the shell scripts that people start training with, and propose a study and its targets: nothing is executed.

A script's text becomes ``tokens``, ``syntax`` makes ``nodes`` of them, ``expansion`` says what words stand for,
``shell`` and ``flow`` go through the nodes and find what is ``starting``; ``launchers`` and ``headers`` know
torchrun, srun and sbatch. ``keys`` tells what the arguments of many commands are, ``joining`` makes groups and seeds of
them, ``proposal`` a study.
"""
