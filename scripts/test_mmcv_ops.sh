#!/usr/bin/env bash
# Build mmcv with its compiled CPU ops, once, and check that the torchvision ops equal them.
#
#   PYTHON=/path/to/python scripts/test_mmcv_ops.sh [pytest options]
#
# PYTHON has torch and the OpenMMLab packages (default: .venv/bin/python). mmcv goes into an environment
# of its own, .venv-mmcv-ops, that sees PYTHON's packages: the first call takes about 12 minutes on two
# cores, a later one starts at once. MAX_JOBS limits the compilers that run at a time (1 GB each).
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-.venv/bin/python}
environment=.venv-mmcv-ops
log=$environment/build.log
requirement=$(grep '^onedl-mmcv==' requirements/onedl.txt)

if ! "$python" -c 'import torch, torchvision, mmengine, pytest' 2>/dev/null; then
  echo "test_mmcv_ops.sh: $python has no torch, torchvision, mmengine and pytest: run make setup, or" \
    'set PYTHON to an interpreter that has them' >&2
  exit 1
fi

# What the build depends on: mmcv's release, torch's, the interpreter and where its packages are.
describe='
import platform, sys, torch
packages = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
print(platform.python_version(), "torch", torch.__version__, *packages)'
built_from="$requirement $("$python" -c "$describe")"
stamp=$environment/.built_from

if [[ ! -f $stamp || $(cat "$stamp") != "$built_from" ]]; then
  if ! command -v c++ >/dev/null; then
    echo 'test_mmcv_ops.sh: no C++ compiler (c++): on Debian and Ubuntu, apt-get install g++' >&2
    exit 1
  fi
  echo "==> Creating $environment beside $python"
  rm -rf "$environment"
  "$python" -m venv "$environment"
  own_packages=$("$environment/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  "$python" -c 'import sys; print(*(p for p in sys.path if p.endswith("-packages")), sep="\n")' \
    >"$own_packages/borrowed.pth"
  install=("$environment/bin/python" -m pip --disable-pip-version-check install)
  "${install[@]}" --quiet -r requirements/build.txt

  echo "==> Building $requirement with its CPU ops (about 12 minutes on two cores; log: $log)"
  # No wheel from a cache or an index will do: those are built without torch, hence without ops.
  build=(env CUDA_VISIBLE_DEVICES='' FORCE_CUDA=0 MAX_JOBS="${MAX_JOBS:-$(nproc)}"
    "${install[@]}" --verbose --ignore-installed --no-deps --no-build-isolation --no-cache-dir
    --no-binary onedl-mmcv "$requirement")
  if ! "${build[@]}" 2>&1 | tee "$log" |
    awk 'match($0, /^ *\[[0-9]+\/[0-9]+\]/) { printf "\r    compiled %s", $1; fflush() }'; then
    echo
    tail -n 20 "$log" >&2
    echo "test_mmcv_ops.sh: building $requirement failed, see $log" >&2
    exit 1
  fi
  echo
  "$environment/bin/python" -c 'import torch, mmcv._ext'
  echo "$built_from" >"$stamp"
fi

echo '==> Comparing torchvision and mmcv'
UNIREPLKNET_REQUIRE_MMCV_OPS=1 PYTHONPATH=$PWD:$PWD/ops "$environment/bin/python" -m pytest \
  tests/test_mmcv_ops.py "$@"

echo "==> Swapping the backbone of models that need mmcv's compiled ops"
exec "$environment/bin/python" scripts/swap_table.py --compiled-ops
