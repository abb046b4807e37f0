# SPDX-License-Identifier: MIT
PYTHON  ?= python3
VENV    := .venv
BIN     := $(VENV)/bin
METHOD  ?=
DATA    ?= garments
PROFILE ?= quick
SEED    ?= 0
ARGS    ?=
SPEED   ?= $(filter-out common page,$(basename $(notdir $(wildcard benchmarks/speed/*.py))))
TABLES  := README.md docs/results.md
FAISS   := $(shell nvidia-smi >/dev/null 2>&1 && echo gpu || echo cpu,milvus)

.DEFAULT_GOAL := help
.PHONY: help setup bench test lint format leaderboard check regress speed clean

help: ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'
	@echo '  settings     METHOD=flam[/m-adv]|all DATA=garments|fashion-product|table PROFILE=quick|full|smoke SEED="0 1 2" ARGS="…"'

setup: $(VENV)/.installed ## create .venv with everything pinned by constraints.txt

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo 'Python 3.11 or newer is needed: make setup PYTHON=/path/to/python3.11' >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[$(FAISS),tensorboard,tune,dev]'
	@touch $@

bench: setup ## train, search and record: make bench METHOD=flam, or METHOD=all and several SEED and DATA
	@test -n '$(METHOD)' || { echo 'METHOD is not given: try make bench METHOD=flam' >&2; $(BIN)/fm-bench list methods >&2; exit 2; }
	@$(BIN)/fm-bench bench $(METHOD) --data $(DATA) --profile $(PROFILE) --seed $(SEED) $(ARGS)

test: setup ## the test suite
	@$(BIN)/python -m pytest -n 2 --dist worksteal

lint: setup ## ruff and mypy
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: setup ## let ruff rewrite the sources
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

leaderboard: setup ## rebuild all pages in leaderboards/ and the README's tables; fail if a record was edited
	@$(BIN)/fm-bench leaderboard build --readme $(TABLES)
	@$(BIN)/fm-bench leaderboard check --readme $(TABLES)

check: setup ## fail if the published page or table is not what the records say
	@$(BIN)/fm-bench leaderboard check --readme $(TABLES)

regress: setup ## run methods again (all with recorded scores, or METHOD=…), fail on a drop beyond the noise: make regress PROFILE=quick
	@$(BIN)/fm-bench regress $(or $(METHOD),all) --data $(DATA) --profile $(PROFILE) $(ARGS)

speed: setup ## benchmarks of our own hot paths, as ratios; also writes runs/speed/*.json
	@for name in $(SPEED); do echo "== $$name"; $(BIN)/python benchmarks/speed/$$name.py --json runs/speed/$$name.json || exit 1; done

clean: ## remove .venv, runs and caches
	rm -rf $(VENV) runs .mypy_cache .ruff_cache .pytest_cache .hypothesis
