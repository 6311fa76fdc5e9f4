# The one list of commands; CI calls the same.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
BENCH := .venv-bench
TEST_PROCESSES ?= 2
INFRA := .venv-infra
LOCKS := requirements.txt $(addprefix requirements/,minilm.txt otel.txt dev.txt)

.DEFAULT_GOAL := help
.PHONY: help up users reindex doctor test screenshots faults faults-short benchmark bench bench-search audit check check-infra images \
	format lock clean

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-12s %s\n", $$1, $$2 }'

up: $(INSTALLED)  ## Start everything here: PostgreSQL, Valkey, the API, a worker, Flower. Ctrl-C stops it
	@exec $(BIN)/python -m infra.local up

users: $(INSTALLED)  ## Manage users of what `make up` started: make users ARGS="create bob"
	@$(BIN)/python -m infra.local run $(BIN)/python -m api.users_cli $(ARGS)

reindex: $(INSTALLED)  ## Compare indexes with the prompts, and make anew what differs: make reindex ARGS=--check
	@$(BIN)/python -m infra.local run $(BIN)/python -m worker.reindex $(ARGS)

test: $(INSTALLED)  ## Run the tests, on a PostgreSQL and a Valkey of their own: make test ARGS="-m unit"
	$(BIN)/python -m pytest --numprocesses $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder $(ARGS)

doctor: $(INSTALLED)  ## Say what is wrong with what `make up` started, and what to do
	@$(BIN)/python -m infra.local run $(BIN)/python -m infra.doctor $(ARGS)

screenshots: $(INSTALLED)  ## Take the README's pictures of the page anew (needs a Chromium)
	$(BIN)/python -m tests.browser.screenshots

faults: $(INSTALLED)  ## Kill, stall and restart everything under load, and count: make faults ARGS="kills"
	$(BIN)/python -m tests.faults $(ARGS)

faults-short: $(INSTALLED)  ## The same in two minutes, as CI runs it beside the tests
	$(BIN)/python -m pytest -m faults tests/faults $(ARGS)

benchmark: $(INSTALLED)  ## Measure what depends on the machine: make benchmark NAME=login (or NAME=sockets ARGS=--quick)
	$(BIN)/python -m tests.benchmarks.$(NAME) $(ARGS)

bench: $(BENCH)/.installed  ## Measure whole prompts beside other designs, from request to push: make bench ARGS=--quick
	$(BENCH)/bin/python -m tests.benchmarks.end_to_end $(ARGS)

bench-search: $(BENCH)/.installed  ## Measure searches beside pgvector, Chroma, LanceDB …: make bench-search ARGS=--quick
	$(BENCH)/bin/python -m tests.benchmarks.search $(ARGS)

audit: $(INSTALLED)  ## Look up the pinned packages in the advisory database
	@$(BIN)/python -m infra.checks.dependency_audit $(ARGS)

check: $(INSTALLED)  ## Check format, lint, types, imports, dependencies, and what bandit finds unsafe
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry .
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive api worker shared infra

check-infra: $(INSTALLED) $(INFRA)/.installed  ## Check the containers, Compose, Terraform, and the workflows
	$(BIN)/python -m infra.checks $(ARGS)
	$(BIN)/python -m pytest --quiet --numprocesses 2 tests/infra

images: $(INSTALLED)  ## Build both images without a registry, and have them answer a prompt (root, buildah, debootstrap)
	$(BIN)/python -m infra.images $(ARGS)

format: $(INSTALLED)  ## Format the code, and mend what lint can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock:  ## Pin the newest versions that pyproject.toml admits (needs uv): make lock ARGS=--keep adds only what is missing
	$(PYTHON) -m infra.lock $(ARGS)

clean:  ## Delete the environment and the caches (not your data in .local)
	rm -rf $(VENV) $(BENCH) $(INFRA) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(INSTALLED): $(LOCKS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Promptwire needs Python 3.11 or newer: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
		{ echo "Python's venv module is missing: install it (Debian, Ubuntu: apt-get install python3-venv)."; exit 1; }
	@echo "Installing into $(VENV), once; this takes a minute."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/dev.txt
	@touch $@

$(INFRA)/.installed: requirements/infra.txt
	@$(PYTHON) -m venv $(INFRA)
	@echo "Installing into $(INFRA), once; this takes a minute."
	$(INFRA)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/infra.txt
	@touch $@

PEERS := $(wildcard tests/benchmarks/peers/requirements.txt tests/benchmarks/peers/*/requirements.txt)

# What whole prompts and searches are compared with, apart from what the project needs. A library that has no wheel here is left out.
$(BENCH)/.installed: $(LOCKS) $(PEERS)
	@$(PYTHON) -m venv $(BENCH)
	@echo "Installing into $(BENCH), once; this takes two minutes."
	$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/dev.txt
	@grep -hv '^#' $(PEERS) | while read -r peer; do \
		$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check "$$peer" || \
			echo "$$peer could not be installed; it will be skipped."; \
	done
	@touch $@
