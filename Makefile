# Every command of the project. `make help` lists them; each one makes what it needs first.
# What is slow to make lies in a cache outside the tree and is made once: PACELINE_CACHE says where.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules --no-print-directory
.SUFFIXES:
# The steps share one small machine and one cluster: two at a time would only fight.
.NOTPARALLEL:

export PACELINE_CACHE ?= $(HOME)/.cache/paceline

PY := .venv/bin/python
OURS := operator runtime e2e tests benchmarks quantize

.PHONY: help
help: ## This list
	@sed -n 's/^\([a-z0-9-]*\):[^#]*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 36

# -- What everything needs ---------------------------------------------------------------------------------

.PHONY: venv
venv: .venv/.complete ## The developer's Python environment, in .venv

.venv/.complete: requirements/dev.txt operator/pyproject.toml runtime/pyproject.toml \
                 runtime/paceline_core/pyproject.toml
	@.ci/venv .venv
	@touch $@

.PHONY: cluster-binaries
cluster-binaries: venv ## Kubernetes, etcd and CoreDNS, built from Go modules (once)
	@$(PY) -m e2e.cluster build

.PHONY: helm
helm: venv ## Helm, built from its Go module (once)
	@$(PY) -m e2e.helm

.PHONY: runtime-env
runtime-env: venv ## vLLM for CPUs in an environment of its own (once, 5 GB)
	@$(PY) -m e2e.environments runtime-cpu

.PHONY: timing-env
timing-env: venv ## What `paceline timing build` reads, in an environment of its own (once, 0.6 GB)
	@$(PY) -m e2e.environments timing

.PHONY: models
models: venv ## The bundled model in bf16 and INT8 (once)
	@$(PY) -m e2e.environments models

.PHONY: images
images: venv models ## The container images, into the cache
	@$(PY) -m e2e.cluster images

# -- Checks ------------------------------------------------------------------------------------------------

.PHONY: lint
lint: venv ## ruff, mypy --strict, and the arrows between the packages
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check --quiet .
	@.venv/bin/mypy --no-error-summary $(OURS)
	@.venv/bin/lint-imports --no-logo

.PHONY: unit
unit: venv helm ## Tests that need no server of others
	@$(PY) -m pytest tests/unit

.PHONY: integration
integration: venv cluster-binaries ## Tests against a real API server
	@$(PY) -m pytest tests/integration

.PHONY: test
test: lint helm cluster-binaries ## Everything that CI runs: lint, all tests, the quick e2e scenarios
	@$(PY) -m pytest -m "not slow and not vllm and not campaign and not three_nodes" --timeout=900 tests e2e/scenarios

.PHONY: e2e
e2e: venv helm cluster-binaries models runtime-env ## Whatever is too slow for `make test`: real vLLM and all scenarios but campaigns and the lost node (hours)
	@$(PY) -m pytest -m "slow or vllm" tests e2e/scenarios

# Each of these takes 45 minutes at the most and adds what it saw to e2e/results.
SCENARIO := timeout --signal=INT 45m $(PY) -m pytest -s

.PHONY: e2e-lossless
e2e-lossless: venv helm cluster-binaries ## Scenario: a change under load while the operator is killed, and an overflow
	@$(SCENARIO) e2e/scenarios/test_lossless.py e2e/scenarios/test_overflow.py

.PHONY: e2e-auto
e2e-auto: venv helm cluster-binaries ## Scenario: Auto follows the load up and down, and survives its operator
	@$(SCENARIO) e2e/scenarios/test_auto.py -k "follows or killed"

.PHONY: e2e-tp-shift
e2e-tp-shift: venv helm cluster-binaries ## Scenario: Auto changes the tensor-parallel size because the mix shifts
	@$(SCENARIO) e2e/scenarios/test_auto.py -k shift

.PHONY: e2e-rival
e2e-rival: venv helm cluster-binaries ## Scenario: Auto beside a rival that holds GPUs, and under a quota
	@$(SCENARIO) e2e/scenarios/test_auto.py -k cannot_be_had

.PHONY: e2e-auto-vllm
e2e-auto-vllm: venv helm cluster-binaries models ## Scenario: Auto on stock vLLM, 1 to 2 replicas and back
	@$(SCENARIO) e2e/scenarios/test_auto.py -k real_vllm

.PHONY: e2e-zero
e2e-zero: venv helm cluster-binaries ## Scenario: to zero and back
	@$(SCENARIO) e2e/scenarios/test_scale_to_zero.py

.PHONY: e2e-faults
e2e-faults: venv helm cluster-binaries ## Scenario: what breaks beside and in a service under load
	@$(SCENARIO) e2e/scenarios/test_faults.py

.PHONY: e2e-auto-faults
e2e-auto-faults: venv helm cluster-binaries ## Scenario: Auto without Prometheus for ten minutes, and with an engine five times too slow
	@$(SCENARIO) e2e/scenarios/test_auto_faults.py

.PHONY: e2e-operator-faults
e2e-operator-faults: venv helm cluster-binaries ## Scenario: the operator's API server refuses, forgets or is slow, and its clock jumps
	@$(SCENARIO) e2e/scenarios/test_operator_faults.py

.PHONY: e2e-node
e2e-node: venv helm cluster-binaries ## Scenario: one of three nodes is lost under load
	@$(PY) -m e2e.cluster up --nodes 3
	@$(SCENARIO) e2e/scenarios/test_node.py

.PHONY: e2e-in-place
e2e-in-place: venv helm cluster-binaries ## Scenario: a full node changes its tensor-parallel size in place, beside a rival
	@$(SCENARIO) e2e/scenarios/test_in_place.py

.PHONY: e2e-recreate
e2e-recreate: venv helm cluster-binaries ## Scenario: a full node gets another image, old pods first, also where a rival takes their GPUs
	@$(SCENARIO) e2e/scenarios/test_recreate.py

.PHONY: e2e-replay
e2e-replay: venv helm cluster-binaries ## Scenario: forty minutes of traffic with a shift of the mix, against the simulator's prediction
	@$(PY) -m e2e.cluster up
	@$(SCENARIO) e2e/scenarios/test_replay.py

.PHONY: e2e-transitions
e2e-transitions: venv helm cluster-binaries ## Campaign: transitions at random moments, 60 of each kind; goes on next time
	@$(SCENARIO) e2e/scenarios/test_transitions.py -k "not in-place"

.PHONY: e2e-transitions-in-place
e2e-transitions-in-place: venv helm cluster-binaries ## Campaign: the same for changes in place
	@$(SCENARIO) e2e/scenarios/test_transitions.py -k in-place

.PHONY: e2e-kills
e2e-kills: venv helm cluster-binaries ## Campaign: the operator killed at every step, 80 times; goes on next time
	@$(SCENARIO) e2e/scenarios/test_kills.py -k "not in-place"

.PHONY: e2e-kills-in-place
e2e-kills-in-place: venv helm cluster-binaries ## Campaign: the same for changes in place, 20 times
	@$(SCENARIO) e2e/scenarios/test_kills.py -k in-place

.PHONY: results
results: venv ## The tables of what all scenarios saw, from e2e/results
	@$(PY) -m e2e.results

# -- Written files -----------------------------------------------------------------------------------------

.PHONY: crds
crds: venv ## The CRD in crds/ and in the chart, and docs/api.md, from the API models
	@.venv/bin/paceline crds
	@.venv/bin/paceline api-docs

.PHONY: golden
golden: venv helm ## The expected files of the tests, anew: read the difference before you commit it
	@PACELINE_WRITE_GOLDEN=1 $(PY) -m pytest -q tests/unit
	@git --no-pager diff --stat -- '*golden*'

# -- See it work -------------------------------------------------------------------------------------------

.PHONY: demo
demo: venv ## From nothing to a model's answer on a real cluster
	@$(PY) -m e2e.demo

.PHONY: clean
clean: ## Stop the cluster; caches stay
	@if [ -x $(PY) ]; then $(PY) -m e2e.cluster down; fi
	@rm -rf build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

.PHONY: clean-cache
clean-cache: clean ## Remove the caches too: the next command starts from nothing
	@rm -rf "$(PACELINE_CACHE)" .venv
