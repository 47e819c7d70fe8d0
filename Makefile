# make demo: from nothing to a report.  make check: while you work.  make test: the whole suite with whatever it needs.
# make help: all targets.
# PYTHON=… chooses the interpreter, VENV=… the environment's folder, PYTEST="-k resume" narrows the tests.

VENV ?= .venv
PROGRAMS_VENV ?= $(VENV)/programs
PYTEST ?=
# Twice as many as two cores: tests of servers and clusters mostly wait.
PYTEST_PROCESSES ?= 4
PACKAGING = setup.cfg setup.py pyproject.toml tools/install.sh
# An environment that is active or a pip setting of the user's must not lead installs elsewhere.
unexport PIP_TARGET PIP_PREFIX PIP_USER PYTHONHOME
# Without bytecode each of the thousands of processes of the tests would compile the project anew.
unexport PYTHONDONTWRITEBYTECODE
# Several processes on few cores: OpenMP threads only spin.
export OMP_NUM_THREADS = 1

.PHONY: help install demo demo-ssh demo-slurm demo-evidence check check-gpu test test-programs lint docs dist clean

help:
	@echo "make demo     install into $(VENV), make data, train three small groups, write the report"
	@echo "make demo-ssh, make demo-slurm   the same through an SSH server, on a Slurm of this machine's own (root)"
	@echo "make demo-evidence   a claim from its lock to its bundle: tuned, confirmed, on two texts (15 minutes)"
	@echo "make check    ruff, mypy and the quick tests: under a minute on two cores"
	@echo "make test     run the whole test suite (installs what it needs)"
	@echo "make test-programs   studies of programs that others wrote: transformers, Lightning, accelerate, Hydra, W&B (1 GB)"
	@echo "make check-gpu   the trainer on this machine's GPUs: right, and how fast (NANOGPT=… for a checkout to compare with)"
	@echo "make lint     ruff and mypy"
	@echo "make docs     build the documentation into build/docs"
	@echo "make dist     build sdist and wheel, try both in fresh environments (docs/release.md)"
	@echo "make install  install into $(VENV)"
	@echo "make clean    remove build artefacts and caches (never runs, data or $(VENV))"

install: $(VENV)/.installed

$(VENV)/.installed: $(PACKAGING)
	@tools/install.sh "$(VENV)"
	@touch $@

$(VENV)/.test-installed: $(PACKAGING)
	@tools/install.sh "$(VENV)" test
	@touch "$(VENV)/.installed" $@

# Runs that are done are left alone, so that it can be interrupted and run again.
demo: $(VENV)/.installed
	@"$(VENV)/bin/oelm" demo .

# The same study through an SSH server on loopback, and on a two-node Slurm with stand-in GPUs: as root.
demo-ssh demo-slurm: $(VENV)/.test-installed
	@tools/system-packages.sh
	@"$(VENV)/bin/python" tools/demo_remote.py $(@:demo-%=%) "$(VENV)"

# A claim from its lock to its bundle: two arms tuned, confirmed, carried on to a second text; under 15 minutes.
demo-evidence: $(VENV)/.installed
	@"$(VENV)/bin/python" tools/demo_evidence.py "$(VENV)"

# Tests use ports and folders of their own, so that they may run side by side; one file's tests stay together, and files
# begin in the order of tests/conftest.py, the longest first, not by their number of tests.
PYTEST_RUN = "$(VENV)/bin/python" -m pytest -q -n $(PYTEST_PROCESSES) --dist loadfile --no-loadscope-reorder

test:
	@tools/system-packages.sh
	@$(MAKE) --no-print-directory --silent $(VENV)/.test-installed
	@$(PYTEST_RUN) $(PYTEST) </dev/null

# What these tests train with is large, and has an environment of its own.
test-programs: $(PROGRAMS_VENV)/.test-installed
	@"$(PROGRAMS_VENV)/bin/python" -m pytest -q tests/programs $(PYTEST) </dev/null

$(PROGRAMS_VENV)/.test-installed: $(PACKAGING)
	@tools/install.sh "$(PROGRAMS_VENV)" test programs
	@touch $@

# The slowest tests are named at the end: what takes over a fifth of a second on a quiet machine gets the mark slow,
# but what guards the layout and the language is always run.
check: PYTEST_PROCESSES = 2
check: lint
	@$(PYTEST_RUN) -m "not slow" --durations 5 --durations-min 0.5 $(PYTEST) </dev/null

# A machine with a GPU, Python, PyTorch and NumPy is enough: nothing is installed or fetched.
check-gpu:
	@"$(or $(PYTHON),$(wildcard $(VENV)/bin/python),python3)" -m benchmarks.gpu $(if $(NANOGPT),--against "$(NANOGPT)")

lint: $(VENV)/.test-installed
	@"$(VENV)/bin/ruff" check .
	@"$(VENV)/bin/ruff" format --check --quiet .
	@"$(VENV)/bin/mypy"

docs: $(VENV)/.test-installed
	@"$(VENV)/bin/python" -m mkdocs build

dist: $(VENV)/.test-installed
	@tools/dist.sh "$(VENV)"

clean:
	@rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find oelm_jobs train analysis templates tests tools benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
