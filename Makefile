# Every target sets up what it needs in .venv from a bare checkout.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip --disable-pip-version-check -q
READY := .venv/ready
# A process for each core, four at most, and one thread in each: waiting threads of PyTorch take a core by spinning.
SPREAD := -n logical --maxprocesses 4 --dist loadfile

.PHONY: demo test test-slow check bench docs format clean

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) install "pip>=25.1"
	$(PIP) install -c constraints.txt -e ".[heic,postgres]" --group dev
# For the tests of detectors alone. AGPL-3.0; without what it asks for beside torch, which may not load here.
	$(PIP) install --no-deps ultralytics==8.4.190
	@touch $(READY)

demo: $(READY) ## redact real pictures and a short video; prints where to look
	$(BIN)/python examples/demo.py demo

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -m "not slow" $(SPREAD)

test-slow: $(READY)
	$(BIN)/pytest -q -m slow

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(READY)
	@for page in benchmarks/[a-z]*.py; do echo "== $$page"; $(BIN)/python $$page --quick || exit 1; done

docs: $(READY)
	$(BIN)/mkdocs build --strict -q -d site
	$(BIN)/pytest -q tests/test_docs.py

format: $(READY)
	$(BIN)/ruff check --fix -q .
	$(BIN)/ruff format -q .

clean:
	rm -rf .venv demo site .mypy_cache .ruff_cache .pytest_cache
