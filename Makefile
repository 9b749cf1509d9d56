PYTHON ?= python3
BIN := .venv/bin
DEMO := --data-dir data_sample --name demo

.PHONY: demo test lint clean

# Each target sets itself up on a fresh machine: a virtual environment and the pinned packages.
.venv/runtime: requirements.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --requirement requirements.txt
	touch $@

.venv/development: .venv/runtime requirements-dev.txt
	$(BIN)/pip install --quiet --requirement requirements-dev.txt
	touch $@

data_sample/train.csv: | .venv/runtime
	rm -rf data_sample
	$(BIN)/python prepare_data.py build --sample --data-dir data_sample --seed 2

# Minutes of training after which the pictures have some colour.
DEMO_MINUTES ?= 4

demo: .venv/runtime data_sample/train.csv
	rm -rf outputs/demo
	$(BIN)/python train.py $(DEMO) --fold 0 --workers 0 --max-minutes $(DEMO_MINUTES) --validate-every 100
	$(BIN)/python infer.py $(DEMO) --ensemble --tta 2
	$(BIN)/python make_submission.py $(DEMO)
	$(BIN)/python evaluate.py --pred outputs/demo/test --gt data_sample/test_gt --input data_sample/test_input \
		--json outputs/demo/scores.json --picture outputs/demo/demo.png

lint: .venv/development
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

test: .venv/development lint
	$(BIN)/python -m pytest

clean:
	rm -rf .venv data_sample outputs
