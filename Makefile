# make demo    the main job: define, branch, train (installs first, once)
# make test    the whole test suite
# make quick   the core's tests: no sandbox, environment, model, property or slow test
# make fuzz    the property tests with a fresh seed, for FUZZ_SECONDS at most; prints the seed
# make redteam  tries to be paid without repairing, and to escape sandboxes, at random, for REDTEAM_SECONDS
# make study   the study, into benchmarks/study/results and docs/study.md: hours; resumable, JOBS at a time, one core each
# make study-quick  the same in tiny settings, in a minute: its numbers mean nothing
# make check   lint, format, types, layers, import budget, docs
# make docs    the site, into build/site; a warning is an error (read it by python -m http.server -d build/site)
# make wheel   builds sdist and wheel, and tests the wheel in an empty environment, from another folder
#
# An active virtual environment is used as it is; otherwise .venv is made. PYTHON chooses the interpreter, EXTRA what is
# installed, TESTS which tests run, PYTEST further options.

PYTHON ?= python3
VENV := $(or $(VIRTUAL_ENV),$(CURDIR)/.venv)
PY := $(VENV)/bin/python
STAMP := $(VENV)/.agentenv-installed
EXTRA ?= dev
TESTS ?= tests
PYTEST ?=
FUZZ_SECONDS ?= 180
REDTEAM_SECONDS ?= 300
JOBS ?= 1

# How many tests run at a time: most wait for sandboxes most of the time. Each worker may hold a model: 1.5 GB.
WORKERS ?= 2

# Idle OpenMP threads sleep instead of spinning: on a busy machine that is many times faster.
export OMP_WAIT_POLICY ?= PASSIVE
export PYTHONSAFEPATH := 1
export HF_HUB_DISABLE_TELEMETRY := 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: demo test quick fuzz redteam study study-quick check lint types layers budget docs wheel install clean

demo: $(STAMP)
	$(VENV)/bin/agentenv demo

test: $(STAMP)
	$(PY) -m pytest -n $(WORKERS) --dist worksteal $(PYTEST) $(TESTS)

quick: $(STAMP)
	$(PY) -m pytest -q -n $(WORKERS) --dist worksteal --without-models \
	  -m "not slow and not docker and not sandbox and not environment and not hypothesis" $(PYTEST) $(TESTS)

fuzz: $(STAMP)
	$(PY) .ci/fuzz.py --seconds $(FUZZ_SECONDS) --workers $(WORKERS)

redteam: $(STAMP)
	PYTHONPATH=$(CURDIR)/tests $(PY) -m redteam --seconds $(REDTEAM_SECONDS)

study: $(STAMP)
	PYTHONPATH=$(CURDIR) $(PY) -m benchmarks.study all report --jobs $(JOBS)

study-quick: $(STAMP)
	PYTHONPATH=$(CURDIR) $(PY) -m benchmarks.study all --quick --jobs $(JOBS) --folder build/study --docs build/study

check: lint types layers budget docs

lint: $(STAMP)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

types: $(STAMP)
	$(PY) .ci/check_types.py

layers: $(STAMP)
	$(VENV)/bin/lint-imports

budget: $(STAMP)
	$(PY) benchmarks/import_time.py --budget 0.3

docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 PYTHONPATH=$(CURDIR) $(PY) -m mkdocs build -q

wheel: $(STAMP)
	$(PY) .ci/check_wheel.py

install: $(STAMP)
	@test "$(VIRTUAL_ENV)" = "$(VENV)" || printf '%s\n' "Installed in $(VENV). So that this shell finds agentenv:" "  source $(VENV)/bin/activate"

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is %s: make PYTHON=python3.11" % sys.version.split()[0])'
	@test -x $(PY) || $(PYTHON) -m venv $(VENV) || { echo "No venv module: apt-get install python3-venv"; exit 1; }
	@$(PY) -m pip --version >/dev/null 2>&1 || $(PY) -m ensurepip >/dev/null   # environments of uv have no pip
	$(PY) -m pip install --disable-pip-version-check -q -c constraints.txt -e '.[$(EXTRA)]'
	@touch $@

clean:
	rm -rf .venv build dist .pytest_cache .ruff_cache .hypothesis .coverage
