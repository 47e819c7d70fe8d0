#!/bin/bash
set -e
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
PY=/opt/conda/envs/rl/bin/python
COMMON="--env HalfCheetah-v4 --steps 1000000 --tau 0.005"

run_one() {
    local gpu=$1 tag=$2 seed=$3
    shift 3
    echo "[$(date +%T)] $tag, seed $seed"
    CUDA_VISIBLE_DEVICES=$gpu "$PY" "$ROOT/sac.py" $COMMON --seed "$seed" --tag "${tag}_s$seed" "$@" \
        >> "$ROOT/logs/$tag.txt" 2>&1
}

for seed in 11 12; do
    run_one 0 plain    $seed
    run_one 1 noent    $seed --no-entropy
    run_one 2 bigq     $seed --critic-width 1024
    run_one 3 both     $seed --no-entropy --critic-width 1024
done
if [ -f "$ROOT/after.sh" ]; then
    python "$ROOT/plot.py"
fi
