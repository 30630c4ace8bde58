# Everything a newcomer needs. Tests run a process a core, so each has one thread. The virtual environment is made once, and again
# when pyproject or the constraints change, which keep torch at its small CPU build; for a GPU: pip install -e . by hand.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?= optimizer=adam
MINUTES ?= 60

.DEFAULT_GOAL := help
.PHONY: help train test test-slow soak gpu-check check format wheel clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

train: $(VENV)/.installed ## Install lungan and train on the embedded data (ARGS="key=value ...")
	$(BIN)/python -m lungan.train $(ARGS)

test: $(VENV)/.tested ## Install what the tests need and run them (under 6 minutes on 2 cores)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

test-slow: $(VENV)/.tested ## The tests that take longer
	$(BIN)/python -m pytest -m slow

soak: $(VENV)/.tested ## Attack lungan for an hour (MINUTES=60): kills, full disks, damaged files, bad arguments
	OMP_NUM_THREADS=1 $(BIN)/python tests/attack/soak.py --minutes $(MINUTES) --json results/soak/soak.json

gpu-check: ## Tests and figures of a GPU, by a Python with lungan[test] and a torch that sees one (PYTHON=...)
	@$(PYTHON) -c 'import sys, torch; sys.exit(0 if torch.cuda.is_available() else "gpu-check: torch finds no CUDA device in this Python; give another by PYTHON=...")'
	$(PYTHON) -m pytest -m gpu
	$(PYTHON) benchmarks/train_step.py --device cuda --steps 50 --processes 1,4,8 --json results/benchmarks/train_step_gpu.json
	$(PYTHON) benchmarks/train_step.py --device cuda --experiment small_data_64 --size 64 --json results/benchmarks/train_step_64_gpu.json
	$(PYTHON) benchmarks/train_step.py --device cuda --experiment small_data_128 --size 128 --json results/benchmarks/train_step_128_gpu.json

check: $(VENV)/.developing ## Lint, format and type checks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.developing ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel: $(VENV)/.developing ## Build the wheel into dist/
	$(BIN)/python -m build --wheel

clean: ## Remove the virtual environment and what tools left (runs stay)
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit("lungan needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; use make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints-cpu.txt | $(VENV)/bin/python
	@echo "installing into $(VENV): a minute or two"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints-cpu.txt -e .
	@touch $@

$(VENV)/.tested: pyproject.toml constraints-cpu.txt | $(VENV)/bin/python
	@echo "installing into $(VENV): a minute or two"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints-cpu.txt -e '.[test]'
	@touch $(VENV)/.installed $@

$(VENV)/.developing: pyproject.toml constraints-cpu.txt | $(VENV)/bin/python
	@echo "installing into $(VENV): a minute or two"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints-cpu.txt -e '.[dev]'
	@touch $(VENV)/.installed $(VENV)/.tested $@
