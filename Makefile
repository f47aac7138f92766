# Everything starts here: `make demo` and `make test` need a Debian or Ubuntu with Python 3.11 and make, nothing else.
SHELL := /bin/bash
BOOTSTRAP := deploy/install/bootstrap.sh
SOURCES_OF_VERSIONS := pyproject.toml constraints.txt $(BOOTSTRAP)

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help install demo test foreign-parts lint system chaos fuzz bench clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: .venv/.ready-test ## the package with everything it is developed with, in .venv

demo: .venv/.ready-demo ## incentives over real brokers into a real ledger, in under a minute
	@.venv/bin/incentives demo

test: .venv/.ready-test .venv-localstack/.ready system lint ## style, types and the whole suite on real servers
	@.venv/bin/python -m pytest -m 'not chaos and not foreign' -n 2 --dist loadfile

FOREIGN := bookworm/pgbouncer trixie/pgbouncer

foreign-parts: .venv/.ready-test ## the tests with parts of other Debian releases, which it unpacks into build/
	@missing=; for part in $(FOREIGN); do \
	  deploy/install/foreign.sh $${part%/*} build/$${part#*/}-$${part%/*} $${part#*/} || \
	    { [ $$? = 3 ] || exit 1; missing="$$missing $$part"; }; \
	done; \
	if [ -z "$$missing" ]; then .venv/bin/python -m pytest -m foreign; \
	else echo "NOT RUN, because this machine cannot get$$missing: pytest -m foreign"; fi

lint: .venv/.ready-test ## ruff and mypy
	@.venv/bin/ruff check --quiet
	@.venv/bin/ruff format --check --quiet || { .venv/bin/ruff format --check; exit 1; }
	@.venv/bin/mypy

chaos: .venv/.ready-test .venv-localstack/.ready system ## the long fault runs, and everything else that takes minutes
	@.venv/bin/python -m pytest -m chaos --timeout=3600 -s
	@$(MAKE) --no-print-directory fuzz

fuzz: .venv/.ready-fuzz ## the codec under a fuzzer that coverage guides
	@.venv/bin/python -m tests.chaos.guided 120

bench: .venv/.ready-test .venv-peers/.ready system ## the benchmark against its peers; results in benchmarks/
	@.venv/bin/python -m benchmarks

clean: ## remove what make made; data of `incentives up` stays
	@rm -rf .venv .venv-localstack .venv-peers .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

system:
	@$(BOOTSTRAP) system

.venv/.ready-demo: $(SOURCES_OF_VERSIONS)
	@$(BOOTSTRAP) packages embedded $@

# What the demo needs is part of it, so the demo after a test run installs nothing.
.venv/.ready-test: $(SOURCES_OF_VERSIONS)
	@$(BOOTSTRAP) packages embedded,test,lint $@
	@touch .venv/.ready-demo

.venv/.ready-fuzz: .venv/.ready-test
	@$(BOOTSTRAP) packages embedded,test,lint,fuzz $@

.venv-localstack/.ready: deploy/install/constraints-localstack.txt $(BOOTSTRAP)
	@$(BOOTSTRAP) localstack $@

.venv-peers/.ready: deploy/install/constraints-peers.txt $(BOOTSTRAP)
	@$(BOOTSTRAP) peers $@
