#!/bin/bash
# Stands in for all programs that the scripts name: it is linked under their names, writes down what is to be started
# with which words, and passes on what srun, tmux, ssh and sbatch are given.
name=$(basename "$0")
write_down() {
    local text
    printf -v text '%s\x1f' "${SEED-}" "${DROPOUT-}" "$@"
    printf '%s\x1e' "$text" >> "$RECORD"
}
case $name in
    srun)
        while [[ $1 == -* ]]; do shift; done
        "$@" ;;
    tmux)
        case $1 in
            send-keys) bash -c "$4" ;;
            *) [[ ${!#} == *" "* ]] && bash -c "${!#}" ;;
        esac ;;
    ssh)
        [[ $1 == -p ]] && shift 2
        bash -c "$2" ;;
    sbatch)
        export SLURM_SUBMIT_DIR=$PWD SLURM_JOB_NODELIST=node1
        while [[ $1 == -* ]]; do
            case $1 in
                --export=*) IFS=, read -ra given <<< "${1#--export=ALL,}"; for each in "${given[@]}"; do export "$each"; done ;;
                --wrap=*) bash -c "${1#--wrap=}"; exit ;;
                -J) shift ;;
            esac
            shift
        done
        read -r first last < <(sed -nE 's/^#SBATCH (--array=|-a )([0-9]+)-([0-9]+).*/\2 \3/p' "$1")
        if [[ -z $first ]]; then bash "$@"; exit; fi
        for ((SLURM_ARRAY_TASK_ID = first; SLURM_ARRAY_TASK_ID <= last; SLURM_ARRAY_TASK_ID++)); do
            export SLURM_ARRAY_TASK_ID
            bash "$@"
        done ;;
    sleep | module | ml | conda | scontrol | rsync | scp) ;;
    *) write_down "$name" "$@" ;;
esac
