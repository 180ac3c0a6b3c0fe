# The one entry for people and machines: `make help` lists what there is.
# Every target sets up what it needs first, so any of them works on a fresh clone.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

PRODUCT := protos/tenure/protocol client worker master testing
# The contract of the last release: what clients and workers out there speak.
RELEASED := $(shell ls -d tests/histories/*/contract | sort -V | tail -n 1)
# Suites that compute, and suites that start processes and mostly wait for them: see `make test`.
COMPUTING := unit conformance histories simulation
WAITING := integration chaos
SUITES := $(COMPUTING) $(WAITING)
# Of those that wait, these go with the ones that compute: both lanes end at about the same time.
SHORTER := tests/integration/cli tests/integration/refusals tests/integration/test_pages.py
# More for pytest, as in: make test-unit PYTEST_ARGS="-k lease -x"
PYTEST_ARGS ?=
PYTEST := $(BIN)/python -m pytest $(PYTEST_ARGS)

# What `make packaging` tries; one that is not there is a failure.
PYTHONS ?= 3.11 3.12 3.13

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "  %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: $(INSTALLED) etcd strace node ## make .venv with all extras and tools, find or install etcd, strace, Node

# The stamp is older than pyproject.toml exactly when there is something new to install.
$(INSTALLED): pyproject.toml tools/install.sh
	@PYTHON='$(PYTHON)' tools/install.sh $(VENV)
	@touch $@

.PHONY: etcd
etcd:
	@tools/ensure_etcd.sh

.PHONY: strace
strace:
	@tools/ensure_strace.sh

.PHONY: node
node: ## find or install Node, and the packages of examples/node
	@tools/ensure_node.sh

.PHONY: protos
protos: $(INSTALLED) ## generate the stubs and docs/api.md from protos/tenure/**/*.proto
	$(BIN)/python tools/generate_stubs.py
	$(BIN)/python -m tools.generate_api

.PHONY: record-contract
record-contract: ## keep the protos of this release for `buf breaking` (see CONTRIBUTING)
	@version=$$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml) && \
	folder=tests/histories/$$version/contract/tenure/v1 && \
	mkdir -p $$folder && cp protos/tenure/v1/*.proto $$folder

.PHONY: reference
reference: $(INSTALLED) ## write what the documents say of commands, settings and capabilities
	$(BIN)/python -m tools.generate_reference
	$(BIN)/python -m tools.generate_capabilities

.PHONY: golden
golden: $(INSTALLED) ## write anew what commands print, here and in the README (look at the difference)
	RENEW_GOLDEN=1 $(PYTEST) -q tests/integration/cli/test_golden.py tests/integration/test_explain.py

.PHONY: fmt
fmt: $(INSTALLED) ## format the code and mend what ruff can mend
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

.PHONY: lint
lint: $(INSTALLED) ## format check, ruff, layer contracts, tidy rules, fresh stubs, buf
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(PYTEST) -q tests/unit/test_tidy.py tests/unit/test_stubs_fresh.py
	$(BIN)/buf lint
	$(BIN)/buf breaking --against $(RELEASED)

.PHONY: types
types: $(INSTALLED) ## mypy, strict, on all hand-written product code; pyright, strict, on the SDK
	$(BIN)/mypy $(PRODUCT)
	$(BIN)/pyright

.PHONY: verify
verify: $(INSTALLED) ## the static half of CI: `make lint` and `make types`, side by side
	@$(MAKE) --no-print-directory --jobs 2 --output-sync=target lint types

.PHONY: test
test: $(INSTALLED) etcd strace node ## every suite, in two lanes side by side
	$(BIN)/python -m tools.lanes "$(COMPUTING:%=tests/%) $(SHORTER)" \
	    "$(WAITING:%=tests/%) $(SHORTER:%=--ignore=%)" -- $(PYTEST_ARGS)

.PHONY: test-unit
test-unit: $(INSTALLED) ## pure code only: no network, no etcd
	$(PYTEST) tests/unit

.PHONY: test-integration
test-integration: $(INSTALLED) etcd strace node ## real processes, real SQLite, real etcd
	$(PYTEST) tests/integration

.PHONY: test-conformance
test-conformance: $(INSTALLED) etcd node ## one suite per port, over every adapter
	$(PYTEST) tests/conformance

# As in: make simulate SEED=4711, make simulate SEEDS=5000, make simulate MINUTES=30
.PHONY: simulate
simulate: $(INSTALLED) ## a thousand random runs of a whole cluster on virtual time, or SEED= SEEDS= MINUTES=
	$(BIN)/python -m tests.simulation $(if $(SEED),--seed $(SEED)) $(if $(SEEDS),--seeds $(SEEDS)) \
		$(if $(MINUTES),--minutes $(MINUTES))

.PHONY: simulate-coverage
simulate-coverage: $(INSTALLED) ## how many lines of the shipped modules random runs go through
	@mkdir -p out
	$(BIN)/coverage run --rcfile=tests/simulation/coverage.ini \
		-m tests.simulation --cores 1 --seeds $(or $(SEEDS),150)
	$(BIN)/coverage report --rcfile=tests/simulation/coverage.ini

# As in: make mutants, make mutants MUTANT=ack-before-commit SEEDS=500
.PHONY: mutants
mutants: $(INSTALLED) ## which planted bugs random runs find, and after how many seeds; MUTANT= SEEDS=
	$(BIN)/python -m tests.mutants $(MUTANT) $(if $(SEEDS),--seeds $(SEEDS))

# As in: make mutation MODULES="core/attempt journal/frame"
.PHONY: mutation
mutation: $(INSTALLED) ## which changes of core and journal no test notices; MODULES= of them
	$(BIN)/python -m tools.mutation $(MODULES)

.PHONY: chaos
chaos: $(INSTALLED) etcd strace ## real processes, killed and frozen; MINUTES= FAULTS= SEED=: a random run
	$(if $(MINUTES)$(FAULTS)$(SEED),$(BIN)/python -m tests.chaos --minutes $(or $(MINUTES),30) \
		--faults "$(FAULTS)" $(SEED:%=--seed %),$(PYTEST) tests/chaos)

.PHONY: packaging
packaging: $(INSTALLED) ## wheel and sdist, each extra, each Python, oldest and newest dependencies
	$(BIN)/python tools/check_packaging.py --python $(PYTHONS)

.PHONY: record-histories
record-histories: $(INSTALLED) etcd ## record the stores and streams of this release (see CONTRIBUTING)
	$(BIN)/python -m tools.record_histories

.PHONY: fuzz
fuzz: $(INSTALLED) ## fuzz decoders, sessions and filters by coverage: MINUTES=10
	$(BIN)/python -m pip install -qq --disable-pip-version-check 'atheris>=3,<4'
	$(BIN)/python -m tests.unit.fuzz --minutes $(or $(MINUTES),10)

.PHONY: nightly
nightly: $(INSTALLED) etcd strace node ## every suite with the long tests and many more examples; each Python
	TENURE_HYPOTHESIS_PROFILE=nightly $(PYTEST) --timeout 900 -m "" $(SUITES:%=tests/%)
	$(BIN)/python -m tests.simulation --seeds 50000
	$(MAKE) --no-print-directory simulate-coverage
	$(BIN)/python -m tests.mutants
	$(BIN)/python tools/check_packaging.py --thorough --python $(PYTHONS)

.PHONY: reliability
reliability: $(INSTALLED) etcd strace node ## every fault of docs/reliability.md as a test; writes its table
	RECORD_FAULTS=docs/faults.json $(PYTEST) -m fault tests
	$(BIN)/python -m tools.generate_reliability

.PHONY: bench
bench: $(INSTALLED) etcd ## throughput and latency, with the bare pipe as the ceiling
	$(BIN)/python -m benchmarks

.PHONY: demo
demo: $(INSTALLED) ## one node: measure the standard library, write a report
	$(BIN)/python -m examples.stdlib_metrics.demo

.PHONY: demo-cluster
demo-cluster: $(INSTALLED) etcd ## three masters on etcd, with the leader and a worker killed midway
	$(BIN)/python -m examples.stdlib_metrics.demo_cluster
