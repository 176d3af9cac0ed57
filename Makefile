# Two commands do everything on a fresh machine: make demo, make test.
# Needed: Python 3.11+, a C++17 compiler, make.

PYTHON ?= python3
VENV ?= .venv
OUT ?= demo-out
# An index with the CPU wheels of torch, where pip does not know one already (README "Install").
TORCH_INDEX ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
PIP += $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
BUILD_TOOLS := "scikit-build-core>=0.10" "pybind11>=3.0" "cmake>=3.20" ninja
ENGINE := CMakeLists.txt pyproject.toml $(shell find csrc -type f)
TYPED := build/typed/dtwin_fast
CXX_FILES = $(shell find csrc benchmarks -name '*.h' -o -name '*.cpp')

.PHONY: demo test check format bench doctor clean

demo: $(VENV)/.demo  ## simulate, train, predict, print the table
	$(BIN)/dtwin demo --out $(OUT)

test: $(VENV)/.test  ## the whole suite
	$(BIN)/python -m pytest

check: $(VENV)/.dev  ## format, lint, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $(CXX_FILES)
	$(BIN)/mypy
	# benchmarks/ is a part of the package: checked where it installs to.
	rm -rf $(TYPED) && mkdir -p $(TYPED)
	ln -s $(CURDIR)/dtwin_fast/* $(CURDIR)/benchmarks $(TYPED)
	cd $(TYPED)/.. && $(abspath $(BIN))/mypy --config-file $(CURDIR)/pyproject.toml -p dtwin_fast.benchmarks
	$(BIN)/lint-imports

format: $(VENV)/.dev  ## rewrite the sources in the project's format
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CXX_FILES)

bench: $(VENV)/.bench  ## time the engine beside torch, JAX and ONNX Runtime
	$(BIN)/python benchmarks/run.py

doctor: $(VENV)/.demo  ## what was built, what this machine offers
	$(BIN)/dtwin doctor

clean:  ## remove the environment and the build
	rm -rf $(VENV) build

$(VENV)/.tools:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) $(BUILD_TOOLS)
	touch $@

$(VENV)/.demo: $(VENV)/.tools $(ENGINE)
	$(PIP) --no-build-isolation --config-settings=build-dir=build -e ".[demo]"
	touch $@

$(VENV)/.test: $(VENV)/.demo
	$(PIP) --no-build-isolation --config-settings=build-dir=build -e ".[test]"
	touch $@

$(VENV)/.bench: $(VENV)/.demo
	$(PIP) --no-build-isolation --config-settings=build-dir=build -e ".[bench]"
	touch $@

$(VENV)/.dev: $(VENV)/.test
	$(PIP) --no-build-isolation --config-settings=build-dir=build -e ".[test,dev]"
	touch $@
