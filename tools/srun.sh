#!/usr/bin/env bash
# What slurm_train.sh and slurm_test.sh share; sourced by them.

# run_under_slurm PARTITION JOB_NAME SCRIPT [arguments]
run_under_slurm() {
    local partition=$1 job_name=$2
    shift 2
    local gpus=${GPUS:-8}
    local gpus_per_node=${GPUS_PER_NODE:-$((gpus < 8 ? gpus : 8))}
    local options=()
    read -r -a options <<<"${SRUN_ARGS:-}"
    local root
    root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
    PYTHONPATH="$root:$root/ops${PYTHONPATH:+:$PYTHONPATH}" exec srun \
        -p "$partition" \
        --job-name="$job_name" \
        --gres="gpu:$gpus_per_node" \
        --ntasks="$gpus" \
        --ntasks-per-node="$gpus_per_node" \
        --cpus-per-task="${CPUS_PER_TASK:-5}" \
        --kill-on-bad-exit=1 \
        ${options[@]+"${options[@]}"} \
        "${PYTHON:-python}" -u "$@"
}
