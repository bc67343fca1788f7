# Everything runs in .venv, created with Python 3.11, 3.12 or 3.13: `make demo`, or `make demo PYTHON=python3.12`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := runs/demo

.PHONY: demo predict test test-slow test-faults test-prepare test-fuzz test-thorough coverage parity lint clean

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	touch $@

demo: $(VENV)/.installed  ## a student on the bundled teacher: render, train, evaluate, diagnose: 10 minutes on two CPU cores
	$(BIN)/python scripts/train_stages.py --recipe=configs/recipe.py:demo/dynamic_depth --workdir=$(DEMO) --data_root=data/demo --render=demo

predict: $(VENV)/.installed  ## depth of a rendered drive by the bundled model: half a minute after installation
	$(BIN)/python scripts/make_synthetic.py --out data/predict --preset tiny --seed 1 --height 128 --width 416
	$(BIN)/python scripts/predict.py data/predict/2011_09_26/2011_09_26_drive_9001_sync --out runs/predict --save npy,colour,mp4 --viewer

test: $(VENV)/.installed  ## lint and fast tests; CI runs this and, where all golden arrays are available, `make parity`
	$(BIN)/python -m ruff check .
	$(BIN)/python -m pytest -m "not slow and not faults and not fuzz" -n 2 --dist worksteal

test-slow: $(VENV)/.installed  ## tests marked slow: interrupted and continued runs, whole trainings, every command of the documents
	$(BIN)/python -m pytest -m slow

test-faults: $(VENV)/.installed  ## kills, full disks, damaged files: each run continues bit-equal or says why not; half an hour
	$(BIN)/python -m pytest -m faults

test-fuzz: $(VENV)/.installed  ## damaged variants of all files: an hour; make test-fuzz FUZZ="--fuzz-count=1000 --fuzz-seconds=5"
	$(BIN)/python -m pytest tests/fuzz -m fuzz $(FUZZ)

test-thorough: $(VENV)/.installed  ## the property tests with many more examples: 10 minutes
	$(BIN)/python -m pytest -m "property and not slow" --hypothesis-profile=thorough

coverage: $(VENV)/.installed  ## lines that the tests of make test reach; in one process, so it takes twice as long
	$(BIN)/python -m coverage run -m pytest -m "not slow and not faults and not fuzz"
	$(BIN)/python -m coverage report

test-prepare: $(VENV)/.installed  ## tests that need PyTorch, which it installs: masks, prior depth, .pth files
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test,prepare]'
	$(BIN)/python -m pytest tests/prepare tests/checkpoints/test_torch_files.py tests/checkpoints/test_published.py

parity: $(VENV)/.installed  ## against a folder of golden arrays, in float32 on every backend: make parity GOLDEN=DIR
	JAX_DEFAULT_MATMUL_PRECISION=highest $(BIN)/python -m pytest tests/parity -n 2 --dist worksteal --golden $(GOLDEN)

lint: $(VENV)/.installed
	$(BIN)/python -m ruff check .

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache
