# `make test` is all a fresh machine with Python 3.11 or newer and make needs; everything lands in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Named after what decides the set-up, so it is done again when that changes and not otherwise.
STAMP := $(VENV)/set-up-$(shell cat pyproject.toml requirements.lock Makefile | cksum | tr ' ' '-')
# There while packages are being installed: a set-up that was interrupted starts from nothing.
UNFINISHED := $(VENV)/unfinished

.PHONY: setup test demo docs lint lock clean
.DELETE_ON_ERROR:

# Whole files of tests side by side, since tests of one share what they prepare; four at most, for memory.
test: setup
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

# The main job on handwritten digits, with nothing but what is here: about two minutes after the set-up.
demo: setup
	$(BIN)/inarch demo --out demo

setup: $(STAMP)

$(STAMP):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "$(PYTHON) is older than Python 3.11; name a newer one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@if [ -e $(UNFINISHED) ] || ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
	  $(PYTHON) -m venv --clear $(VENV); fi
	@touch $(UNFINISHED)
	@echo "Setting up $(VENV): about 6 GB, some minutes the first time"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --only-binary :all: --require-hashes \
	  --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@rm -f $(VENV)/set-up-* $(UNFINISHED)
	@touch $@

# Every warning is an error. From nothing each time: pages are drawn from the program, which Sphinx cannot watch.
docs: setup
	rm -rf build/docs build/doctrees
	$(BIN)/python -m sphinx --builder html --fail-on-warning --keep-going --quiet -d build/doctrees docs build/docs
	@echo "The documentation: build/docs/index.html"

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	MYPYPATH=src:benchmarks $(BIN)/mypy benchmarks/*.py
	MYPYPATH=src:pretraining $(BIN)/mypy pretraining/*.py pretraining/formulas/*.py
	MYPYPATH=src $(BIN)/mypy docs/conf.py docs/extensions/*.py
	$(BIN)/lint-imports --no-cache

LOCK_BEGINS := \# Every package of tests, checks and docs, pinned with the digests of all its files. Made with `make lock`.
# Pins anew, to the newest releases that pyproject.toml allows. The lock names no registry and holds no option.
lock:
	$(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet 'pip-tools>=7.6'
	build/lock/bin/pip-compile --quiet --upgrade --generate-hashes --allow-unsafe --strip-extras --no-annotate \
	  --no-header --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options \
	  --extra parquet --extra heatmaps --extra adapters --extra dev --extra docs --output-file requirements.lock pyproject.toml
	@{ echo '$(LOCK_BEGINS)'; cat requirements.lock; } >build/lock/requirements.lock
	@mv build/lock/requirements.lock requirements.lock

clean:
	rm -rf $(VENV) build .pytest_cache .ruff_cache .mypy_cache
