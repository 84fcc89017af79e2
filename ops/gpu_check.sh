#!/usr/bin/env bash
# Check, tune and measure the op on an NVIDIA GPU: one command, 10 minutes at most on an H200.
#
#   bash ops/gpu_check.sh [--output DIR] [--minutes N] [--device cuda|cpu] [--dry-run]
#
# From a checkout: it needs the tests beside it. Stages, each with a time limit of its own, all of them run even if one
# fails:
#
#   library     load the library and run one convolution on the GPU; if that fails, build for this GPU and try again
#   tests       all tests of the op on the GPU (pytest ops/tests -k cuda)
#   memcheck, racecheck, initcheck
#               ops/tests/small_set.py under compute-sanitizer, where it is installed
#   tune        the tuning table of this GPU
#   choice      what the dispatch chooses with that table, and why
#   benchmark   Table 1 of the paper and detection maps, in the time that is left
#
# DIR (default: work_dirs/gpu_check) gets summary.txt, log.txt, benchmark.json, benchmark.md and tuning/*.json.
# To let the dispatch use the table, copy it to ops/unireplknet_ops/tuning/. The exit status is 0 only if every stage passed;
# 'skipped' is said of a sanitizer that is not installed. --device cpu goes through the same stages without a
# GPU, to try the script; --dry-run prints the commands.
#
# Needed: Python >= 3.10 with torch >= 2.10 for CUDA, pytest and pytest-timeout (PYTHON chooses the interpreter,
# default python3). Without nvcc there, carry ops/unireplknet_ops/lib built elsewhere (python
# ops/unireplknet_ops/build.py --cuda needs no GPU); UNIREPLKNET_OPS_LIB_DIR names another folder.
set -uo pipefail

ops=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd) || exit 1
output=work_dirs/gpu_check
minutes=9.5
device=cuda
dry_run=false
while [ $# -gt 0 ]; do
    case $1 in
        --output) output=${2:?--output needs a folder}; shift 2 ;;
        --minutes) minutes=${2:?--minutes needs a number}; shift 2 ;;
        --device) device=${2:?--device needs cuda or cpu}; shift 2 ;;
        --dry-run) dry_run=true; shift ;;
        *) sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
    esac
done
if [ "$device" != cuda ] && [ "$device" != cpu ]; then
    echo "gpu_check.sh: --device $device is not known: choose cuda or cpu" >&2
    exit 2
fi
python=${PYTHON:-python3}
export PYTHONPATH="$ops:$ops/tests${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONUNBUFFERED=1
total=$(awk "BEGIN { print int($minutes * 60) }")
if [ "$total" -lt 60 ]; then
    echo "gpu_check.sh: --minutes $minutes is not a number of at least 1" >&2
    exit 2
fi
failed=0
passed=0

if ! $dry_run; then
    mkdir -p "$output/tuning" || exit 1
    rm -f "$output"/{summary.txt,log.txt,benchmark.json,benchmark.md} "$output"/tuning/*.json
fi

note() {
    echo "$*"
    $dry_run || echo "$*" >>"$output/summary.txt"
}

remaining() { echo $((total - SECONDS)); }

# stage NAME LIMIT COMMAND...: run within LIMIT seconds and what is left of the total; log; count.
stage() {
    local name=$1 limit=$2 start=$SECONDS status left
    shift 2
    left=$(remaining)
    if [ "$left" -lt "$limit" ]; then limit=$left; fi
    if $dry_run; then
        echo "$name (at most $limit s): ${*//$'\n'*$'\n'/ ... }"
        return 0
    fi
    if [ "$limit" -lt 5 ]; then
        note "$(printf '%-10s FAILED   no time left' "$name")"
        failed=$((failed + 1))
        return 1
    fi
    printf '\n===== %s: %s\n' "$name" "$*" >>"$output/log.txt"
    timeout --kill-after=10 "$limit" "$@" >"$output/stage.txt" 2>&1
    status=$?
    cat "$output/stage.txt" >>"$output/log.txt"
    if [ "$status" -eq 0 ]; then
        note "$(printf '%-10s passed   %4d s  %s' "$name" $((SECONDS - start)) "$(tail -n 1 "$output/stage.txt")")"
        passed=$((passed + 1))
    elif [ "$status" -eq 124 ] || [ "$status" -eq 137 ]; then
        note "$(printf '%-10s FAILED   its %d s were over' "$name" "$limit")"
        failed=$((failed + 1))
    else
        note "$(printf '%-10s FAILED   %4d s  status %d: ' "$name" $((SECONDS - start)) "$status")"
        note "$(tail -n 15 "$output/stage.txt" | cut -c1-300 | sed 's/^/    /')"
        failed=$((failed + 1))
    fi
    return "$status"
}

machine='
import sys, torch
print("python", sys.version.split()[0], "torch", torch.__version__, end="")
if sys.argv[1] == "cuda":
    if not torch.cuda.is_available():
        sys.exit(": torch sees no GPU")
    name, (major, minor) = torch.cuda.get_device_name(), torch.cuda.get_device_capability()
    print(f", {name}, sm_{major}{minor}", end="")
print()'

one_convolution='
import sys, torch
from unireplknet_ops import depthwise_conv2d, library
device = sys.argv[1]
if (missing := library.missing(device)) is not None:
    sys.exit(missing)
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
            count += text.splitlines()[0].endswith(": op")
print(f"the op in {count} of 12 choices")'

stage machine 60 "$python" -c "$machine" "$device"
if [ "$failed" -gt 0 ]; then
    note 'Nothing to check here.'
    exit 1
fi
if $dry_run || ! library=$("$python" -c "$one_convolution" "$device" 2>&1); then
    $dry_run || note "library    does not run yet: $(tail -n 1 <<<"$library")"
    if [ "$device" = cuda ] && [ -z "${TORCH_CUDA_ARCH_LIST:-}" ] && ! $dry_run; then
        TORCH_CUDA_ARCH_LIST=$("$python" -c 'import torch; print("%d.%d" % torch.cuda.get_device_capability())')
        if [ "$TORCH_CUDA_ARCH_LIST" = 9.0 ]; then TORCH_CUDA_ARCH_LIST=9.0a; fi
        export TORCH_CUDA_ARCH_LIST
    fi
    build=("$python" -m unireplknet_ops.build ${UNIREPLKNET_OPS_LIB_DIR:+--output "$UNIREPLKNET_OPS_LIB_DIR"})
    if [ "$device" = cuda ]; then build+=(--cuda); else build+=(--no-cuda); fi
    stage build 240 "${build[@]}"
fi
if ! stage library 60 "$python" -c "$one_convolution" "$device"; then
    note 'The op does not run here, so there is nothing to test or to measure.'
    exit 1
fi

parallel=()
if "$python" -c 'import xdist' 2>/dev/null; then parallel=(-n 4); fi
# The tests of the emulator run on the CPU, though their files' names have 'cuda' in them. Each test has a limit,
# and a name in the log before anything hangs; after an illegal access every other test fails too.
stage tests 180 "$python" -m pytest "$ops/tests" -v -k "$device" -p no:cacheprovider \
    --ignore-glob "$ops/tests/test_cuda_*" --maxfail=10 --timeout=60 -o timeout_method=thread "${parallel[@]}"

if [ "$device" = cpu ]; then
    stage small_set 60 "$python" "$ops/tests/small_set.py" cpu
elif sanitizer=$(command -v compute-sanitizer || command -v /usr/local/cuda/bin/compute-sanitizer); then
    for tool in memcheck racecheck initcheck; do
        stage "$tool" 90 env PYTORCH_NO_CUDA_MEMORY_CACHING=1 "$sanitizer" --tool "$tool" \
            --error-exitcode 1 "$python" "$ops/tests/small_set.py" cuda
    done
else
    note 'sanitizer  skipped  compute-sanitizer is neither on PATH nor in /usr/local/cuda/bin'
fi

tune_seconds=100
if [ "$(remaining)" -lt 300 ]; then tune_seconds=$(($(remaining) / 3)); fi
tune=("$python" -m unireplknet_ops.tune --device "$device" --output "$output/tuning")
if [ "$device" = cpu ]; then tune+=(--busy); fi
stage tune $((tune_seconds + 20)) "${tune[@]}" --minutes "$(awk "BEGIN { print $tune_seconds / 60 }")"
stage choice 60 env UNIREPLKNET_TUNING_DIR="$output/tuning" "$python" -c "$choice" "$device"

benchmark=("$python" -m unireplknet_ops.benchmark --device "$device" --markdown --output "$output/benchmark.json")
if [ "$device" = cpu ]; then benchmark+=(--quick); fi
left=$(remaining)
stage benchmark "$left" "${benchmark[@]}" --minutes "$(awk "BEGIN { print ($left > 70 ? $left - 50 : 20) / 60 }")"

if $dry_run; then exit 0; fi
cp "$output/stage.txt" "$output/benchmark.md"
rm -f "$output/stage.txt"
note "$passed stages passed, $failed failed, $SECONDS s. Results are in $output."
if [ "$failed" -gt 0 ]; then exit 1; fi
