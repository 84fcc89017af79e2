#!/usr/bin/env bash
# Build both wheels, and test that of the op in other Pythons and with other torch releases.
#
#   PYTHON=/path/to/python scripts/test_wheel.sh [PYTHON_VERSION:TORCH_VERSION ...]
#
# PYTHON (default: .venv/bin/python) builds the wheels. Each pair gets an environment of its own,
# in .venv-wheel, made with pythonPYTHON_VERSION from PATH and kept: the first call downloads up to 3 GB
# a pair. Without arguments: the pairs below for whose Python there is an interpreter, at least two.
# UNIREPLKNET_BUILD_CUDA=1 puts the CUDA kernels into the wheel too; loading them needs no GPU.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-.venv/bin/python}
wheels=build/test-wheel
export UNIREPLKNET_BUILD_OPS=1 UNIREPLKNET_BUILD_CUDA=${UNIREPLKNET_BUILD_CUDA:-0}
export PIP_DISABLE_PIP_VERSION_CHECK=1

pairs=("$@")
if (($# == 0)); then
  for pair in 3.10:2.10.0 3.11:2.11.0 3.12:2.13.0 3.13:2.11.0; do
    if "python${pair%%:*}" -c '' 2>/dev/null; then
      pairs+=("$pair")
    else
      echo "test_wheel.sh: no python${pair%%:*}: $pair is left out" >&2
    fi
  done
  if ((${#pairs[@]} < 2)); then
    echo 'test_wheel.sh: needs two of python3.10 to python3.13 in PATH' >&2
    exit 1
  fi
fi

rm -rf "$wheels" build/lib
"$python" -m pip wheel --quiet ./ops . --no-deps --no-build-isolation --wheel-dir "$wheels"
for name in unireplknet_ops-*-py3-none-linux_*.whl unireplknet_mm-*-py3-none-any.whl; do
  if ! compgen -G "$wheels/$name" >/dev/null; then
    echo "test_wheel.sh: there is no $name among: $(ls "$wheels")" >&2
    exit 1
  fi
done
wheel=$(echo "$wheels"/unireplknet_ops-*.whl)
echo "==> $wheel, built with $("$python" -c 'import platform, torch
print("Python", platform.python_version(), "and torch", torch.__version__)')"

# The Python layer rests on parts of torch that change between releases, so its tests run on each.
tests=(test_import test_library test_functional test_operators test_modules test_dispatch test_naive
  test_feed_forward test_gelu_grn test_dilated_reparam test_torch_internals)
for pair in "${pairs[@]}"; do
  environment=.venv-wheel/python${pair/:/-torch}
  if [[ ! -x $environment/bin/python ]]; then
    "python${pair%%:*}" -m venv "$environment"
  fi
  install=("$environment/bin/python" -m pip install --quiet)
  "${install[@]}" "torch==${pair##*:}" pytest
  "${install[@]}" --no-deps --force-reinstall "$wheel"
  # -E and -s: what is installed there, not what PYTHONPATH has.
  "$environment/bin/python" -E -s ops/tests/check_wheel.py
  (cd ops/tests && ../../"$environment/bin/python" -E -s -m pytest -q -p no:cacheprovider -r f \
    "${tests[@]/%/.py}")
done
