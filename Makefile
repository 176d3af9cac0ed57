# Two commands do everything on a fresh machine: make demo, make test.
# Needed: Python 3.11+, a C++17 compiler, make.

PYTHON ?= python3
VENV ?= .venv
OUT ?= demo-out
PREFIX ?= build/prefix
FUZZ_SECONDS ?= 60
# An index with the CPU wheels of torch, where pip does not know one already (README "Install").
TORCH_INDEX ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
PIP += $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
BUILD_TOOLS := "scikit-build-core>=0.10" "pybind11>=3.0" "cmake>=3.20" ninja
ENGINE := CMakeLists.txt pyproject.toml $(shell find csrc -type f)
TYPED := build/typed/dtwin_fast
CXX_FILES = $(shell find csrc benchmarks tests -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh')
ENGINE_TESTS := $(addprefix tests/test_,affine.py rollout.py bad_rollouts.py determinism.py cells.py torch_op.py)
PROGRAM_TESTS := $(addprefix tests/test_,c_api.py c_model.py threads.py activations.py)

.PHONY: demo test check format bench doctor browser onnxruntime-header c-library clang fuzz asan tsan chaos soak exhaustive aarch64 clean

demo: $(VENV)/.demo  ## simulate, train, evaluate, intervene, write the report
	$(BIN)/dtwin demo --out $(OUT)

test: onnxruntime-header $(VENV)/.test browser  ## the whole suite
	$(BIN)/python -m pytest

# Debian's root can install it; elsewhere the tests of pages in a browser are skipped, with the reason.
browser:  ## Chromium and its driver
	@if command -v chromium >/dev/null && command -v chromedriver >/dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && grep -qs '^ID=debian$$' /etc/os-release; then \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
	        apt-get install -y -qq --no-install-recommends chromium chromium-driver; \
	else echo "No Chromium here: its tests are skipped (Debian: chromium, chromium-driver)." >&2; fi

check: $(VENV)/.dev  ## format, lint, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $(CXX_FILES)
	$(BIN)/mypy
	# benchmarks/, export/ and kernels/ are parts of the package: checked where they install to.
	rm -rf $(TYPED) && mkdir -p $(TYPED)
	ln -s $(CURDIR)/dtwin_fast/* $(CURDIR)/benchmarks $(CURDIR)/export $(CURDIR)/kernels $(TYPED)
	cd $(TYPED)/.. && $(abspath $(BIN))/mypy --config-file $(CURDIR)/pyproject.toml -p dtwin_fast.benchmarks -p dtwin_fast.export -p dtwin_fast.kernels
	$(BIN)/lint-imports

format: $(VENV)/.dev  ## rewrite the sources in the project's format
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CXX_FILES)

bench: $(VENV)/.bench  ## time the engine beside torch, JAX and ONNX Runtime
	$(BIN)/python benchmarks/run.py

doctor: $(VENV)/.demo  ## what was built, what this machine offers
	$(BIN)/dtwin doctor

# Of Python nothing is needed.
c-library:  ## the C library, installed to PREFIX: dtwin.h, find_package(dtwin), pkg-config dtwin
	cmake -S . -B build/c-library
	cmake --build build/c-library --target dtwin --parallel
	cmake --install build/c-library --prefix $(PREFIX)

# Elsewhere a driver of tests/cpp takes libFuzzer's place, which does not see what it reaches.
clang:  ## Clang, for libFuzzer
	@if command -v clang++ >/dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && grep -qs '^ID=debian$$' /etc/os-release; then \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq clang; \
	else echo "No clang++ here: fuzzing without libFuzzer (Debian: clang)." >&2; fi

fuzz: clang $(VENV)/.test  ## what reads model files in C++, FUZZ_SECONDS for each target
	rm -rf build/fuzz && $(BIN)/python tests/fuzz_corpus.py build/fuzz/corpus
	@set -e; export ASAN_OPTIONS=max_allocation_size_mb=64:allocator_may_return_null=0; \
	options="-DDTWIN_CUDA=OFF -DDTWIN_SANITIZE=$(ASAN)"; \
	if command -v clang++ >/dev/null; then fuzzer=ON; \
	    options="$$options -DCMAKE_C_COMPILER=clang -DCMAKE_CXX_COMPILER=clang++"; \
	else fuzzer=OFF; fi; \
	$(BIN)/cmake -S . -B build/fuzz $$options -DDTWIN_LIBFUZZER=$$fuzzer >/dev/null; \
	for target in json safetensors model; do \
	    $(BIN)/cmake --build build/fuzz --target fuzz_$$target --parallel >/dev/null; \
	    if [ $$fuzzer = ON ]; then mkdir -p build/fuzz/found/$$target; \
	        build/fuzz/fuzz_$$target -max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=1024 \
	            -print_final_stats=1 -artifact_prefix=build/fuzz/$$target- \
	            build/fuzz/found/$$target build/fuzz/corpus/$$target >build/fuzz/$$target.log 2>&1 \
	            || { cat build/fuzz/$$target.log; exit 1; }; \
	        grep number_of_executed_units build/fuzz/$$target.log; \
	    else build/fuzz/fuzz_$$target $(FUZZ_SECONDS) 1 build/fuzz/corpus/$$target/*; fi; \
	    echo "$$target: no faults in $(FUZZ_SECONDS) s"; \
	done

# The environment's packages by path: its start-up files would import the normal engine.
PACKAGES = $(shell $(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
PRELOAD = $(shell g++ -print-file-name=libasan.so):$(shell g++ -print-file-name=libstdc++.so)
ASAN := address,undefined

asan: $(VENV)/.test  ## programs of tests/cpp, then the Python tests of the engine, under ASan and UBSan
	ASAN_OPTIONS=allocator_may_return_null=1 \
	    DTWIN_CMAKE_OPTIONS=-DDTWIN_SANITIZE=$(ASAN) \
	    $(BIN)/python -m pytest $(PROGRAM_TESTS)
	$(PIP) --no-build-isolation --no-deps --upgrade --target build/asan/site \
	    --config-settings=build-dir=build/asan --config-settings=cmake.define.DTWIN_SANITIZE=$(ASAN) .
	$(BIN)/python -m venv --without-pip build/asan/venv
	# CPython and torch keep memory to the end, so leaks are looked for in the programs alone.
	PATH=$(abspath $(BIN)):$$PATH PYTHONPATH=$(CURDIR)/build/asan/site:$(PACKAGES) PYTHONSAFEPATH=1 \
	    DTWIN_CONFIGURATIONS=100 \
	    ASAN_OPTIONS=allocator_may_return_null=1:detect_leaks=0 LD_PRELOAD=$(PRELOAD) \
	    build/asan/venv/bin/python -m pytest $(ENGINE_TESTS)

tsan: $(VENV)/.test  ## concurrent calls under ThreadSanitizer
	DTWIN_CMAKE_OPTIONS=-DDTWIN_SANITIZE=thread $(BIN)/python -m pytest tests/test_threads.py \
	    tests/test_c_model.py -k "threads or concurrent"

chaos: $(VENV)/.test  ## 300 kills of screenings, and every call that writes failing with every error
	DTWIN_CHAOS=1 $(BIN)/python -m pytest -s tests/test_screening_faults.py

soak: $(VENV)/.test  ## a server with ten times what it can do, slow and absent clients, and its end
	$(BIN)/python -m dtwin_fast.benchmarks.serve_load --json build/serve-load.json

exhaustive: $(VENV)/.test  ## tanh and sigmoid of every float32, on every instruction set here
	DTWIN_ACTIVATIONS_STRIDE=1 $(BIN)/python -m pytest -s tests/test_activations.py

aarch64: $(VENV)/.test  ## the programs of tests/cpp for 64-bit Arm, under an emulator
	@command -v aarch64-linux-gnu-g++ >/dev/null && command -v qemu-aarch64 >/dev/null || \
	    { echo "Install the Debian packages g++-aarch64-linux-gnu and qemu-user." >&2; exit 1; }
	DTWIN_CMAKE_OPTIONS=-DCMAKE_TOOLCHAIN_FILE=$(CURDIR)/cmake/aarch64-linux-gnu.cmake \
	    DTWIN_EMULATOR="qemu-aarch64 -L /usr/aarch64-linux-gnu" DTWIN_ACTIVATIONS_STRIDE=9973 \
	    $(BIN)/python -m pytest $(PROGRAM_TESTS)

# Debian has it from release 13 on. Nothing is installed: it is unpacked where CMake looks for it.
HEADER := build/onnxruntime
HEADER_APT := apt-get -qq -o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts=$(CURDIR)/$(HEADER)/sources \
    -o Dir::State::Lists=$(CURDIR)/$(HEADER)/lists -o Dir::Cache=$(CURDIR)/$(HEADER)/cache \
    -o Acquire::Languages=none -o APT::Sandbox::User=root
onnxruntime-header:  ## the C header of ONNX Runtime from Debian, for libdtwin_ort
	@if [ -n "$$(find $(HEADER)/usr -name onnxruntime_c_api.h 2>/dev/null)" ]; then :; \
	elif [ "$$(id -u)" = 0 ] && [ -f /etc/apt/sources.list.d/debian.sources ]; then \
	    mkdir -p $(HEADER)/sources $(HEADER)/lists/partial $(HEADER)/cache/archives/partial && \
	    sed -n '/^$$/q; s/^Suites:.*/Suites: trixie/; p' /etc/apt/sources.list.d/debian.sources \
	        > $(HEADER)/sources/header.sources && \
	    $(HEADER_APT) update && cd $(HEADER) && $(HEADER_APT) download libonnxruntime-dev && \
	    dpkg-deb -x libonnxruntime-dev_*.deb . && rm -r lists cache; \
	else echo "No Debian here: libdtwin_ort is built where onnxruntime_c_api.h is found (docs/onnx.md)." >&2; fi

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
