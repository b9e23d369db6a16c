# The locks: every file that is installed, with its hash. Included by the Makefile; explained in locks/README.md.
#
#   make lock    writes them anew from pyproject.toml and the constraints

LOCK_VENV ?= .venv-lock
UV := $(LOCK_VENV)/bin/uv
COMPILE = $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate
NEEDS = $(COMPILE) --no-emit-package torch --override locks/without-torch.txt --constraint constraints.txt
# Packages without a wheel: pip would need a compiler or setuptools to install them.
COMPILED := cellpylib pycosat zss

.PHONY: lock

$(UV):
	$(PYTHON) -m venv $(LOCK_VENV)
	$(LOCK_VENV)/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) uv==0.13.9

lock: $(UV)  ## write the hashes of everything that is installed
	$(NEEDS) pyproject.toml locks/torch-needs.in $(foreach extra,$(subst $(comma), ,$(DEFAULT_EXTRAS)),--extra $(extra)) \
		--group build --output-file locks/dev.txt
	$(NEEDS) pyproject.toml --extra operator --output-file locks/operator.txt
	$(NEEDS) pyproject.toml locks/torch-needs.in --extra runtime --extra reasoning-gym \
		$(foreach package,$(COMPILED),--no-emit-package $(package)) --output-file locks/runtime.txt
	printf '%s\n' $(COMPILED) | $(COMPILE) --no-deps --constraint constraints.txt --output-file locks/compiled.txt -
	printf '%s\n' '$(VLLM_LOCKED)' | $(COMPILE) --no-deps constraints-vllm.txt - --output-file locks/vllm.txt
