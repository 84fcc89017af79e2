#!/usr/bin/env bash
# Create or update a virtual environment that holds torch, one OpenMMLab stack and the two packages.
#
#   scripts/setup_env.sh DIRECTORY [onedl|openmmlab]
#
# onedl are the maintained forks (default), openmmlab the packages that OpenMMLab published. The first
# call takes minutes and about 6 GB; a later one starts at once unless a requirement has changed.
# PYTHON=/path/to/python3.x chooses the interpreter (3.10 to 3.13).
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
directory=${1:?usage: scripts/setup_env.sh DIRECTORY [onedl|openmmlab]}
stack=${2:-onedl}
if [[ ! -f requirements/$stack.txt || ! $stack =~ ^(onedl|openmmlab)$ ]]; then
  echo "setup_env.sh: unknown stack '$stack': choose onedl or openmmlab" >&2
  exit 2
fi

supported='import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))'
find_python() {
  local candidate
  for candidate in ${PYTHON:+"$PYTHON"} python3 python3.12 python3.11 python3.13 python3.10; do
    if "$candidate" -c "$supported" 2>/dev/null; then
      echo "$candidate"
      return
    fi
    if [[ -n ${PYTHON:-} ]]; then
      echo "setup_env.sh: PYTHON=$PYTHON is not a working Python 3.10 to 3.13" >&2
      exit 1
    fi
  done
  echo 'setup_env.sh: no Python 3.10 to 3.13 found: install one, or set PYTHON=/path/to/python3.x' >&2
  exit 1
}

# What the environment was made from: the requirements and the packaging, not the code (it is editable).
fingerprint=$(cat requirements/{torch,build,runtime,demo,benchmark,audio,point_cloud,time_series,video,onnx,openvino,dev,"$stack"}.txt {,ops/}setup.py scripts/setup_env.sh |
  cksum | tr -d ' \n')
stamp=$directory/.unireplknet_mm
if [[ -f $stamp && $(cat "$stamp") == "$stack $fingerprint $PWD" ]]; then
  exit 0
fi

python=$(find_python)
if [[ ! -x $directory/bin/python ]] || ! "$directory/bin/python" -c "$supported" 2>/dev/null; then
  echo "==> Creating $directory with $("$python" --version)"
  if ! "$python" -m venv --clear "$directory"; then
    echo "setup_env.sh: '$python -m venv' failed: on Debian and Ubuntu, apt-get install python3-venv" >&2
    exit 1
  fi
fi
rm -f "$stamp"
install() {
  "$directory/bin/python" -m pip install --quiet --disable-pip-version-check --progress-bar off "$@"
}
echo '==> Installing torch and torchvision (about 2 minutes and 5 GB the first time)'
install --upgrade 'pip>=24'
install -r requirements/torch.txt -r requirements/build.txt
echo '==> Installing what the OpenMMLab packages need'
install -r requirements/runtime.txt -r requirements/demo.txt -r requirements/benchmark.txt \
  -r requirements/audio.txt -r requirements/point_cloud.txt -r requirements/time_series.txt -r requirements/video.txt \
  -r requirements/onnx.txt -r requirements/openvino.txt -r requirements/dev.txt
echo "==> Installing the OpenMMLab packages ($stack)"
install --no-deps -r "requirements/$stack.txt"
echo '==> Installing unireplknet_ops and unireplknet_mm in editable mode'
# setuptools warns about every editable installation. The Makefile builds the op, so that one sees it.
UNIREPLKNET_BUILD_OPS=0 PYTHONWARNINGS=ignore install --no-deps --no-build-isolation \
  --editable ./ops --editable .
echo "$stack $fingerprint $PWD" >"$stamp"
echo "==> $directory is ready"
