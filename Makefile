# make run    set up and serve the page on http://127.0.0.1:7860
# make test   set up and run all checks
# make words   collect the words of the page for translators, see docs/TRANSLATING.md
# make results DATA=folder   measure all merges anew: hours on two cores, goes on where it was stopped
PYTHON ?= python3
BIN := .venv/bin
# Test files run side by side, each worker on one core.
WORKERS ?= 2

.PHONY: setup run test format words results records tables screenshot

setup: .venv/ready

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	$(BIN)/pyright --version
	$(BIN)/python -m lora_lab.backbones
	touch $@

run: setup
	$(BIN)/python app.py

test: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/pytest --numprocesses $(WORKERS) --dist loadfile

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

words: setup
	$(BIN)/pybabel --quiet extract --no-default-keywords --keyword _ --keyword _n:1,2 --no-location --omit-header --no-wrap \
		--sort-output --output assets/languages/lora_lab.pot lora_lab/ui

results: setup
	$(BIN)/lora-lab sweep published --data $(DATA)
	$(MAKE) records tables

records: setup
	$(BIN)/python -m lora_lab.derived

tables: setup
	$(BIN)/python -m lora_lab.docs

screenshot: setup
	$(BIN)/python tests/ui/screenshot.py
