# make demo      a virtual environment, the package, and JupyterLab on notebooks/quickstart.ipynb
# make test      a virtual environment, the package, and all tests
#
# Both work on a fresh clone with Python 3.11 or newer, a C and C++ compiler and make; nothing else need be there.
# Choose the interpreter with PYTHON=python3.13, the environment's place with VENV=..., tests with TESTS="tests/cli -x";
# NATIVE= leaves out the tests of the C++ code, which know nothing of Python.

PYTHON ?= python3
VENV ?= .venv
TESTS ?= tests
HEADLESS ?=
NATIVE ?= yes

BIN := $(abspath $(VENV))/bin
SOURCES := pyproject.toml CMakeLists.txt README.md $(shell find gpumem_magic -type f \
	-not -path '*/__pycache__/*' -not -name '*.so' -not -name '*.so.*' -not -name '_core.pyi')
CXX_SOURCES = $(shell git ls-files -co --exclude-standard '*.c' '*.h' '*.cpp')
NOTEBOOK := notebooks/quickstart.ipynb
PAGE := build/demo/quickstart.html

.PHONY: demo test lint notebook format sanitize clean

demo: $(VENV)/demo.installed
	@$(BIN)/python -c "from gpumem_magic.cli.probe import try_tracker; found = try_tracker(); \
	print('GPU:', ', '.join(found.devices) if found.state != 'no GPU' and found.devices else 'a simulated one (there is no real one here)')"
ifeq ($(HEADLESS),)
	$(BIN)/jupyter lab $(if $(filter 0,$(shell id -u)),--allow-root) $(NOTEBOOK)
else
	@$(BIN)/jupyter nbconvert --log-level WARN --execute --to html --output-dir $(dir $(PAGE)) $(NOTEBOOK)
	@echo "The notebook, executed: $(abspath $(PAGE))"
endif

test: $(VENV)/test.installed
ifneq ($(NATIVE),)
	PATH="$(BIN):$$PATH" tests/native/run.sh plain
endif
	$(BIN)/pytest $(TESTS)

# _core.pyi is made by the build; mypy needs it beside the sources.
lint: $(VENV)/dev.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	cp "$$($(BIN)/python -P -c 'import gpumem_magic; print(gpumem_magic.__path__[0])')/_core.pyi" gpumem_magic/
	$(BIN)/mypy
	clang-format --dry-run -Werror $(CXX_SOURCES)
	$(BIN)/cmake -S . -B build/lint -G Ninja -DPython_EXECUTABLE=$(BIN)/python -DCMAKE_MAKE_PROGRAM=$(BIN)/ninja >build/lint.log \
		|| { cat build/lint.log; exit 1; }
	@echo clang-tidy ...
	@$(BIN)/python -c "import json; print(*{unit['file'] for unit in json.load(open('build/lint/compile_commands.json')) \
	if 'gpumem_magic' in unit['file']}, sep='\n')" | xargs -P "$$(nproc)" -n 4 clang-tidy -p build/lint --quiet 2>build/clang-tidy.log

# Refreshes the outputs that are saved in the notebook; on a machine without a GPU, so that it shows the simulated one.
notebook: $(VENV)/demo.installed
	$(BIN)/jupyter nbconvert --log-level WARN --execute --inplace --to notebook \
		--ExecutePreprocessor.record_timing=False --ExecutePreprocessor.store_widget_state=False $(NOTEBOOK)

format: $(VENV)/dev.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	clang-format -i $(CXX_SOURCES)

sanitize: $(VENV)/test.installed
	PATH="$(BIN):$$PATH" tests/native/run.sh asan
	PATH="$(BIN):$$PATH" tests/native/run.sh tsan

clean:
	rm -rf build dist $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis gpumem_magic/_core.pyi

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed; $(PYTHON) is older. Name another: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)

# One file per extra says when the package was installed with it; a changed source makes it install again.
$(VENV)/%.installed: $(VENV)/bin/python $(SOURCES)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check ".[$*]"
	@touch $@
