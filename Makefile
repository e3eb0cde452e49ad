# make demo    install, then learn a denoiser and write runs/demo/report.html
# make test    install, then run the whole suite
# make help    all targets
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
.DEFAULT_GOAL := help
.PHONY: help demo test bench docs lint format clean

help: ## this list
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

demo: $(VENV)/.installed-cli ## learn a denoiser from photographs, write a report (under 2 minutes)
	@$(BIN)/python -m bilevel demo

test: $(VENV)/.installed-cli,test ## the whole suite
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

bench: $(VENV)/.installed-cli,test,bench ## the benchmarks, their tables go to benchmarks/results
	@$(BIN)/python -m benchmarks

docs: $(VENV)/.installed-cli,docs ## the documentation, in docs/_build/html
	@$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

lint: $(VENV)/.installed-cli,test,dev ## ruff and pyright
	@$(BIN)/python -m ruff format --check . && $(BIN)/python -m ruff check . && $(BIN)/python -m pyright

format: $(VENV)/.installed-cli,test,dev ## let ruff rewrite the files
	@$(BIN)/python -m ruff format . && $(BIN)/python -m ruff check --fix .

clean: ## remove caches and builds; keeps .venv and runs
	rm -rf build dist docs/_build docs/gallery docs/generated .pytest_cache .ruff_cache .hypothesis
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +

# One stamp for each set of extras: installs again when the requirements change, else does nothing.
$(VENV)/.installed-%: pyproject.toml constraints.txt | $(VENV)/.created
	@echo "Installing bilevel[$*] into $(VENV), versions as in constraints.txt (minutes the first time)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[$*]"
	@touch $@

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "bilevel needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1)." \
	       "Run: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "Creating the environment $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV) || { \
	  echo "Could not create $(VENV): see the message above" \
	       "(Debian and Ubuntu: apt install python3-venv)." >&2; exit 1; }
	@touch $@
