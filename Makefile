# Each target is the only command a fresh machine needs: the environment it runs in is made on first use.
# The newest Python on PATH is taken, or that of PYTHON=python3.12; ARGS="-k queue" reaches the command behind a target.

PYTHON ?= python3.14 python3.13 python3.12 python3.11 python3.10 python3 python
ARGS   ?=
VENV   ?= .venv
BIN    := $(VENV)/bin

.DEFAULT_GOAL := help
# Two installs into one environment at a time would trip over each other, so `make -j` changes nothing here.
.NOTPARALLEL:
.PHONY: help setup demo example-django example-flask test test-interop lint types bench bench-scale drills build clean

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s%s\n", $$1, $$2 }' Makefile

setup: $(VENV)/.installed-dev ## Make the environment, with everything that development needs

demo: $(VENV)/.installed-demo ## Run the notifications example, in half a minute, in DATABASE_URL or else a PostgreSQL of its own
	$(BIN)/graphile-worker-py demo $(ARGS)

example-django: $(VENV)/.installed-embedded $(VENV)/.installed-django ## Start a shop made with Django, in DATABASE_URL or else a PostgreSQL of its own
	$(BIN)/python examples/django_shop/start.py $(ARGS)

# Flask-SQLAlchemy, gunicorn and Pillow are the example's own needs, which are no extra's.
example-flask: $(VENV)/.installed-dev ## Start an application of Flask's that takes pictures, in DATABASE_URL or else a PostgreSQL of its own
	$(BIN)/python examples/flask_uploads/start.py $(ARGS)

test: $(VENV)/.installed-dev ## Run every test, against DATABASE_URL or else a PostgreSQL of its own
	$(BIN)/python -m pytest $(ARGS)

# INSTALL_ROUNDS: how often ten installers of ours and ten of Node's meet on an empty database. MIXED_JOBS: how many jobs
# a mixed fleet works on. `make test` does less of both.
test-interop: export INSTALL_ROUNDS ?= 50
test-interop: export MIXED_JOBS ?= 20000
test-interop: $(VENV)/.installed-dev ## Run ours side by side with Node's workers, and print per version what ran
	$(BIN)/python -m pytest tests/interop $(ARGS)

lint: $(VENV)/.installed-dev ## Check style and format
	$(BIN)/ruff check $(ARGS)
	$(BIN)/ruff format --check $(ARGS)

types: $(VENV)/.installed-dev ## Check the types of the package and of those who use it
	$(BIN)/mypy $(ARGS)

# ARGS="URL --rounds 1 --scale 0.1" for another server and less of everything, --only PART, --peers.
bench: $(VENV)/.installed-dev ## Measure throughput, adding and latency beside Node's worker and bare SQL
	$(BIN)/python benchmarks/bench.py $(ARGS)

bench-scale: $(VENV)/.installed-dev ## Measure where queues fall off a cliff: locked queues, future jobs, held snapshots
	$(BIN)/python benchmarks/scale.py $(ARGS)

drills: $(VENV)/.installed-dev ## Do to a fleet what can happen to it, in under an hour; ARGS="--list", or names
	PYTHONPATH=tests $(BIN)/python -m drills $(ARGS)

build: $(VENV)/.installed-dev ## Build the source archive and the wheel into dist/
	$(BIN)/python -m build --no-isolation $(ARGS)

clean: ## Remove the environment and everything that was built
	rm -rf $(VENV) dist build .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One stamp per extra, so that the demo waits for no linters, and nothing is installed again until pyproject.toml changes.
$(VENV)/.installed-%: pyproject.toml | $(BIN)/pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $@

# A name on PATH may be a shim that fails when it is called, and Debian ships python3 without ensurepip: so ask each.
$(BIN)/pip:
	@for python in $(PYTHON); do \
		if "$$python" -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then \
			echo "$$python -m venv $(VENV)"; \
			exec "$$python" -m venv $(VENV); \
		fi; \
	done; \
	echo 'No Python 3.10 or newer that can make a virtual environment was found; tried: $(PYTHON).' >&2; \
	echo 'On Debian and Ubuntu: apt-get install python3-venv. Elsewhere: make PYTHON=/path/to/python3.13 $(MAKECMDGOALS)' >&2; \
	exit 1
