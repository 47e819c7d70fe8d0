#!/bin/bash
for width in 256 512; do
for seed in 0 1; do
cat > job_${width}_${seed}.sh <<JOB
#!/bin/bash
#SBATCH --partition=long,short
#SBATCH --gpus-per-node=1
#SBATCH --time=10:00:00
#SBATCH --constraint="v100|a100"
#SBATCH --exclude=node07
module load anaconda
export DATA_ROOT=/proj/data
for fold in 1 2; do
  python cv.py --width $width --seed $seed --fold \$fold
done
JOB
sbatch job_${width}_${seed}.sh
done
done

sbatch --partition=debug --gres=gpu:1 --wrap="python cv.py --width 64 --seed 0 --fold 1"
