"""Read the shell scripts that people start training with, and propose a study and its targets: nothing is executed.

``syntax`` reads a script's text, ``expansion`` its words, ``shell`` goes through it and finds what it would start,
``launchers`` and ``headers`` know torchrun, srun and sbatch, ``joining`` makes groups and seeds of many commands,
``proposal`` a study of them.
"""
