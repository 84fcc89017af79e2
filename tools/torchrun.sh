#!/usr/bin/env bash
# What dist_train.sh and dist_test.sh share; sourced by them.

# run_distributed PROCESSES SCRIPT [arguments]
run_distributed() {
    local processes=$1
    shift
    if ! [[ $processes =~ ^[1-9][0-9]*$ ]]; then
        echo "error: the number of GPUs must be a positive integer, not '$processes'" >&2
        exit 2
    fi
    local nodes=${NNODES:-1}
    if [ "$nodes" -gt 1 ] && [ -z "${PORT:-}" ]; then
        echo "error: with NNODES=$nodes, set PORT (and MASTER_ADDR, NODE_RANK) on every machine" >&2
        exit 2
    fi
    local rendezvous=(
        --master_addr "${MASTER_ADDR:-127.0.0.1}"
        --master_port "${PORT:-0}"
        --node_rank "${NODE_RANK:-0}"
    )
    if [ "$nodes" -eq 1 ] && [ -z "${PORT:-}" ]; then
        rendezvous=(--standalone)
    fi
    local root
    root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
    PYTHONPATH="$root:$root/ops${PYTHONPATH:+:$PYTHONPATH}" exec "${PYTHON:-python}" \
        "$root/tools/run_distributed.py" \
        --nnodes "$nodes" --nproc_per_node "$processes" "${rendezvous[@]}" "$@"
}
