# A machine needs only Python >= 3.11 and make. `make demo` and `make test` install everything else into .venv, in the
# versions of requirements/.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check
# The lock files list all packages, including those that build them, so pip resolves and downloads nothing else.
LOCKED := --no-deps --no-build-isolation
# Only pyproject.toml has the pin.
TORCH := $(shell sed -n 's/.*"\(torch==[^"]*\)".*/\1/p' pyproject.toml)
# Test processes. The tests of a file run in one process, because they share compiled programs.
WORKERS ?= 2
# A local mirror of the Hub for `make bench`. Tests on real rows run if JAXPREFIX_DATA names one.
DATA ?= $(JAXPREFIX_DATA)
# The number of damaged files per reader.
FUZZ_EXAMPLES ?= 100000
# The parts of bench-gpu, with commas between; all but start without it.
PART ?=
# The seeds of study-babel.
SEEDS ?= 0
# One stamp each, so that the demo does not install torch and other packages that only tests need.
RUNTIME := .venv/.installed
TESTING := .venv/.installed-test
DOCUMENTING := .venv/.installed-docs

.PHONY: help demo study-babel real test test-all test-latest fuzz bench bench-gpu lint lock clean

help:
	@echo "make demo      train a prefix and LoRA on the embedded model beside the frozen base, in runs/demo-*"
	@echo "make study-babel  train every method on every task of the embedded world, in runs/study-babel; resumes"
	@echo "make real      make SmolLM2-135M and Gemma 3 270M, real pretrained models, in the user's cache (downloads 330 MB)"
	@echo "make docs      build the documentation into site/, which needs no network and no server"
	@echo "make test      run the tests, without the slow ones"
	@echo "make test-all  run all tests"
	@echo "make test-latest  make test with the newest packages that pyproject.toml allows, in .venv-latest"
	@echo "make dist      build the wheel and the source distribution into dist/"
	@echo "make address   write the repository's address (pyproject.toml) and the version where they are shown"
	@echo "make fuzz      read 100,000 damaged files of each kind, about half an hour on two cores; FUZZ_EXAMPLES=$(FUZZ_EXAMPLES)"
	@echo "make bench     measure speed beside transformers and PEFT, about an hour on two cores; needs DATA=MIRROR"
	@echo "make bench-gpu the same for 8B on one accelerator, in nine minutes, in your own Python: PYTHON=... PART=train,decode"
	@echo "make lint      ruff and pyright"
	@echo "make lock      update the pinned versions in requirements/"
	@echo "make clean     remove the environment, the caches and the demo's runs, but no other runs"
	@echo "WORKERS=2      the number of test processes"
	@echo "PYTHON=...     the Python >= 3.11 of the environment (now: $(PYTHON))"

demo: $(RUNTIME)
	$(BIN)/python -m jaxprefix.train --method none --output runs/demo-base
	$(BIN)/python -m jaxprefix.train --method lora --output runs/demo-lora
	$(BIN)/python -m jaxprefix.train --output runs/demo-prefix
	$(BIN)/python -m jaxprefix.evaluation runs/demo-prefix --baseline runs/demo-base
	$(BIN)/python -m jaxprefix.evaluation beside runs/demo-base,runs/demo-prefix,runs/demo-lora

# With SEEDS=0,1,2 each method is trained with each seed.
study-babel: $(RUNTIME)
	$(BIN)/python -m jaxprefix.study babel --seeds $(SEEDS) --output runs/study-babel

.PHONY: docs
# A warning, a link that leads nowhere, or a page that would load something from elsewhere ends it.
# (With --quiet, mkdocs would not count warnings.)
docs: $(DOCUMENTING)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "wrote site/index.html"

real: $(TESTING)
	$(BIN)/python -m benchmarks.real

test: $(TESTING)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

# The empty marker expression overrides `not slow` of pyproject.toml, and the empty flags override tests/conftest.py.
test-all: $(TESTING)
	XLA_FLAGS= $(BIN)/python -m pytest -m '' -n $(WORKERS) --dist loadfile

# Shows what newer packages break.
test-latest:
	$(PYTHON) -m venv --clear .venv-latest
	.venv-latest/bin/python -m pip install $(TORCH)
	.venv-latest/bin/python -m pip install -e '.[test]'
	.venv-latest/bin/python -m pytest -n $(WORKERS) --dist loadfile

.PHONY: dist address
dist: $(TESTING)
	$(BIN)/python -m build --no-isolation --outdir dist

address:
	$(PYTHON) .ci/address.py

fuzz: $(TESTING)
	FUZZ_EXAMPLES=$(FUZZ_EXAMPLES) $(BIN)/python -m pytest tests/fuzz -n $(WORKERS)

bench: $(TESTING)
	@test -d "$(DATA)" || { echo "make bench needs a local mirror of the Hub; run make bench DATA=MIRROR" >&2; exit 1; }
	$(BIN)/python -m benchmarks.cpu
	$(BIN)/python -m benchmarks.adapters
	$(BIN)/python -m benchmarks.growth
	$(BIN)/python -m benchmarks.evaluation $(DATA) 48 3

# Uses your own Python, which needs the packages that benchmarks/gpu.py lists. Installs nothing.
bench-gpu:
	$(PYTHON) -m benchmarks.gpu $(if $(PART),--parts $(PART))

lint: $(TESTING)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

clean:
	rm -rf .venv .venv-latest .pytest_cache .ruff_cache .hypothesis dist site runs/demo-base runs/demo-lora runs/demo-prefix
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# uv resolves one set of versions for all platforms and for Python 3.11 and newer.
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest --generate-hashes \
	--custom-compile-command 'make lock'

lock: | .venv
	$(PIP) --quiet uv
	$(COMPILE) --upgrade --extra test --extra real --no-emit-package torch pyproject.toml --output-file requirements/test.txt
	$(COMPILE) --constraints requirements/test.txt pyproject.toml --output-file requirements/run.txt
	$(COMPILE) --constraints requirements/test.txt --group build --output-file requirements/build.txt
	$(COMPILE) --constraints requirements/test.txt --group docs --output-file requirements/docs.txt

.venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	echo "jaxprefix needs Python >= 3.11, but '$(PYTHON)' is '$$($(PYTHON) --version 2>&1)'; name another, as in make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv .venv

$(RUNTIME): pyproject.toml requirements/build.txt requirements/run.txt | .venv
	$(PIP) --no-deps --require-hashes -r requirements/build.txt
	$(PIP) $(LOCKED) --require-hashes -r requirements/run.txt
	$(PIP) $(LOCKED) -e .
	$(BIN)/python -m pip check
	@touch $@

# torch is installed by its pin, because only the index distinguishes its CPU and CUDA builds, and a lock file names no
# index. pip prefers the CPU build (2.13.0+cpu) where an index or a folder of wheels has it. If your index has only the
# plain build: make test PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
$(TESTING): $(RUNTIME) requirements/test.txt
	$(PIP) $(LOCKED) --require-hashes -r requirements/test.txt
	$(PIP) $(TORCH)
	$(BIN)/python -m pip check
	@touch $@

# The site is made from the sources alone, so it needs neither the package nor what the package depends on.
$(DOCUMENTING): requirements/docs.txt | .venv
	$(PIP) --no-deps --require-hashes -r requirements/docs.txt
	@touch $@
