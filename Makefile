# Every target makes its own .venv with pinned dependencies first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test test-slow test-browser lint clean

demo: $(STAMP)
	$(BIN)/slmops run slmops/recipes/support-routing.yaml
	$(BIN)/slmops ask runs/support-routing "Where is my refund? I sent the shoes back two weeks ago."

test: $(STAMP) lint
	$(BIN)/python -m pytest -n auto --maxprocesses 8 --no-loadscope-reorder

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow

test-browser: $(STAMP)
	$(BIN)/python -m pytest -m browser

$(STAMP): pyproject.toml constraints.txt tools/install.py
	$(PYTHON) tools/install.py $(VENV)
	@touch $(STAMP)

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
