# Each target does all the set-up it needs on a machine with Python 3.11 or newer and make.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

.PHONY: setup demo test coverage lint bench docs docs-check ray-check wheel-check clean
setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

demo: setup
	$(BIN)/csvi demo

test: setup
	@which chromium chromium-browser google-chrome 2>&1 | grep -q ^/ || \
	  echo "no Chromium: the tests of csvi app in a browser are skipped (apt-get install chromium)"
	$(BIN)/python -m pytest -n 2

# lines of src/ that those tests run, in the processes that they start too; at least 90 % of them
coverage: setup
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n 2
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup
	$(BIN)/python benchmarks/short.py $(if $(LONG),--long)

# runs the commands and Python blocks of README.md and docs/ on small data, and executes the notebooks
docs-check: setup
	$(BIN)/python -m pytest -n 2 -m "" --show-capture=no tests/test_docs.py tests/test_docs_commands.py tests/test_architecture.py tests/test_examples.py

# runs the tests of the engine ray, with Ray on this machine
ray-check: $(VENV)/.ray
	$(BIN)/python -m pytest -m "" tests/test_ray.py

# builds wheel and sdist, and uses the wheel where nothing else of csvi is; REUSE=1 takes torch from .venv
wheel-check: $(if $(REUSE),setup)
	$(if $(REUSE),$(BIN)/python,$(PYTHON)) .ci/wheel_check.py $(if $(REUSE),--reuse-torch)

# the site of docs/, in site/; a warning, a dead link or a dead anchor fails. To search in it: python -m http.server -d site
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	$(BIN)/python -m pytest tests/test_docs_site.py

# extras
$(VENV)/.docs $(VENV)/.ray: $(VENV)/.%: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --editable '.[$*]'
	@touch $@

clean:
	rm -rf site $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
