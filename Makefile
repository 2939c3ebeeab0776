# Everything a user or CI runs. The virtual environment is made on the first call.
SHELL := /bin/sh
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
.DELETE_ON_ERROR:
.PHONY: help install demo lab test test-fast lint docs bench soak wheels lock clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

$(STAMP): requirements.lock pyproject.toml hatch_build.py dualstream_lab/publisher/compiled.pyx
	@sh scripts/venv.sh $(VENV)
	@echo "installing the pinned requirements into $(VENV) …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $@

install: $(STAMP) ## make the virtual environment

demo: $(STAMP) ## 20 s of 10,000 events/s through a Redis outage, with a table and a picture
	@$(BIN)/dualstream demo $(ARGS)

lab: $(STAMP) ## JupyterLab on the notebooks
	$(BIN)/jupyter lab --notebook-dir=notebooks $(ARGS)

test: $(STAMP) lint ## all tests, on a real Kafka and a real Valkey, two files at a time
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder $(ARGS)

test-fast: $(STAMP) ## the tests that need no broker, browser, notebook or simulation, in a minute
	$(BIN)/python -m pytest --fast --numprocesses 2 --dist loadfile $(ARGS)

lint: $(STAMP) ## ruff, mypy strict, import-linter
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(STAMP) ## the documentation as a site, notebooks run (15 min; ARGS='-D nb_execution_mode=off': not)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r docs/requirements.lock
	$(BIN)/python -m sphinx -E -W --keep-going -q -b html $(ARGS) docs docs/_build/html
	@echo "open docs/_build/html/index.html"

bench: $(STAMP) ## ratios against peers, measured side by side
	@$(BIN)/python -m benchmarks $(ARGS)

soak: $(STAMP) ## millions of events through every fault, proved (20 min; ARGS=--quick: 3)
	@$(BIN)/python -m benchmarks soak $(ARGS)

wheels: $(STAMP) ## wheels with the compiled core, for Linux and macOS, into dist/
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r scripts/wheels.lock
	@$(BIN)/python scripts/wheels.py

lock: ## resolve requirements.lock anew (needs uv)
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
		--no-emit-index-url --no-emit-find-links --all-extras --group dev pyproject.toml -o requirements.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --constraint requirements.lock \
		--no-emit-index-url --no-emit-find-links --group docs -o docs/requirements.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --constraint requirements.lock \
		--no-emit-index-url --no-emit-find-links --group wheels -o scripts/wheels.lock

clean: ## remove what was built
	rm -rf $(VENV) dist build docs/_build docs/notebooks .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
