#!/bin/bash
#SBATCH --gpus=1
#SBATCH --mem-per-cpu=4000
#SBATCH --array=1-4
ARGS=$(sed -n "${SLURM_ARRAY_TASK_ID}p" grid.txt)
apptainer exec --nv torch.sif python fit.py $ARGS --epochs 30
