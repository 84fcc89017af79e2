#!/usr/bin/env bash
# Check, tune and measure the op on an NVIDIA GPU, in three calls of at most eight minutes each.
#
#   bash ops/gpu_check.sh [--stages 1,2,3] [--carried DIR] [--output DIR] [--minutes N]
#                         [--device cuda|cpu] [--dry-run]
#   bash ops/gpu_check.sh --pack DIR | --list-wheels        see gpu_pack.sh, which these run
#
# From a checkout: it needs the tests beside it. Every stage has a time limit, which --dry-run prints with its
# command, and runs even if an earlier one fails; the limits of a call add up to less than --minutes (8). Where
# time is short, leave call 3 out first.
#
#   call 1  small_set   every kernel family on small shapes, also the direct kernels in 16 bits
#           tests       the tests of the op that run on a GPU (pytest -m gpu)
#           quick       a short benchmark, K = 13 first
#           variants    the kernels' variants that nothing chooses yet, beside the default (time_variants.py)
#           plans       every division of the tensor-core kernels' work on four shapes, timed
#   call 2  tune        the tuning table of this GPU
#           choice      what the dispatch chooses with that table, and why
#           benchmark   Table 1 of the paper and detection maps, in the time that is left
#   call 3  memcheck    the small set under compute-sanitizer
#           racecheck   some of it
#           counters    the profiler's counters of the six kernels of K = 13 (ncu)
#           initcheck   the small set again
#
# Each call begins with what it stands on: the machine, the library (built for this GPU only where none
# loads, which shortens what comes last) and a first convolution. A call ends there if the machine has no
# GPU or the first convolution does not come back; a wrong number is reported and the stages go on.
#
# Results are in DIR (default: work_dirs/gpu_check): summary.txt, log.txt, then quick.json, variants.txt and
# plans.txt; tuning/*.json, benchmark.json and benchmark.md; counters.txt. To let the dispatch use the table, copy it
# to ops/unireplknet_ops/tuning/. The exit status is 0 only if every stage passed; 'skipped' is said of a
# tool that is not installed. --device cpu goes through calls 1 and 2 without a GPU, to try the script.
#
# Needed: Python >= 3.10 with torch >= 2.10 for CUDA and pytest, better with pytest-timeout (PYTHON chooses
# the interpreter, default python3). --carried names the folder that gpu_pack.sh made elsewhere, with the
# libraries, the program of `plans` and perhaps wheels, which are installed to a temporary folder.
set -uo pipefail

ops=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd) || exit 1
usage() { sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}" >&2; exit 2; }

calls=1,2,3
carried=
output=work_dirs/gpu_check
minutes=8
device=cuda
dry_run=false
while [ $# -gt 0 ]; do
    case $1 in
        --stages) calls=${2:?--stages needs numbers such as 1 or 1,2}; shift 2 ;;
        --carried) carried=${2:?--carried needs a folder}; shift 2 ;;
        --output) output=${2:?--output needs a folder}; shift 2 ;;
        --minutes) minutes=${2:?--minutes needs a number}; shift 2 ;;
        --device) device=${2:?--device needs cuda or cpu}; shift 2 ;;
        --dry-run) dry_run=true; shift ;;
        --pack) shift; exec bash "$ops/gpu_pack.sh" "$@" ;;
        --list-wheels) exec bash "$ops/gpu_pack.sh" "$@" ;;
        *) usage ;;
    esac
done
if [ "$device" != cuda ] && [ "$device" != cpu ]; then
    echo "gpu_check.sh: --device $device is not known: choose cuda or cpu" >&2
    exit 2
fi
if ! [[ $calls =~ ^[1-3](,[1-3])*$ ]]; then
    echo "gpu_check.sh: --stages $calls is not known: write 1, 2, 3 or several of them, as in 1,2" >&2
    exit 2
fi
total=$(awk "BEGIN { print int($minutes * 60) }" 2>/dev/null) || total=0
if ! [[ $minutes =~ ^[0-9.]+$ ]] || [ "$total" -lt 60 ]; then
    echo "gpu_check.sh: --minutes $minutes is not a number of at least 1" >&2
    exit 2
fi
if [ -n "$carried" ] && [ ! -d "$carried/lib" ] && ! $dry_run; then
    echo "gpu_check.sh: --carried $carried: there is no folder lib in it; gpu_pack.sh makes one" >&2
    exit 2
fi

python=${PYTHON:-python3}
export PYTHONPATH="$ops:$ops/tests${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONUNBUFFERED=1
if [ -n "$carried" ]; then export UNIREPLKNET_OPS_LIB_DIR=${UNIREPLKNET_OPS_LIB_DIR:-$carried/lib}; fi
failed=0
passed=0
begin=0
stage_output=

note() {
    echo "$*"
    $dry_run || echo "$*" >>"$output/summary.txt"
}

remaining() { echo $((total - SECONDS + begin)); }

# within LIMIT COMMAND...: run within LIMIT seconds and what is left of the call; log; return its status.
within() {
    local limit=$1 left
    shift
    left=$(remaining)
    if [ "$left" -lt "$limit" ]; then limit=$left; fi
    printf '\n===== %s\n' "$*" >>"$output/log.txt"
    if [ "$limit" -lt 5 ]; then
        echo 'no time left' >"$stage_output"
        return 124
    fi
    timeout --kill-after=10 "$limit" "$@" >"$stage_output" 2>&1
    local status=$?
    cat "$stage_output" >>"$output/log.txt"
    return "$status"
}

# stage NAME LIMIT COMMAND...: the same, noted and counted. A dry run prints what it would do.
stage() {
    local name=$1 limit=$2 start=$SECONDS status
    shift 2
    if $dry_run; then
        echo "$name (at most $limit s): ${*//$'\n'*$'\n'/ ... }"
        return 0
    fi
    within "$limit" "$@"
    status=$?
    if [ "$status" -eq 0 ]; then
        note "$(printf '%-10s passed   %4d s  %s' "$name" $((SECONDS - start)) "$(tail -n 1 "$stage_output")")"
        passed=$((passed + 1))
        return 0
    fi
    failed=$((failed + 1))
    if [ "$status" -eq 124 ] || [ "$status" -eq 137 ]; then
        note "$(printf '%-10s FAILED   %4d s  it did not end in time' "$name" $((SECONDS - start)))"
    else
        note "$(printf '%-10s FAILED   %4d s  status %d: ' "$name" $((SECONDS - start)) "$status")"
    fi
    note "$(tail -n 15 "$stage_output" | cut -c1-300 | sed 's/^/    /')"
    return "$status"
}

skipped() { note "$(printf '%-10s skipped  %s' "$1" "$2")"; }

machine='
import sys, torch
print("python", sys.version.split()[0], "torch", torch.__version__, end="")
if sys.argv[1] == "cuda":
    if not torch.cuda.is_available():
        sys.exit(": torch sees no GPU")
    name, (major, minor) = torch.cuda.get_device_name(), torch.cuda.get_device_capability()
    print(f", {name}, sm_{major}{minor}", end="")
print()'

loads='
import sys
from unireplknet_ops import library
sys.exit(library.missing(sys.argv[1]))'

first_convolution='
import sys, torch
from unireplknet_ops import depthwise_conv2d, library
device = sys.argv[1]
for dtype in (torch.float32, torch.float16, torch.bfloat16):
    ones = torch.ones(1, 16, 7, 7, device=device, dtype=dtype)
    taps = torch.ones(16, 1, 3, 3, device=device, dtype=dtype)
    total = depthwise_conv2d(ones, taps, implementation="op").double().sum().item()
    if total != 16 * (3 * 7 - 2) ** 2:
        sys.exit(f"{dtype}: the sum of a convolution of ones is {total}")
print(library.directory())'

choice='
import sys, torch
from unireplknet_ops import explain
count = 0
for dtype in (torch.bfloat16, torch.float32):
    for kernel, channels, height, width in ((3, 96, 56, 56), (13, 384, 14, 14), (13, 192, 100, 168)):
        x = torch.zeros(8, channels, height, width, device=sys.argv[1], dtype=dtype)
        weight = torch.zeros(channels, 1, kernel, kernel, device=sys.argv[1], dtype=dtype)
        for needs_grad in (False, True):
            text = explain(x, weight, needs_grad=needs_grad)
            print(text)
            count += "op" in text.splitlines()[0].rsplit(": ", 1)[1]
print(f"the op in some pass of {count} of 12 choices")'

# What ncu looks at: forward and both gradients of K = 13, in bf16 on the tensor cores and in fp32.
six_kernels='
import torch
from unireplknet_ops.measure import Shape, Tensors, make_pool
from unireplknet_ops.tuning_tables import PASSES
for dtype in (torch.bfloat16, torch.float32):
    shape = Shape(13, 1, 32, 32, 64, 384, dtype)
    tensors = Tensors(shape, make_pool([shape], dtype, "cuda"), channels_last=False)
    with torch.no_grad():
        for name in PASSES:
            tensors.op(name)
torch.cuda.synchronize()'

# The machine, the library, a first convolution; a status other than 0 ends the call.
prepare() {
    local status
    stage machine 80 "$python" -c "$machine" "$device" || return 1
    if [ -n "$carried" ] && compgen -G "$carried/wheels/*.whl" >/dev/null && [ -z "${site:-}" ]; then
        site=$(mktemp -d)
        stage wheels 20 "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir \
            --target "$site" "$carried"/wheels/*.whl
        PYTHONPATH=$PYTHONPATH:$site
    fi
    if $dry_run; then
        stage load 20 "$python" -c "$loads" "$device"
    elif ! within 20 "$python" -c "$loads" "$device"; then
        note "library    does not load yet: $(tail -n 1 "$stage_output")"
        if [ "$device" = cuda ] && [ -z "${TORCH_CUDA_ARCH_LIST:-}" ]; then
            TORCH_CUDA_ARCH_LIST=$("$python" -c 'import torch; print("%d.%d" % torch.cuda.get_device_capability())')
            if [ "$TORCH_CUDA_ARCH_LIST" = 9.0 ]; then TORCH_CUDA_ARCH_LIST=9.0a; fi
            export TORCH_CUDA_ARCH_LIST
        fi
        stage build 200 "$python" -m unireplknet_ops.build \
            ${UNIREPLKNET_OPS_LIB_DIR:+--output "$UNIREPLKNET_OPS_LIB_DIR"} \
            "$([ "$device" = cuda ] && echo --cuda || echo --no-cuda)" || return 1
    fi
    stage library 20 "$python" -c "$first_convolution" "$device"
    status=$?
    if [ "$status" -eq 124 ] || [ "$status" -eq 137 ]; then return 1; fi
    return 0
}

# The tests are chosen by a marker, not by their names. A test's limit is a signal's, which ends that test
# alone, and leaves room for a first compilation by Triton; what a signal cannot end, the stage's limit does.
# Names are in the log before anything hangs; after an illegal access every other test fails too.
call_1() {
    local chosen=(-m gpu) parallel=() limits=() plans
    stage small_set 50 "$python" "$ops/tests/small_set.py" "$device"
    if [ "$device" = cpu ]; then chosen=(-k cpu); fi
    if "$python" -c 'import xdist' 2>/dev/null; then parallel=(-n 6); fi
    if "$python" -c 'import pytest_timeout' 2>/dev/null; then limits=(--timeout=90 -o timeout_method=signal); fi
    stage tests 130 "$python" -m pytest "$ops/tests" -v "${chosen[@]}" -p no:cacheprovider \
        --ignore-glob "$ops/tests/test_cuda_*" --maxfail=10 "${limits[@]}" "${parallel[@]}"
    stage quick 90 "$python" -m unireplknet_ops.benchmark --device "$device" --quick --minutes 1.2 \
        --output "$output/quick.json"
    if [ "$device" = cpu ]; then return; fi
    stage variants 20 "$python" "$ops/tests/time_variants.py"
    $dry_run || cp "$stage_output" "$output/variants.txt"
    if [ -x "$carried/time_plans" ]; then
        plans=$carried/time_plans
    elif command -v nvcc >/dev/null || [ -x /usr/local/cuda/bin/nvcc ] || $dry_run; then
        plans=$output/time_plans
        stage compile 30 "$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)" -std=c++17 -O3 -arch=native \
            --expt-relaxed-constexpr -I "$ops/csrc/depthwise_conv2d/cuda" "$ops/time_tensor_core_plans.cu" -o "$plans"
    else
        skipped plans 'neither --carried has the program time_plans nor is there an nvcc'
        return
    fi
    stage plans 30 "$plans" quick
    if ! $dry_run; then
        cp "$stage_output" "$output/plans.txt"
        rm -f "$output/time_plans"
    fi
}

call_2() {
    local left=150 busy=() short=()
    if [ "$device" = cpu ]; then busy=(--busy) short=(--quick); fi
    stage tune 150 "$python" -m unireplknet_ops.tune --device "$device" --output "$output/tuning" \
        "${busy[@]}" --minutes "$(awk "BEGIN { print ($total < 480 ? 0.25 * $total : 120) / 60 }")"
    stage choice 30 env UNIREPLKNET_TUNING_DIR="$output/tuning" "$python" -c "$choice" "$device"
    $dry_run || left=$(remaining)
    stage benchmark "$left" "$python" -m unireplknet_ops.benchmark --device "$device" --markdown \
        --output "$output/benchmark.json" "${short[@]}" \
        --minutes "$(awk "BEGIN { print ($left > 60 ? $left - 45 : 15) / 60 }")"
    $dry_run || cp "$stage_output" "$output/benchmark.md"
}

call_3() {
    local sanitizer profiler small_set=("$python" "$ops/tests/small_set.py" cuda)
    if [ "$device" = cpu ]; then
        skipped call_3 'sanitizer and profiler look at a GPU'
        return
    fi
    sanitizer=$(command -v compute-sanitizer || command -v /usr/local/cuda/bin/compute-sanitizer)
    profiler=$(command -v ncu || command -v /usr/local/cuda/bin/ncu)
    if $dry_run; then sanitizer=compute-sanitizer profiler=ncu; fi
    # Each tensor is an allocation of its own, so that an access beside it is seen.
    sanitize() {
        local tool=$1 limit=$2
        shift 2
        stage "$tool" "$limit" env PYTORCH_NO_CUDA_MEMORY_CACHING=1 "$sanitizer" --tool "$tool" \
            --error-exitcode 1 "${small_set[@]}" "$@"
    }
    if [ -n "$sanitizer" ]; then
        sanitize memcheck 120
        sanitize racecheck 70 few
    else
        skipped memcheck 'compute-sanitizer is neither on PATH nor in /usr/local/cuda/bin'
    fi
    if [ -n "$profiler" ]; then
        # Clocks are left as they are; add_partials_kernel, the gradient's second step, is not looked at.
        stage counters 80 "$profiler" --clock-control none --kernel-name 'regex:(forward|backward_weight)_kernel' \
            --section SpeedOfLight --section MemoryWorkloadAnalysis --section ComputeWorkloadAnalysis \
            --section SchedulerStats --section WarpStateStats --section Occupancy "$python" -c "$six_kernels"
        $dry_run || cp "$stage_output" "$output/counters.txt"
    else
        skipped counters 'ncu is neither on PATH nor in /usr/local/cuda/bin'
    fi
    if [ -n "$sanitizer" ]; then sanitize initcheck 60; fi
}

if ! $dry_run; then
    mkdir -p "$output" || exit 1
    stage_output=$(mktemp) || exit 1
    trap 'rm -rf "$stage_output" "${site:-}"' EXIT
    rm -f "$output"/{summary.txt,log.txt}
fi
for call in ${calls//,/ }; do
    begin=$SECONDS
    note "call $call, at most $total s"
    if prepare; then
        "call_$call"
    else
        note 'Nothing can be checked here.'
        failed=$((failed > 0 ? failed : 1))
        break
    fi
done
if $dry_run; then exit 0; fi
note "$passed stages passed, $failed failed, $SECONDS s. Results are in $output."
if [ "$failed" -gt 0 ]; then exit 1; fi
