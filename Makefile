# All commands of the project. CI calls the same targets.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
BENCH := .venv-bench
TEST_PROCESSES ?= 3
INFRA := .venv-infra
LOCKS := requirements.txt $(addprefix requirements/,minilm.txt otel.txt dev.txt)

.DEFAULT_GOAL := help
.PHONY: help up can-start users reindex backup restore doctor test screenshots faults faults-short benchmark bench bench-search audit check \
	check-infra check-protocol compose-test format lock vendor clean

help:  ## List the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-14s %s\n", $$1, $$2 }'

up: can-start $(INSTALLED)  ## Start PostgreSQL, Valkey, the API, a worker and Flower on this machine; Ctrl-C stops them
	@exec $(BIN)/python -m infra.local up

# Before anything is installed, which takes a minute. (With an older Python nothing can be: see below.)
can-start: PYTHON := $(firstword $(wildcard $(BIN)/python) $(PYTHON))
can-start:  ## Say what keeps `make up` from starting: taken ports, another stack
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || exit 0; $(PYTHON) -m infra.local.preflight

users: $(INSTALLED)  ## Manage the users of the local stack: make users ARGS="create bob"
	@$(BIN)/python -m infra.local run $(BIN)/python -m api.users_cli $(ARGS)

reindex: $(INSTALLED)  ## Compare the search indexes with the prompts and fix differences: make reindex ARGS=--check
	@$(BIN)/python -m infra.local run $(BIN)/python -m worker.reindex $(ARGS)

backup: $(INSTALLED)  ## Write a backup of the local stack, running or not: make backup (or FILE=promptwire.dump)
	@$(BIN)/python -m infra.local backup $(if $(FILE),"$(FILE)")

restore: $(INSTALLED)  ## Restore a backup while the stack is stopped: make restore FILE=promptwire.dump (and ARGS=--replace)
	@$(BIN)/python -m infra.local restore $(if $(FILE),"$(FILE)") $(ARGS)

# One thread for each matrix product: several test processes keep the cores busy, and more threads would only spin.
test: export OPENBLAS_NUM_THREADS = 1
test: export OMP_NUM_THREADS = 1
# Tests start hundreds of processes: without cached bytecode each of them would compile the project first.
test faults-short check-infra: export PYTHONDONTWRITEBYTECODE =
test: $(INSTALLED)  ## Run the tests on their own PostgreSQL and Valkey: make test ARGS="-m unit"
	$(BIN)/python -m pytest --numprocesses $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder $(ARGS)

doctor: $(INSTALLED)  ## Check the local stack, and say how to fix what is wrong
	@$(BIN)/python -m infra.local run $(BIN)/python -m infra.doctor $(ARGS)

screenshots: $(INSTALLED)  ## Take the pictures of the page and the console in docs again (needs Chromium)
	$(BIN)/python -m tests.browser.screenshots

faults: $(INSTALLED)  ## Kill, stall, restart and attack what runs under load, and count: make faults ARGS=kills (or neighbours, models)
	$(BIN)/python -m tests.faults $(ARGS)

faults-short: $(INSTALLED)  ## Run a short form of `make faults` in four minutes, as CI does beside the tests
	$(BIN)/python -m pytest -m faults tests/faults $(ARGS)

benchmark: $(INSTALLED)  ## Run one benchmark: make benchmark NAME=login (or NAME=sockets ARGS=--quick)
	$(BIN)/python -m tests.benchmarks.$(NAME) $(ARGS)

bench: $(BENCH)/.installed  ## Compare prompts, from request to push, with other designs: make bench ARGS=--quick
	$(BENCH)/bin/python -m tests.benchmarks.end_to_end $(ARGS)

bench-search: $(BENCH)/.installed  ## Compare searches with pgvector, Chroma, LanceDB …: make bench-search ARGS=--quick
	$(BENCH)/bin/python -m tests.benchmarks.search $(ARGS)

audit: $(INSTALLED)  ## Look up the pinned packages in the advisory database
	@$(BIN)/python -m infra.checks.dependency_audit $(ARGS)

check: $(INSTALLED)  ## Check format, lint, types, imports, dependencies and security (bandit)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry .
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive api worker shared infra

check-infra: $(INSTALLED) $(INFRA)/.installed  ## Check the Dockerfiles, the compose file, Terraform, the Helm chart and the workflows
	$(BIN)/python -m infra.checks $(ARGS)
	$(BIN)/python -m pytest --quiet --numprocesses 2 tests/infra

check-protocol: $(INSTALLED)  ## Check the model of the queue and the feed exhaustively, in a minute (needs spin and gcc)
	@$(BIN)/python -m infra.protocol $(ARGS)

compose-test: $(INSTALLED)  ## Deploy with Docker Compose as the documentation says, and disturb it (without Docker: needs root on a Debian)
	@$(BIN)/python -m infra.compose_test

format: $(INSTALLED)  ## Format the code, and apply lint fixes
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock:  ## Pin the newest versions that pyproject.toml allows (needs uv); make lock ARGS=--keep adds only missing ones
	$(PYTHON) -m infra.lock $(ARGS)

vendor:  ## Copy the page's JavaScript libraries from npm, as infra/vendor.json pins them (needs npm)
	$(PYTHON) -m infra.vendor

clean:  ## Delete the environments and the caches (not your data in .local)
	rm -rf $(VENV) $(BENCH) $(INFRA) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(INSTALLED): $(LOCKS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Promptwire needs Python 3.11 or newer: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
		{ echo "Python's venv module is missing: install it (Debian, Ubuntu: apt-get install python3-venv)."; exit 1; }
	@echo "Installing into $(VENV); this takes a minute."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/dev.txt
	@touch $@

$(INFRA)/.installed: requirements/infra.txt
	@$(PYTHON) -m venv $(INFRA)
	@echo "Installing into $(INFRA); this takes a minute."
	@$(INFRA)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/infra.txt
	@touch $@

PEERS := $(wildcard tests/benchmarks/peers/requirements.txt tests/benchmarks/peers/*/requirements.txt)

# The projects that the benchmarks compare with. One that cannot be installed here is skipped.
$(BENCH)/.installed: $(LOCKS) $(PEERS)
	@$(PYTHON) -m venv $(BENCH)
	@echo "Installing into $(BENCH); this takes two minutes."
	$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/dev.txt
	@grep -hv '^#' $(PEERS) | while read -r peer; do \
		$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check "$$peer" || \
			echo "$$peer could not be installed; it will be skipped."; \
	done
	@touch $@
