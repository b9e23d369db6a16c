# What needs a Kubernetes: any that KUBECONFIG names. Included by the Makefile.
#
#   make test-crd     KUBECONFIG=…    the definition: taken, and judging jobs as `asyncppo validate` does; needs kubectl alone
#   make test-cluster KUBECONFIG=…    the operator and the chart against an API server without nodes (pods are made to seem to run)
#   make test-e2e     KUBECONFIG=…    the packaged chart and training jobs, on a cluster that has the images (ASYNCPPO_TAG)
#   make bench-jobs   KUBECONFIG=…    1,000 jobs at once [BENCH_ARGS="--jobs 100"]
#
# test-cluster and test-e2e need helm (HELM=…) and Prometheus' promtool on PATH. What else test-e2e may be told: tests/e2e/conftest.py.

CHECKOV_VENV ?= .venv-checkov

.PHONY: setup-checkov test-crd test-cluster test-e2e bench-jobs bench-coordinator

setup-checkov: $(CHECKOV_VENV)/bin/checkov  ## the checker of manifests, in an environment of its own

$(CHECKOV_VENV)/bin/checkov:
	$(PYTHON) -m venv $(CHECKOV_VENV)
	$(CHECKOV_VENV)/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) checkov==3.3.30

test-crd: setup  ## the definition on the API server of KUBECONFIG
	$(PY) -m pytest -q tests/crd $(PYTEST_ARGS)

test-cluster: setup setup-checkov  ## operator and chart against the API server of KUBECONFIG
	$(PY) -m pytest -q tests/cluster $(PYTEST_ARGS)

test-e2e: setup  ## training jobs on the cluster of KUBECONFIG, which has the images
	$(PY) -m pytest -q --durations=0 tests/e2e $(PYTEST_ARGS)

bench-jobs: setup  ## 1,000 jobs at once on the API server of KUBECONFIG
	$(PY) benchmarks/many_jobs.py $(BENCH_ARGS)

bench-coordinator: setup  ## one coordinator against 16, 64 and 256 simulated rollouts
	$(PY) benchmarks/coordinator.py $(BENCH_ARGS)
