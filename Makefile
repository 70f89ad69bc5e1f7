# Two commands matter: make demo, make test; make quick while you write. Both build .venv once, from constraints.txt.
PYTHON ?= python3
BIN := .venv/bin
OUT ?= runs/digits
SECONDS ?= 600
SEED ?= 0

.DEFAULT_GOAL := help
.PHONY: help demo test quick fuzz files lint format bench lock licences clean

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 8

demo: .venv/.stamp  ## distil a small encoder on real images and write runs/digits/report.html (15 minutes, 2 cores)
	$(BIN)/bingo run digits --out $(OUT)

test: .venv/.stamp  ## every test (half an hour, 2 cores; ARGS=--whole: with every case); make test PART=images ARGS=-x: of a folder or file
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS) tests/$(PART)

quick: .venv/.stamp  ## lint, the tests that need no torch, one case of each op (a minute and a half of CPU at most)
	@bash -c 'time { $(MAKE) --no-print-directory lint && $(BIN)/python -m pytest -q -m quick $(ARGS); }'

fuzz: .venv/.stamp  ## random shapes through every compiled kernel on the CPU, then planted faults (SECONDS=600 SEED=0)
	$(BIN)/python -m tests.softgpu.fuzz --seconds $(SECONDS) --seed $(SEED)
	$(BIN)/python -m tests.softgpu.mutations
	$(BIN)/python -m tests.softgpu.mutate_ptx hopper 90

files:  ## every source file with its sentence
	@$(PYTHON) -m tests.support.file_list

lint: .venv/.stamp  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/.stamp  ## what ruff mends by itself
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/.stamp  ## kernels against the naive loss on this machine, and the ahead-of-time report
	$(BIN)/bingo bench env
	$(BIN)/bingo bench kernels
	$(BIN)/bingo bench aot

lock: .venv/.stamp  ## constraints.txt again: every version, with the hashes of its files (UPGRADE=--upgrade: newer ones)
	$(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet --disable-pip-version-check uv==0.13.9
	build/lock/bin/uv pip compile --quiet pyproject.toml --extra report --extra demo --extra teachers --extra export --extra lite0 --extra dev --universal --generate-hashes --no-annotate \
		--python-version 3.11 --no-emit-package colorama --no-emit-package httpx2-jsfetch --custom-compile-command 'make lock' --output-file constraints.txt $(UPGRADE)

licences: .venv/.stamp  ## docs/licences.md again, from what is installed
	$(BIN)/python -m tests.support.licences

clean:  ## remove the environment, runs and caches
	rm -rf .venv runs build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.stamp: constraints.txt pyproject.toml preflight.sh
	@sh preflight.sh $(PYTHON)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@
