#!/bin/sh
# every data set with every seed
for ds in cifar10 cifar100 svhn; do
  for s in $(seq 0 4); do
    sbatch -J "$ds-$s" --time=04:00:00 --export=ALL,DATASET=$ds,SEED=$s job.slurm resnet18
  done
done
