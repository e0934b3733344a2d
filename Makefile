# Set up once in .venv, then: `make demo` makes a picture, `make test` runs the tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
# Triton decides once in a process whether kernels are interpreted or compiled, so these tests have one of their own.
if_triton = $(BIN)/python -c "import triton" || { echo "No Triton here: the kernels are not interpreted."; exit 0; };
INTERPRETED := MEZZOTINT_KERNELS=interpret $(BIN)/python -m pytest -q tests/kernels/interpreted

.PHONY: demo test lint types slow docs kernels parity gallery results bench clean

demo: $(READY)
	$(BIN)/mezzotint run graphs/text_to_image.json --prompt "$(or $(PROMPT),a large red circle on a white background)"

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m "not slow and not gpu" -n 2 --dist loadfile
	$(if_triton) OMP_NUM_THREADS=1 $(INTERPRETED) -m "not slow and not gpu" -n 2 --dist loadfile

slow: $(READY)
	OMP_NUM_THREADS=2 $(BIN)/python -m pytest -q -m "slow and not gpu"
	$(if_triton) OMP_NUM_THREADS=2 $(INTERPRETED) -m "slow and not gpu" || test $$? -eq 5  # 5: there are none

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check engine kernels plugins tests benchmarks

types: $(READY)
	$(BIN)/mypy

docs: $(READY)
	$(BIN)/mezzotint nodes --markdown --bundled > docs/nodes.md
	$(BIN)/mezzotint schema --bundled > graphs/graph-1.schema.json

# Compiles every kernel for every chip that it knows, which takes minutes, and writes down what came out.
kernels: $(READY)
	$(BIN)/python -m mezzotint_kernels.audit --write docs/kernels.md

# Samplers beside diffusers' and k-diffusion's.
parity: $(READY)
	$(BIN)/python benchmarks/parity.py --write docs/parity.md

# Runs every system's graph as shipped, for an hour on one core; `python docs/gallery.py NAME` runs one.
gallery: $(READY)
	$(BIN)/python docs/gallery.py

# The systems beside each other, with more captions than the leaderboard's graph has by default.
results: $(READY)
	$(BIN)/python docs/results.py

bench: $(READY)
	set -e; for file in benchmarks/*.py; do echo "== $$file"; $(BIN)/python $$file; done

# The constraints pin what a test run depends on; the package itself does not.
$(READY): pyproject.toml setup.py constraints-dev.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints-dev.txt torch
	$(BIN)/python -m pip install --quiet -c constraints-dev.txt -e ".[dev]"
	# A peer of the samplers. Without what it asks for, which is for training: wandb, kornia, clip and more.
	$(BIN)/python -m pip install --quiet --no-deps -c constraints-dev.txt k-diffusion
	touch $(READY)

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
