#!/usr/bin/env bash
# Collect in one folder what gpu_check.sh takes to a GPU machine that reaches no registry.
#
#   bash ops/gpu_pack.sh [--suite] [--architectures 9.0a] [--python 3.12] [--limit MiB] DIR
#   bash ops/gpu_pack.sh --list-wheels [--python 3.12]
#
# DIR gets lib/, the op's two libraries with the CUDA kernels for the architectures named, and time_plans, the
# program of time_tensor_core_plans.cu; nvcc is needed, a GPU is not. The op needs nothing else. With --suite it
# gets wheels/ too: what the whole suite imports and an image for deep learning lacks. What such an image has
# (torch, timm, OpenCV, pytest, ...) stands in IN_THE_IMAGE below.
#
# --list-wheels prints each wheel of --suite with its size, and their sum. Sizes are printed in any case, and a
# DIR of more than --limit MiB (64) is an error. The FFT that the benchmark compares with where it is installed
# (subquadratic-ops-torch-cu13) is a wheel of 234 MB and is not carried. PYTHON (python3) needs torch for CUDA,
# ninja and pip; wheels are kept in ops/build, so that a second call finds them there.
set -euo pipefail

ops=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
usage() { sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}" >&2; exit 2; }

suite=false
list=false
architectures=9.0a
version=3.12
limit=64
target=
while [ $# -gt 0 ]; do
    case $1 in
        --suite) suite=true; shift ;;
        --list-wheels) list=true; shift ;;
        --architectures) architectures=${2:?--architectures needs a list such as 9.0a}; shift 2 ;;
        --python) version=${2:?--python needs a version such as 3.12}; shift 2 ;;
        --limit) limit=${2:?--limit needs a number of MiB}; shift 2 ;;
        -*) usage ;;
        *) if [ -n "$target" ]; then usage; fi; target=$1; shift ;;
    esac
done
if $list; then suite=true; elif [ -z "$target" ]; then usage; fi
if ! [[ $version =~ ^3\.[0-9]+$ && $limit =~ ^[0-9]+$ ]]; then
    echo "gpu_pack.sh: --python $version or --limit $limit is not a number: write 3.12 and 64" >&2
    exit 2
fi
python=${PYTHON:-python3}

IN_THE_IMAGE='einops matplotlib numpy opencv-python-headless packaging pillow pyyaml regex rich scikit-image
    scipy six tqdm'
# What the requirements leave to pip to find.
NEEDED_BY_THEM=(markdown model-index ordered-set platformdirs wcwidth)
# With machine code inside: the wheel has to be the other machine's. All others are pure Python.
COMPILED='pycocotools shapely wcwidth'

# The suite's requirements that have to be carried, one a line.
requirements() {
    local name
    while read -r line; do
        name=${line%%==*}
        if [ -n "$name" ] && [[ $name != \#* ]] && ! grep -qw -- "$name" <<<"$IN_THE_IMAGE"; then echo "$line"; fi
    done < <(cat "$ops"/../requirements/{runtime,onedl}.txt)
    printf '%s\n' "${NEEDED_BY_THEM[@]}"
}

collect_wheels() {
    local wheels=$1 line pip=("$python" -m pip)
    local platforms=(--platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64)
    mkdir -p "$wheels"
    while read -r line; do
        if grep -qw -- "${line%%==*}" <<<"$COMPILED"; then
            "${pip[@]}" download --quiet --no-deps --only-binary=:all: --implementation cp \
                --python-version "$version" "${platforms[@]}" --dest "$wheels" "$line"
        else
            MMCV_WITH_OPS=0 "${pip[@]}" wheel --quiet --no-deps --wheel-dir "$wheels" "$line"
        fi
    done < <(requirements)
}

sizes() {
    du --bytes --apparent-size "$@" | sort -n | awk '{ sum += $1; printf "%8.2f MiB  %s\n", $1 / 2^20, $2 }
        END { printf "%8.2f MiB  in all\n", sum / 2^20 }'
}

wheels=$ops/build/gpu_wheels-$version
if $suite; then collect_wheels "$wheels"; fi
if $list; then
    (cd "$wheels" && sizes ./*.whl)
    exit 0
fi

mkdir -p "$target/lib"
libraries=$ops/build/gpu_lib
TORCH_CUDA_ARCH_LIST=$architectures "$python" "$ops/unireplknet_ops/build.py" --cuda --output "$libraries" >/dev/null
cp "$libraries"/*.so "$target/lib/"
nvcc=$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)
codes=()
for architecture in ${architectures//;/ }; do
    number=${architecture/./}
    codes+=("-gencode=arch=compute_$number,code=sm_$number")
done
"$nvcc" -std=c++17 -O3 --expt-relaxed-constexpr "${codes[@]}" -I "$ops/csrc/depthwise_conv2d/cuda" \
    "$ops/time_tensor_core_plans.cu" -o "$target/time_plans"
rm -rf "$target/wheels"
if $suite; then cp -r "$wheels" "$target/wheels"; fi
mapfile -t files < <(find "$target" -type f)
sizes "${files[@]}"
total=$(du --bytes --apparent-size "${files[@]}" | awk '{ sum += $1 } END { print int(sum / 2^20) + 1 }')
if [ "$total" -gt "$limit" ]; then
    echo "gpu_pack.sh: $target holds $total MiB, above --limit $limit: name fewer --architectures" >&2
    exit 1
fi
