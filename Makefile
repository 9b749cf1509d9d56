PYTHON ?= python3
BIN := .venv/bin
export CHECK_PYTHON = import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")
DEMO := --output-dir outputs/demo
# Two test processes, each of one thread (tests/conftest.py): more threads on few cores wait for each other.
PYTEST := $(BIN)/python -m pytest --numprocesses 2

.PHONY: demo test test-slow lint lock licenses clean

# Each target sets itself up on a fresh machine: a virtual environment and exactly the locked packages. With the
# hashes a file that was exchanged in the package index, or on the way, is refused.
.venv/runtime: requirements/runtime.lock
	test -x $(BIN)/python || { $(PYTHON) -c "$$CHECK_PYTHON" && $(PYTHON) -m venv .venv; }
	@echo "Installing the packages into .venv; this takes minutes."
	$(BIN)/pip install --quiet --require-hashes --requirement requirements/runtime.lock
	touch $@

.venv/development: .venv/runtime requirements/dev.lock
	$(BIN)/pip install --quiet --require-hashes --requirement requirements/dev.lock
	touch $@

data_sample/train.csv: | .venv/runtime
	rm -rf data_sample
	$(BIN)/python prepare_data.py build --sample --data-dir data_sample --seed 2

demo: .venv/runtime data_sample/train.csv
	rm -rf outputs/demo
	$(BIN)/python infer.py --data-dir data_sample $(DEMO) --ensemble --tta 2
	$(BIN)/python make_submission.py --data-dir data_sample $(DEMO)
	$(BIN)/python evaluate.py --pred outputs/demo/restorer/test --gt data_sample/test_gt \
		--input data_sample/test_input $(DEMO) --json outputs/demo/scores.json --report

lint: .venv/development
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo

# Everything quick, and one real specimen of each slow kind.
test: .venv/development lint
	$(PYTEST) tests --ignore tests/slow --dist loadfile

# The rest: many kills, full disks, several processes, the notebook, the benchmarks.
test-slow: .venv/development
	$(PYTEST) tests/slow --dist load

# After a change of requirements.txt or requirements/*.txt. Locked versions stay unless they must move;
# `make lock LOCK=--upgrade` moves all. The locks serve every platform and Python from 3.11 on (--universal, one
# version each). pip is left out: it does the installing.
COMPILE = $(BIN)/uv --no-config pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--fork-strategy fewest --no-emit-package pip --custom-compile-command "make lock" $(LOCK)

lock: .venv/development
	$(COMPILE) requirements.txt --output-file requirements/runtime.lock
	$(COMPILE) --constraints requirements/runtime.lock requirements/dev.txt --output-file requirements/dev.lock

# The table in docs/packages.md; what it means is in docs/licenses.md.
licenses: .venv/development
	$(BIN)/pip-licenses --format=markdown --from=mixed --with-system --output-file=docs/packages.md \
		--packages $$(sed -n 's/==.*//p' requirements/dev.lock)

clean:
	rm -rf .venv data_sample
	find outputs -mindepth 1 -maxdepth 1 ! -name README.md -exec rm -rf {} +
