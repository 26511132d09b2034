# Everything goes into .venv of this checkout, from package registries, without a compiler.
# Needs make and Python 3.10 or newer; name another interpreter with `make PYTHON=python3.12 ...`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
PIP := $(BIN)/python -m pip --disable-pip-version-check
# make install TORCH="torch==X torchvision==Y" takes another pair than requirements.txt's. The
# environment keeps it until another one is asked for; TORCH= goes back to the usual one.
INSTALLED_TORCH := $(shell cat $(INSTALLED) 2>/dev/null)
TORCH := $(INSTALLED_TORCH)
DEMO_OUTPUT := demo/output
WEIGHTS := $(DEMO_OUTPUT)/x152_synthetic.pth
BENCH ?=
# Two processes of one thread each. The tests of a file share what they make, so they stay together.
TEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile
# make gpu: on the CPU, with small models, with DEVICE=cpu; the steps, of tools/gpu.py; seconds.
DEVICE ?= cuda
GPU_STEPS ?=
GPU_LIMIT ?= 600
GPU_OUTPUT ?= $(DEMO_OUTPUT)/gpu$(if $(filter cpu,$(DEVICE)),_on_cpu)
SOURCES := vmb_d2 weights_conversion tools demo examples reference tests setup.py

.PHONY: install demo demo-released bench gpu gpu-report wheels test test-fast lint format clean

install: $(INSTALLED)

ifneq ($(TORCH),$(INSTALLED_TORCH))
.PHONY: $(INSTALLED)
endif

# Detectron2's setup.py would compile: pure.cfg makes its wheel from the Python files alone.
$(INSTALLED): requirements.txt requirements-dev.txt requirements-detectron2.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "VMB-D2 needs Python 3.10 or newer: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(PIP) install --quiet pip==25.3 setuptools==80.9.0 wheel==0.45.1
	sed '$(if $(TORCH),/^torch/d)' requirements.txt > $(VENV)/requirements.txt
	cp requirements-dev.txt $(VENV)
	$(PIP) install --quiet --no-build-isolation -r $(VENV)/requirements-dev.txt $(TORCH)
	printf '[aliases]\nbdist_wheel = build_py bdist_wheel --skip-build\n' > $(VENV)/pure.cfg
	DIST_EXTRA_CONFIG=$(abspath $(VENV))/pure.cfg $(PIP) install --quiet --no-cache-dir \
		--use-pep517 --no-build-isolation --no-deps -r requirements-detectron2.txt
	$(PIP) install --quiet --no-build-isolation --no-deps --editable .
	echo '$(TORCH)' > $@

demo: $(INSTALLED) $(WEIGHTS)
	$(BIN)/python demo/demo.py --output $(DEMO_OUTPUT)

# With the released weights, which it downloads: to see that all is well.
demo-released: $(INSTALLED)
	$(BIN)/python demo/released.py --output $(DEMO_OUTPUT)

# The synthetic weights of the goldens, in VMB's layout: 0.8 GB.
$(WEIGHTS): | $(INSTALLED)
	mkdir -p $(DEMO_OUTPUT)
	$(BIN)/python reference/synthetic_weights.py reference/state_dicts/x152.json $@.part
	mv $@.part $@

# More options: make bench BENCH="--precision fp32,bf16 --batch-sizes 1,2,4"
bench: $(INSTALLED) $(WEIGHTS)
	$(BIN)/python tools/benchmark.py --model x152 --weights $(WEIGHTS) --images demo \
		--cache-dir $(DEMO_OUTPUT)/cache \
		--json $(DEMO_OUTPUT)/benchmark.json $(BENCH)

# Without .venv it takes the packages of this machine and the wheels in wheels/. Only a clone on a
# machine without PyTorch is installed first; a folder that was copied there is told what it lacks.
GPU = "$$(test -e $(INSTALLED) && echo $(BIN)/python || echo $(PYTHON))" tools/gpu.py \
	--output $(GPU_OUTPUT)

gpu:
	@test -e $(INSTALLED) -o ! -e .git -o -d wheels || $(PYTHON) -c 'import torch' 2>/dev/null || \
		$(MAKE) install
	@$(GPU) --device $(DEVICE) --limit $(GPU_LIMIT) --steps "$(GPU_STEPS)"

gpu-report:
	@$(GPU) --report docs/gpu.md

# For a copy on a machine that has only PyTorch and torchvision, of the same Python, and no network.
wheels: $(INSTALLED)
	sed '/^torch/d' requirements.txt > $(VENV)/wheels.txt
	$(PIP) wheel --quiet --no-build-isolation -w $@ -r $(VENV)/wheels.txt pytest hypothesis
	DIST_EXTRA_CONFIG=$(abspath $(VENV))/pure.cfg $(PIP) wheel --quiet --use-pep517 \
		--no-build-isolation --no-deps -w $@ -r requirements-detectron2.txt

test: $(INSTALLED)
	$(TEST)

# Without Slurm, a browser, full-size models and whatever else takes long.
test-fast: $(INSTALLED)
	$(TEST) -m "not slow"

lint: $(INSTALLED)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

clean:
	rm -rf $(VENV) wheels build *.egg-info .pytest_cache .ruff_cache
