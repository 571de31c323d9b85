# Everything on a fresh machine with only git, make and python3 (3.11 or newer) with venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# For what is installed and, by the second name from pip 25.3 on, for what builds this package.
PINNED := PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt

.PHONY: install lock demo test lint book wheel-check results readme faults gpu-check gpu-measure rivals rivals-times mutants clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PINNED) $(BIN)/python -m pip install --quiet --editable '.[dev,book]'
	touch $@

# The newest versions that go together become the tested ones. With PYTHON=python3.11, the oldest
# that is supported, they are versions that every later Python has too. Run the tests after it.
lock:
	rm -rf build/lock
	$(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet --upgrade setuptools
	build/lock/bin/python -m pip install --quiet '.[dev,book,mutants,rivals]'
	build/lock/bin/python tests/helpers/lock.py > build/constraints.txt
	mv build/constraints.txt constraints.txt
	rm -rf build/lock

demo: install
	$(BIN)/orthocond train --preset quick --out build/demo
	$(BIN)/orthocond train --preset quick-gcp --out build/demo
	$(BIN)/orthocond plot fig1 fig2 fig3 fig4 fig5 --runs build/demo --out build/demo/figures --format png
	$(BIN)/orthocond table tab2 tab4 tab5 --runs build/demo

test: install
	$(BIN)/python -m pytest -n auto --dist worksteal # neighbours share fixtures, so they stay on one worker

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# RUNS=folder, or several folders in quotes: figures, tables and ledger from other runs.
book: install
	@for folder in $(RUNS); do test -d "$$folder" || \
		{ echo "no folder of runs '$$folder': RUNS takes existing folders, separated by spaces" >&2; exit 2; }; done
	rm -rf book/_build
	ORTHOCOND_RUNS="$(RUNS)" $(BIN)/jupyter-book build book -W --keep-going

# Minutes, since it installs torch anew.
wheel-check: install
	$(PINNED) tests/helpers/wheel_check.sh $(BIN)/python

results: install
	$(BIN)/orthocond measure runs runs --csv runs/results.csv

readme: install
	$(BIN)/python tests/helpers/readme.py

faults: install
	cd tests && PYTHONPATH=helpers ../$(BIN)/python -m faults

gpu-check: install
	cd tests && PYTHONPATH=helpers ../$(BIN)/python -m gpu

OUT ?= build/gpu
MINUTES ?= 8

# What a GPU should be asked, within MINUTES; started again, it goes on. REHEARSE=--rehearse takes
# the same steps at sizes for a CPU.
gpu-measure: install
	$(BIN)/python benchmarks/gpu.py --out $(OUT) --minutes $(MINUTES) $(REHEARSE)

# Accuracy beside other packages (the errors: minutes), then the times, within TIMES minutes on a
# machine without other work. Started again, it goes on; rivals-times measures the times anew.
TIMES ?= 8

rivals: install
	$(PINNED) $(BIN)/python -m pip install --quiet --editable '.[rivals]'
	$(BIN)/python benchmarks/rivals.py --minutes $(TIMES)

rivals-times: install
	$(BIN)/python benchmarks/rivals.py --only times --fresh --minutes $(TIMES)

# An hour and more; stopped, it goes on where it was. tests/mutants.md says what survives.
mutants: install
	$(PINNED) $(BIN)/python -m pip install --quiet --editable '.[mutants]'
	OMP_NUM_THREADS=1 $(BIN)/mutmut run
	$(BIN)/mutmut results

clean:
	rm -rf $(VENV) build dist book/_build mutants .pytest_cache .mypy_cache .ruff_cache
