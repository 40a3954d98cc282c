# A fresh machine needs Python >= 3.11 and make; `make demo` and `make test` bring everything else into .venv, in the
# versions of requirements/.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check
# What is locked is complete, and built by what is locked: pip has nothing to resolve or to fetch besides.
LOCKED := --no-deps --no-build-isolation
# The pin stands in pyproject.toml alone.
TORCH := $(shell sed -n 's/.*"\(torch==[^"]*\)".*/\1/p' pyproject.toml)
# Test processes; a file's tests stay together, because they share what was compiled for it.
WORKERS ?= 2
# A local mirror of the Hub, whose rows `make bench` reads; tests of real rows run where JAXPREFIX_DATA names one.
DATA ?= $(JAXPREFIX_DATA)
# Harmed files that each reader is given.
FUZZ_EXAMPLES ?= 100000
# Of bench-gpu: train, decode, scoring or start.
PART ?= train
# Of the study of the embedded world.
SEEDS ?= 0
# Two stamps, so that the demo does not pay for torch and the other things that only tests need.
RUNTIME := .venv/.installed
TESTING := .venv/.installed-test

.PHONY: help demo study-babel real test test-all test-latest fuzz bench bench-gpu lint lock clean

help:
	@echo "make demo      the frozen base, a prefix and LoRA on the embedded model, into runs/demo-*"
	@echo "make study-babel  every method on every task of the embedded world, into runs/study-babel; goes on after a stop"
	@echo "make real      SmolLM2-135M, a real pretrained model, into the user's cache (93 MB are downloaded)"
	@echo "make test      the whole suite, without what proves for minutes"
	@echo "make test-all  the whole suite"
	@echo "make test-latest  make test with the newest packages that pyproject.toml admits, in .venv-latest"
	@echo "make fuzz      100,000 harmed files of each kind, about half an hour on two cores; FUZZ_EXAMPLES=$(FUZZ_EXAMPLES)"
	@echo "make bench     speed beside transformers and PEFT, about an hour on two cores; rows: DATA=MIRROR"
	@echo "make bench-gpu the same on one accelerator with a Python of yours, 8B: PYTHON=... PART=train|decode|scoring|start"
	@echo "make lint      ruff and pyright"
	@echo "make lock      renew the pinned versions in requirements/"
	@echo "make clean     remove the environment, the caches and the demo's runs; other runs are kept"
	@echo "WORKERS=2      the processes that test"
	@echo "PYTHON=...     the Python >= 3.11 that makes the environment (now: $(PYTHON))"

demo: $(RUNTIME)
	$(BIN)/python -m jaxprefix.train --method none --output runs/demo-base
	$(BIN)/python -m jaxprefix.train --method lora --output runs/demo-lora
	$(BIN)/python -m jaxprefix.train --output runs/demo-prefix
	$(BIN)/python -m jaxprefix.evaluation runs/demo-prefix --baseline runs/demo-base
	$(BIN)/python -m jaxprefix.evaluation beside runs/demo-base,runs/demo-prefix,runs/demo-lora

# SEEDS=0,1,2 trains each method with each seed.
study-babel: $(RUNTIME)
	$(BIN)/python -m jaxprefix.babel study --seeds $(SEEDS) --output runs/study-babel

real: $(TESTING)
	$(BIN)/python -m benchmarks.real

test: $(TESTING)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

# An empty marker expression takes back the `not slow` of pyproject.toml, and no flags the quick ones of tests/conftest.py.
test-all: $(TESTING)
	XLA_FLAGS= $(BIN)/python -m pytest -m '' -n $(WORKERS) --dist loadfile

# Finds on purpose what newer packages change.
test-latest:
	$(PYTHON) -m venv --clear .venv-latest
	.venv-latest/bin/python -m pip install $(TORCH)
	.venv-latest/bin/python -m pip install -e '.[test]'
	.venv-latest/bin/python -m pytest -n $(WORKERS) --dist loadfile

fuzz: $(TESTING)
	FUZZ_EXAMPLES=$(FUZZ_EXAMPLES) $(BIN)/python -m pytest tests/fuzz -n $(WORKERS)

bench: $(TESTING)
	@test -d "$(DATA)" || { echo "make bench reads real rows: name a local mirror of the Hub, as in make bench DATA=MIRROR" >&2; exit 1; }
	$(BIN)/python -m benchmarks.training $(DATA) 2
	$(BIN)/python -m benchmarks.growth
	$(BIN)/python -m benchmarks.evaluation $(DATA) 48 3

# With a python of your own that has what benchmarks/gpu.py names; nothing is installed.
bench-gpu:
	$(PYTHON) -m benchmarks.gpu $(PART)

lint: $(TESTING)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

clean:
	rm -rf .venv .venv-latest .pytest_cache .ruff_cache .hypothesis dist runs/demo-base runs/demo-lora runs/demo-prefix
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# uv resolves for every platform and for Python 3.11 and newer at once, with the same versions everywhere.
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest --generate-hashes \
	--custom-compile-command 'make lock'

lock: | .venv
	$(PIP) --quiet uv
	$(COMPILE) --upgrade --extra test --extra real --no-emit-package torch pyproject.toml --output-file requirements/test.txt
	$(COMPILE) --constraints requirements/test.txt pyproject.toml --output-file requirements/run.txt
	$(COMPILE) --constraints requirements/test.txt --group build --output-file requirements/build.txt

.venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	echo "jaxprefix needs Python >= 3.11, but '$(PYTHON)' is '$$($(PYTHON) --version 2>&1)': name another, as in make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv .venv

$(RUNTIME): pyproject.toml requirements/build.txt requirements/run.txt | .venv
	$(PIP) --no-deps --require-hashes -r requirements/build.txt
	$(PIP) $(LOCKED) --require-hashes -r requirements/run.txt
	$(PIP) $(LOCKED) -e .
	$(BIN)/python -m pip check
	@touch $@

# torch comes by its pin alone, since its CPU and CUDA builds are told apart by the index, and a lock names none. Where an
# index or a folder of wheels gives the CPU build (2.13.0+cpu), pip ranks it above the plain one. On a machine whose index
# has only the plain build: make test PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
$(TESTING): $(RUNTIME) requirements/test.txt
	$(PIP) $(LOCKED) --require-hashes -r requirements/test.txt
	$(PIP) $(TORCH)
	$(BIN)/python -m pip check
	@touch $@
