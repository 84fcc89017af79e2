# The first two things to run: `make demo` and `make test`. Each sets up its own environment.
#
#   UNIREPLKNET_PYTHON=/path/to/python make ...   use an interpreter that already has the stack
#   PYTHON=/path/to/python3.x make ...            make .venv from this Python (3.10 to 3.13)

SHELL := /bin/bash
VENV := .venv
VENV_OPENMMLAB := .venv-openmmlab
SHELL_SCRIPTS = $(shell git ls-files '*.sh') .ci/run
NATIVE_SOURCES = $(shell git ls-files '*.cpp' '*.h' '*.cu' '*.cuh')

ifdef UNIREPLKNET_PYTHON
RUN := PYTHONPATH="$(CURDIR)$${PYTHONPATH:+:$$PYTHONPATH}" "$(UNIREPLKNET_PYTHON)"
TOOL_DIRECTORY := $(dir $(shell command -v "$(UNIREPLKNET_PYTHON)"))
else
RUN := $(VENV)/bin/python
TOOL_DIRECTORY := $(VENV)/bin/
endif

.PHONY: help setup demo test test-openmmlab test-mmcv-ops lint format clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 18

setup:  ## create or update .venv (the other targets do it themselves)
ifdef UNIREPLKNET_PYTHON
	@$(RUN) tools/check_environment.py
else
	@tools/setup_env.sh $(VENV) onedl
endif

demo: setup  ## train, evaluate and re-parameterize a small Cascade Mask R-CNN on real images
	@$(RUN) tools/demo.py

test: setup  ## run the test-suite
	@$(RUN) -m pytest

test-openmmlab:  ## run the test-suite on the packages that OpenMMLab published
	@tools/setup_env.sh $(VENV_OPENMMLAB) openmmlab
	@$(VENV_OPENMMLAB)/bin/python -m pytest

test-mmcv-ops: setup  ## build mmcv's compiled ops once (12 minutes) and compare with torchvision's
	@PYTHON="$(if $(UNIREPLKNET_PYTHON),$(UNIREPLKNET_PYTHON),$(VENV)/bin/python)" tools/test_mmcv_ops.sh

lint: setup  ## check style: ruff, clang-format, shellcheck
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .
	@$(TOOL_DIRECTORY)shellcheck $(SHELL_SCRIPTS)
	@$(if $(NATIVE_SOURCES),$(TOOL_DIRECTORY)clang-format --dry-run --Werror $(NATIVE_SOURCES),true)

format: setup  ## rewrite the sources in the project's style
	@$(RUN) -m ruff check --fix .
	@$(RUN) -m ruff format .
	@$(if $(NATIVE_SOURCES),$(TOOL_DIRECTORY)clang-format -i $(NATIVE_SOURCES),true)

clean:  ## remove environments and generated data, keep work_dirs
	rm -rf $(VENV) $(VENV_OPENMMLAB) .venv-mmcv-ops data/demo build *.egg-info
