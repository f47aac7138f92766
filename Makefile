# Everything starts here: `make demo` and `make test` need a Debian or Ubuntu with Python 3.11 to 3.14 and make, nothing else.
SHELL := /bin/bash
# The tests start hundreds of processes: each would compile the package again.
unexport PYTHONDONTWRITEBYTECODE
BOOTSTRAP := deploy/install/bootstrap.sh
LOCKS := deploy/install/locks
SOURCES_OF_VERSIONS := pyproject.toml $(LOCKS)/build.lock $(BOOTSTRAP)

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help install demo test observe-check foreign-parts rabbitmq4 postgres-releases deploy-check ha pages lint lock sbom audit system-demo system-test chaos fuzz bench clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: .venv/.ready-test ## the package with everything it is developed with, in .venv

demo: .venv/.ready-demo ## incentives over real brokers into a real ledger, in under a minute
	@.venv/bin/incentives demo

# Not these: each has a target of its own.
QUICK := not chaos and not foreign and not deploy and not ha and not observe and not pages
# In the order of tests/conftest.py, the longest files first.
A_FILE_A_PROCESS := --dist loadfile --no-loadscope-reorder

test: system-test .venv/.ready-test .venv-localstack/.ready .venv-deploy/.ready .venv-audit/.ready lint ## style, types and the whole suite on real servers
	@.venv/bin/python -m pytest -m '$(QUICK)' -n 3 $(A_FILE_A_PROCESS)

FOREIGN := bookworm/pgbouncer trixie/pgbouncer

foreign-parts: .venv/.ready-test ## the tests with parts of other Debian releases, which it unpacks into build/
	@missing=; for part in $(FOREIGN); do \
	  deploy/install/foreign.sh $${part%/*} build/$${part#*/}-$${part%/*} $${part#*/} || \
	    { [ $$? = 3 ] || exit 1; missing="$$missing $$part"; }; \
	done; \
	if [ -z "$$missing" ]; then .venv/bin/python -m pytest -m foreign; \
	else echo "NOT RUN, because this machine cannot get$$missing: pytest -m foreign"; fi

# What this machine cannot have is skipped, and named in the line before pytest's last.
deploy-check: .venv/.ready-test .venv-localstack/.ready .venv-deploy/.ready .venv-audit/.ready ## what deploy/ holds, built, deployed and audited
	@for parts in deploy ha; do $(BOOTSTRAP) system $$parts || echo "make deploy-check: going on without them."; done
	@mkdir -p build/deploy
	@deploy/install/foreign.sh trixie build/docker-compose docker-compose || [ $$? = 3 ]
	@deploy/docker/base.sh build/deploy/base.tar || [ $$? = 3 ]
	@.venv/bin/python -m pytest -m deploy --timeout=360 -n 2 --dist loadfile --ignore=tests/ha
	@.venv/bin/python -m pytest -m deploy --timeout=360 tests/ha # alone, for it measures waiting

ha: .venv/.ready-test ## twenty faults against Patroni and three RabbitMQ nodes under load, ten minutes
	@$(BOOTSTRAP) system ha
	@.venv/bin/python -m pytest -m ha

# A machine that cannot have Chromium is told so in one line, and nothing is tried.
pages: system-test .venv/.ready-test ## the console in a real browser: every page, and a night of dead letters
	@if $(BOOTSTRAP) system pages; then .venv/bin/python -m pytest -m pages -n 2 --dist loadfile; \
	else echo "NOT RUN, because this machine has no chromium: pytest -m pages"; fi

postgres-releases: .venv/.ready-test ## the tests of the ledger on Postgres 15, 16 and 17, as far as they can be had
	@deploy/install/on_postgres.sh

observe-check: system-test .venv/.ready-test ## alerts, objectives and dashboard, by a real Prometheus
	@.venv/bin/python -m pytest -m observe -n 2 --dist loadfile

rabbitmq4: system-test .venv/.ready-test .venv-localstack/.ready ## the tests of RabbitMQ on 4.x, unpacked beside the system's
	@deploy/install/on_rabbitmq4.sh

unit: .venv/.ready-test ## the tests that need no server, in under half a minute
	@.venv/bin/python -m pytest tests/unit -m '$(QUICK)' -n 2 --dist worksteal -q

coverage: system-test .venv/.ready-test .venv-localstack/.ready ## which lines the suite runs, of this process and of its workers
	@.venv/bin/python -m coverage erase
	@.venv/bin/python -m coverage run -m pytest -m '$(QUICK)'
	@.venv/bin/python -m coverage combine --quiet
	@.venv/bin/python -m coverage report --skip-covered --sort=cover

format: .venv/.ready-test ## write the style instead of checking it
	@.venv/bin/ruff check --quiet --fix
	@.venv/bin/ruff format --quiet

lint: .venv/.ready-test ## ruff and mypy
	@.venv/bin/ruff check --quiet
	@.venv/bin/ruff format --check --quiet || { .venv/bin/ruff format --check; exit 1; }
	@.venv/bin/mypy

chaos: system-test .venv/.ready-test .venv-localstack/.ready ## the long fault runs, and everything else that takes minutes
	@.venv/bin/python -m pytest -m chaos --timeout=3600 -s
	@$(MAKE) --no-print-directory fuzz

fuzz: .venv/.ready-fuzz ## the codec under a fuzzer that coverage guides
	@.venv/bin/python -m tests.chaos.guided 120

bench: system-test .venv/.ready-test .venv-peers/.ready ## the benchmark against its peers; results in benchmarks/
	@.venv/bin/python -m benchmarks

clean: ## remove what make made; data of `incentives up` stays
	@rm -rf .venv .venv-localstack .venv-peers .venv-deploy .venv-audit .pytest_cache .mypy_cache .ruff_cache .hypothesis .cache/rabbitmq build dist *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# What the system lacks is told, or installed, before anything else takes its minute.
system-demo:
	@$(BOOTSTRAP) system demo

system-test:
	@$(BOOTSTRAP) system test

lock: ## resolve all versions again into deploy/install/locks, with hashes (UPGRADE=1 takes the newest)
	@deploy/install/lock.sh

.venv/.ready-demo: $(SOURCES_OF_VERSIONS) $(LOCKS)/demo.lock | system-demo
	@$(BOOTSTRAP) packages demo $@

# What the demo needs is part of it, so the demo after a test run installs nothing.
.venv/.ready-test: $(SOURCES_OF_VERSIONS) $(LOCKS)/development.lock | system-demo
	@$(BOOTSTRAP) packages development $@
	@touch .venv/.ready-demo

.venv/.ready-fuzz: .venv/.ready-test $(LOCKS)/fuzz.lock
	@$(BOOTSTRAP) packages fuzz $@

.venv-localstack/.ready: $(LOCKS)/localstack.lock $(LOCKS)/build.lock $(BOOTSTRAP) | system-demo
	@$(BOOTSTRAP) localstack $@

# Of what the image holds; SBOM_LOCK names another lock.
SBOM_LOCK := runtime

sbom: .venv-audit/.ready ## a bill of materials of the runtime's lock, CycloneDX in JSON, in build/sbom/
	@.venv-audit/bin/python deploy/install/sbom.py $(LOCKS)/$(SBOM_LOCK).lock build/sbom/$(SBOM_LOCK).cdx.json

# Not part of `make test`: it asks OSV, or PyPI, about every package. 1 where a hole is known, 3 where nobody answers.
audit: .venv-audit/.ready ## known holes in what the locks pin
	@.venv-audit/bin/python deploy/install/audit.py $(wildcard $(LOCKS)/*.lock)

.venv-audit/.ready: $(LOCKS)/audit.lock $(LOCKS)/build.lock $(BOOTSTRAP) | system-demo
	@$(BOOTSTRAP) audit $@

.venv-deploy/.ready: $(LOCKS)/deploy.lock $(LOCKS)/build.lock $(BOOTSTRAP) | system-demo
	@$(BOOTSTRAP) deploy $@

.venv-peers/.ready: $(LOCKS)/peers.lock $(LOCKS)/build.lock $(BOOTSTRAP) | system-demo
	@$(BOOTSTRAP) peers $@
