# Everything a newcomer, a developer or CI runs. `make` alone lists it.

PYTHON     ?= python3
WORKERS    ?= auto
UV_VERSION := 0.13.9

VENV  := .venv
BIN   := $(VENV)/bin
READY := $(VENV)/.ready
UV    := $(BIN)/uv
INTO  := --python $(BIN)/python
# one thread a worker: more would fight over the cores that the workers share
TESTS := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --maxprocesses 8 --dist loadfile

# an activated environment must not decide where anything is installed or imported from
unexport VIRTUAL_ENV PYTHONHOME PYTHONPATH
# the wheel brings its own pyright and node; asking for a newer one needs the network
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

.PHONY: help
help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-10s %s\n", $$1, $$2 }'

# ---- set up ----

.PHONY: setup
setup: $(READY)  ## build .venv from the pinned requirements (PYTHON=python3.12 chooses the interpreter)

# the interpreter is followed through its link, so an upgraded or removed one sets up again
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		found=$$($(PYTHON) --version 2>&1) || found="not there"; \
		echo "kdx needs Python 3.11 or newer, but $(PYTHON) is $$found; name another: make PYTHON=python3.12 setup" >&2; \
		exit 1; }
	$(PYTHON) -m venv --clear $(VENV)

$(READY): $(BIN)/python requirements.lock pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	$(UV) pip install $(INTO) --compile-bytecode --require-hashes --build-constraints requirements.lock -r requirements.lock
	$(UV) --quiet pip install $(INTO) --no-deps --no-build-isolation -e .
	@touch $@

.PHONY: lock
lock: $(READY)  ## bring requirements.lock in line with pyproject.toml (UPGRADE=--upgrade for newer versions)
	$(UV) --quiet pip compile pyproject.toml --extra dev --extra docs --extra shards --extra sweeps --extra text --extra encoder --extra onnx --extra detection --extra backbone --universal --python-version 3.11 --generate-hashes $(UPGRADE) \
		--no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' -o requirements.lock

# ---- use ----

.PHONY: demo
demo: $(READY)  ## two minutes: train a teacher, distill it, print the table
	$(BIN)/kdx study study=demo

.PHONY: bench
bench: $(READY)  ## measure the training loop's speed on this machine
	$(BIN)/python scripts/bench.py

.PHONY: zoo-networks
zoo-networks: $(READY)  ## try every network of timm and torchvision with every method that reads features (resumes)
	OMP_NUM_THREADS=1 $(BIN)/python scripts/zoo_networks.py

.PHONY: readme
readme: $(READY)  ## run the demo, and regenerate README's picture and table and all generated documentation
	$(BIN)/python scripts/readme.py --demo

.PHONY: docs
docs: $(READY)  ## build the site of READMEs and docstrings: build/site/index.html
	$(BIN)/python scripts/docs.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs --quiet build --strict -f build/mkdocs.yml
	@echo "build/site/index.html"

# ---- test ----

.PHONY: test
test: $(READY)  ## run the tests that take seconds (ROOM=losses: those of one room)
	$(TESTS) -m "not slow" $(if $(ROOM),tests/$(ROOM))

.PHONY: test-slow
test-slow: $(READY)  ## run the tests that take longer
	$(TESTS) -m slow

.PHONY: test-all
test-all: $(READY)  ## run all tests
	$(TESTS)

.PHONY: mutate
mutate: $(READY)  ## change one thing at a time in a copy and name the changes that no test notices (ROOM=losses N=40 SEED=1)
	@test -n "$(ROOM)" || { echo "say which room: make mutate ROOM=losses N=40 SEED=1" >&2; exit 2; }
	$(BIN)/python scripts/mutate.py $(ROOM) --count $(or $(N),40) --seed $(or $(SEED),1)

.PHONY: kills
kills: $(READY)  ## kill KILLS=200 runs of 24 kinds, resume them, and compare each bit (hours; resumable)
	nice -n 10 $(BIN)/python scripts/kill_campaign.py --kills $(or $(KILLS),200)

.PHONY: damages
damages: $(READY)  ## damage each kind of file of a run in 20 ways, and read the answers of each command
	$(BIN)/python scripts/damage_campaign.py

.PHONY: fuzz
fuzz: $(READY)  ## compose 1,000 generated commands (SEED=0), and check the messages
	$(BIN)/python scripts/override_fuzz.py --commands 1000 --seed $(or $(SEED),0)

.PHONY: many
many: $(READY)  ## measure kdx status and kdx report on 10,000 made-up runs
	$(BIN)/python scripts/many_runs.py

.PHONY: compare
compare: $(READY)  ## train briefly at BASE=commit and as it is here, and compare each bit (SET=dkd,crd for some cases, WITHOUT=cka)
	@test -n "$(BASE)" || { echo "say which commit: make compare BASE=HEAD" >&2; exit 2; }
	$(BIN)/python scripts/compare.py $(BASE) $(if $(SET),--set $(SET)) $(if $(WITHOUT),--without $(WITHOUT))

# ---- check ----

.PHONY: check
check: lint types floors  ## everything that reads the code without running it

.PHONY: lint
lint: $(READY)  ## style and layout (ruff)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

.PHONY: format
format: $(READY)  ## put style and layout right
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: types
types: $(READY)  ## types (pyright)
	$(BIN)/pyright

.PHONY: floors
floors: $(READY)  ## who may import whom (import-linter)
	$(BIN)/lint-imports

.PHONY: clean
clean:  ## remove caches and built packages; .venv and outputs/ stay
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find kdx tests scripts -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
