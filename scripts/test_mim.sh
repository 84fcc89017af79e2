#!/usr/bin/env bash
# mim train, mim test and mim run, and names in the inferencers, from a wheel and, with onedl-mim, from an
# editable install; openmim finds no package that a current pip has installed so.
#
#   PYTHON=/path/to/python scripts/test_mim.sh [onedl-mim|openmim ...]
#
# PYTHON (default: .venv/bin/python) has torch and an OpenMMLab stack. Each client gets an environment of its own
# in .venv-mim, kept, which sees PYTHON's packages and has the wheel, or an editable copy of the checkout, before
# them. The first call downloads the clients; a train and a test run on demo data.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
python=$(command -v "${PYTHON:-.venv/bin/python}")
clients=("$@")
((${#clients[@]})) || clients=(onedl-mim openmim)
export PIP_DISABLE_PIP_VERSION_CHECK=1 UNIREPLKNET_BUILD_OPS=0 PYTHONWARNINGS=ignore
unset PYTHONPATH

declare -A versions=([onedl-mim]=onedl-mim==0.5.1 [openmim]=openmim==0.3.9)
# What they import beside the stack; their own lists ask for more, which nothing here needs.
imported=(click colorama model-index 'pandas<3' requests rich tabulate)
config=unireplknet_a_in1k.py
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

checkout=$work/checkout
mkdir "$checkout"
git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t "$checkout"
build=("$python" -m pip wheel --quiet --no-deps --no-build-isolation)
"${build[@]}" --wheel-dir "$work/op" "$checkout/ops" # without its library
"${build[@]}" --wheel-dir "$work/wheels" "$checkout"
# The same wheel from a source distribution: it holds what the wheel carries.
(cd "$checkout" && rm -rf build && "$python" setup.py --quiet sdist --dist-dir "$work/sdist")
"${build[@]}" --wheel-dir "$work/from_sdist" "$work"/sdist/*.tar.gz
contents() { "$python" -m zipfile --list "$1" | awk 'NR > 1 {print $1}' | sort; }
diff <(contents "$work"/wheels/*.whl) <(contents "$work"/from_sdist/*.whl)

for client in "${clients[@]}"; do
  if [[ -z ${versions[$client]:-} ]]; then
    echo "test_mim.sh: unknown client '$client': choose onedl-mim or openmim" >&2
    exit 2
  fi
  environment=$root/.venv-mim/$client
  bin=$environment/bin
  if [[ ! -x $bin/mim ]]; then
    "$python" -m venv --clear "$environment"
    "$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
      >"$("$bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/stack.pth"
    "$bin/python" -m pip install --quiet "${imported[@]}"
    "$bin/python" -m pip install --quiet --no-deps "${versions[$client]}"
  fi

  install=("$bin/python" -m pip install --quiet --no-deps --no-build-isolation --force-reinstall)
  "${install[@]}" "$work"/op/*.whl
  kinds=(wheel)
  if [[ $client == onedl-mim ]]; then kinds+=(editable); fi
  for kind in "${kinds[@]}"; do
    echo "==> $client, $kind"
    if [[ $kind == wheel ]]; then
      "${install[@]}" "$work"/wheels/*.whl
      given=$config # mim finds it by its name
    else
      "${install[@]}" --editable "$checkout"
      # It searches the checkout, where the name stands twice: in configs and linked in the package.
      given=$checkout/configs/cls/$config
    fi
    run=$work/$client-$kind
    mkdir "$run"
    cd "$run"
    "$bin/mim" train unireplknet_mm "$given" --launcher none --demo-data --device cpu --work-dir work >log 2>&1 ||
      { tail -n 30 log >&2; exit 1; }
    "$bin/mim" test unireplknet_mm "$given" --checkpoint "$(<work/last_checkpoint)" --demo-data --device cpu \
      --work-dir work >>log 2>&1 || { tail -n 30 log >&2; exit 1; }
    home=$("$bin/python" -c 'from unireplknet_mm import zoo; print(zoo.home())')
    "$bin/mim" run unireplknet_mm get_flops "$home/configs/cls/$config" | tee -a log | grep -E '^whole +4\.[34]'
    "$bin/python" "$root/scripts/check_mim.py" "$kind" "$checkout"
    cd "$root"
  done
  "${install[@]}" "$work"/wheels/*.whl
  "$bin/python" -m pip uninstall --quiet --yes unireplknet-mm
  if [[ -n $(find "$environment"/lib/python*/site-packages/unireplknet_m* -type f 2>/dev/null) ]]; then
    echo "test_mim.sh: the uninstalled package left files behind" >&2
    exit 1
  fi
done
echo 'mim works.'
