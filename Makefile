# Everything on a fresh machine with only git, make and python3 (3.11 or newer) with venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: install demo test lint book readme faults gpu-check mutants clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev,book]'
	touch $@

demo: install
	$(BIN)/orthocond train --preset quick --out runs/demo
	$(BIN)/orthocond train --preset quick-gcp --out runs/demo
	$(BIN)/orthocond plot fig1 fig2 fig3 fig4 fig5 --runs runs/demo --out runs/demo/figures --format png
	$(BIN)/orthocond table tab2 tab4 tab5 --runs runs/demo

test: install
	$(BIN)/python -m pytest -n auto

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

book: install
	rm -rf book/_build
	$(BIN)/jupyter-book build book -W --keep-going

readme: install
	cd tests && ../$(BIN)/python -m readme

faults: install
	cd tests && ../$(BIN)/python -m faults

gpu-check: install
	cd tests && ../$(BIN)/python -m gpu

# An hour and more; stopped, it goes on where it was. tests/mutants.md says what survives.
mutants: install
	$(BIN)/python -m pip install --quiet 'mutmut>=3.8'
	OMP_NUM_THREADS=1 $(BIN)/mutmut run
	$(BIN)/mutmut results

clean:
	rm -rf $(VENV) build dist book/_build mutants .pytest_cache .mypy_cache .ruff_cache
