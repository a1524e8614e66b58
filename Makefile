# Everything a stranger needs: make demo, make test. The environment is made by the first of them.
PYTHON ?= python3
UV     := build/uv/bin/uv
BIN    := .venv/bin
STAMP  := .venv/.synced
# One thread a process: on shared cores spinning threads make training 3-6 times slower.
export OMP_NUM_THREADS := 1
export OPENBLAS_NUM_THREADS := 1
export OMP_WAIT_POLICY := passive

.PHONY: help setup demo test chaos lint format kafka flink peers lock golden dashboards services compose clean
help:           ## This list
	@grep -hE '^[a-z]+: .*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

setup: $(STAMP) ## Make .venv with everything pinned and hashed; leaves .venv/bin/fleet

$(UV):
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --target build/uv uv==0.13.9

$(STAMP): $(UV) requirements/dev.txt pyproject.toml
	$(UV) venv --quiet --allow-existing --python $(PYTHON) .venv
	$(UV) pip sync --quiet --python .venv --require-hashes requirements/dev.txt
	$(UV) pip install --quiet --python .venv --no-deps --editable .
	@touch $(STAMP)

demo: setup     ## Turn the wheel twice on this machine, no server; report in runs/demo/report.html
	$(BIN)/fleet demo

test: setup     ## All tests, in two processes; starts a real Apache Kafka where Java and Maven are
	$(BIN)/pytest -n 2 --dist loadgroup --durations=25 --cov --cov-branch --cov-report=term --cov-fail-under=95

chaos: setup    ## Everything dies, again and again; prints trials, kills and losses (some 15 minutes)
	$(BIN)/fleet benchmark chaos

lint: setup     ## ruff, mypy --strict, import rules, sizes
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest tests/test_architecture.py

format: setup   ## Format and sort imports
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

kafka: setup    ## A native Apache Kafka on 127.0.0.1:9092 (Java 17, Maven); Ctrl-C ends it
	$(BIN)/fleet kafka

flink: setup    ## Flink's own environment in build/envs/flink and its jars (750 MB, Java 17, Maven; half a minute)
	$(UV) venv --quiet --allow-existing --python $(PYTHON) build/envs/flink
	$(UV) pip sync --quiet --python build/envs/flink --require-hashes requirements/flink.txt
	$(BIN)/python -m fleet.flink

peers: setup    ## Environments of the stream benchmark's peers in build/envs (quixstreams, bytewax)
	for peer in quixstreams bytewax; do \
	  $(UV) venv --quiet --allow-existing --python $(PYTHON) build/envs/$$peer && \
	  $(UV) pip sync --quiet --python build/envs/$$peer --require-hashes requirements/peer-$$peer.txt || exit 1; \
	done

services: setup ## Kafka, S3, MLflow and Prometheus natively on 127.0.0.1; Ctrl-C ends them all
	$(BIN)/fleet services

compose: setup  ## Check compose.yaml with the compose tool's own loader (Go; built in seconds)
	cd tests/compose && go build -o ../../build/compose/check .
	$(BIN)/pytest --no-cov tests/unit/test_compose.py

lock: $(UV)     ## Resolve the dependencies anew
	$(UV) pip compile --quiet pyproject.toml --python-version 3.11 --generate-hashes --extra stream --extra faust --extra learn --group dev -o requirements/dev.txt
	$(UV) pip compile --quiet pyproject.toml --python-version 3.11 --generate-hashes -o requirements/vehicle.txt
	$(UV) pip compile --quiet pyproject.toml --python-version 3.11 --generate-hashes --extra stream --extra faust -o requirements/stream.txt
	$(UV) pip compile --quiet pyproject.toml --python-version 3.11 --generate-hashes --extra stream --extra learn -o requirements/learn.txt
	$(UV) pip compile --quiet pyproject.toml --python-version 3.11 --generate-hashes --extra tracking -o requirements/tracking.txt
	$(UV) pip compile --quiet pyproject.toml --python-version 3.11 --generate-hashes --extra flink -o requirements/flink.txt
	for peer in quixstreams bytewax; do \
	  $(UV) pip compile --quiet tests/benchmarks/peers/$$peer.in --python-version 3.11 --generate-hashes -o requirements/peer-$$peer.txt || exit 1; \
	done
	$(UV) pip compile --quiet requirements/build.in --python-version 3.11 --generate-hashes -o requirements/build.txt

golden: setup   ## Write the golden files anew; review their diff
	$(BIN)/python -m tests.golden.regenerate

dashboards: setup ## Write Grafana's boards anew from monitoring/dashboards
	$(BIN)/python -m monitoring.dashboards

clean:          ## Remove what was built and run
	rm -rf .venv build runs
