# The first two things to run: `make demo` and `make test`. Each sets up its own environment. `make` alone
# compiles the op's libraries.
#
#   UNIREPLKNET_PYTHON=/path/to/python make ...   use an interpreter that already has the stack
#   PYTHON=/path/to/python3.x make ...            make .venv from this Python (3.10 to 3.13)
#   UNIREPLKNET_BUILD_CUDA=0|1 make ...           leave the op's CUDA kernels out, or insist on them

.DEFAULT_GOAL := ops
SHELL := /bin/bash
VENV := .venv
VENV_OPENMMLAB := .venv-openmmlab
SHELL_SCRIPTS = $(shell git ls-files '*.sh') .ci/run
NATIVE_SOURCES = $(shell git ls-files '*.cpp' '*.h' '*.cu' '*.cuh')

ifdef UNIREPLKNET_PYTHON
RUN := PYTHONPATH="$(CURDIR):$(CURDIR)/ops$${PYTHONPATH:+:$$PYTHONPATH}" "$(UNIREPLKNET_PYTHON)"
TOOL_DIRECTORY := $(dir $(shell command -v "$(UNIREPLKNET_PYTHON)"))
else
RUN := $(VENV)/bin/python
TOOL_DIRECTORY := $(VENV)/bin/
endif

# Tests and demo use what runs on this machine: the CUDA kernels, which take minutes to compile, are built
# where there is an NVIDIA driver, or to keep a library up to date that `make ops` has built.
BUILD_OPS := ops/unireplknet_ops/build.py --where-possible $(if $(UNIREPLKNET_BUILD_CUDA)$(wildcard \
	/proc/driver/nvidia /dev/dxg ops/unireplknet_ops/lib/libunireplknet_ops_cuda.so),,--no-cuda)

.PHONY: help environment setup ops demo test test-openmmlab test-mmcv-ops test-configs test-swap test-wheel \
	test-mim test-export fuzz-ops lint format clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 18

environment:
ifdef UNIREPLKNET_PYTHON
	@$(RUN) scripts/check_environment.py
else
	@scripts/setup_env.sh $(VENV) onedl
endif

setup: environment  ## create or update .venv and the op's library (the other targets do it themselves)
	@$(RUN) $(BUILD_OPS)

ops: environment  ## build the op's libraries, the CUDA kernels too where nvcc and a CUDA torch are
	@$(RUN) ops/unireplknet_ops/build.py

demo: setup  ## train, evaluate and re-parameterize a small Cascade Mask R-CNN on real images
	@$(RUN) tools/demo.py

test: setup  ## run the test-suite
	@$(RUN) -m pytest

test-openmmlab:  ## run the test-suite on the packages that OpenMMLab published
	@scripts/setup_env.sh $(VENV_OPENMMLAB) openmmlab
	@$(VENV_OPENMMLAB)/bin/python $(BUILD_OPS)
	@$(VENV_OPENMMLAB)/bin/python -m pytest

test-mmcv-ops: setup  ## build mmcv's compiled ops once (12 minutes) and compare with torchvision's
	@PYTHON="$(if $(UNIREPLKNET_PYTHON),$(UNIREPLKNET_PYTHON),$(VENV)/bin/python)" scripts/test_mmcv_ops.sh

test-configs: setup  ## train a config of every kind on demo data, which the test-suite does with a few
	@UNIREPLKNET_TEST_ALL_CONFIGS=1 $(RUN) -m pytest tests/configs/test_demo_trainings.py

test-swap: setup  ## swap the backbone of 115 published configs and run them: the table in docs/swapping.md
	@$(RUN) scripts/swap_table.py

test-export: setup  ## write and run files of every format: AOTInductor (also from C++), OpenVINO, int8
	@UNIREPLKNET_TEST_EXPORT=1 $(RUN) -m pytest tests/export

test-wheel: environment  ## test the op's wheel in other Pythons and with other torch releases (downloads them)
	@PYTHON="$(if $(UNIREPLKNET_PYTHON),$(UNIREPLKNET_PYTHON),$(VENV)/bin/python)" scripts/test_wheel.sh

test-mim: environment  ## mim train, test and run of an installation, with onedl-mim and openmim (downloads them)
	@PYTHON="$(if $(UNIREPLKNET_PYTHON),$(UNIREPLKNET_PYTHON),$(VENV)/bin/python)" scripts/test_mim.sh

fuzz-ops: environment  ## 10,000 random calls of each operator with AddressSanitizer
	@$(RUN) ops/tests/fuzz.py --sanitize

lint: environment  ## check style and the order of imports: ruff, import-linter, clang-format, shellcheck
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .
	@PYTHONPATH="$(CURDIR):$(CURDIR)/ops" $(TOOL_DIRECTORY)lint-imports --no-cache --no-logo
	@$(TOOL_DIRECTORY)shellcheck $(SHELL_SCRIPTS)
	@$(if $(NATIVE_SOURCES),$(TOOL_DIRECTORY)clang-format --dry-run --Werror $(NATIVE_SOURCES),true)

format: environment  ## rewrite the sources in the project's style
	@$(RUN) -m ruff check --fix .
	@$(RUN) -m ruff format .
	@$(if $(NATIVE_SOURCES),$(TOOL_DIRECTORY)clang-format -i $(NATIVE_SOURCES),true)

clean:  ## remove environments, built libraries and generated data, keep work_dirs
	rm -rf $(VENV) $(VENV_OPENMMLAB) .venv-mmcv-ops .venv-wheel .venv-mim data/demo build ops/build \
		unireplknet_mm/.mim \
		ops/unireplknet_ops/lib *.egg-info ops/*.egg-info
