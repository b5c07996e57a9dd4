# visrag: `make` lists the targets. Nothing here needs a GPU or a model hub.

PYTHON ?= python3
BIN := .venv/bin
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
export HF_HUB_OFFLINE := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore
export DEBIAN_FRONTEND := noninteractive

# What the tests need beside Python: the second renderer, the fonts of the samples, the broker, a health check's client, a browser,
# compilers and emulators for the kernel.
DEBIAN_PACKAGES := poppler-utils fonts-lato fonts-morisawa-bizud-gothic fonts-courier-prime redis-server wget chromium \
	qemu-user gcc gcc-aarch64-linux-gnu libc6-dev-arm64-cross

# What an installed visrag is made of, beside its Python, which is read where it lies.
SOURCES := pyproject.toml visrag/maxsim/kernel.c visrag/maxsim/module.c

# The optional parts that the tests need; commas in a variable, as make would part the arguments at them.
EXTRAS := queue,qdrant,s3,server

# Two processes of tests, each for whole modules, in the order of their names: many tests wait for servers and workers.
PARALLEL := --numprocesses 2 --dist loadfile --no-loadscope-reorder

# A question whose answer (118) stands in a table of a sample, and where.
QUESTION := How many passengers can stand in a Kestrel tram?
DOCUMENT := harrowmere-annual-report.pdf
PAGE := 6

# pip's output is long: a dot for each package; its complaints only if it fails. $(1): the environment, $(2): its arguments.
pip = { $(1)/bin/python -m pip install $(2) 2>$(1)/pip.log \
	| awk '/^Collecting/ { printf "."; fflush() } /^Installing collected/ { printf " installing"; fflush() } END { print "" }'; \
	} || { cat $(1)/pip.log >&2; exit 1; }

# Debian packages that are missing, installed if we may. $(1): their names.
define apt
	@command -v dpkg-query >/dev/null || { echo "Not a Debian: please see that you have $(1)" >&2; exit 0; }; \
	missing=""; \
	for package in $(1); do \
		[ "$$(dpkg-query -W -f='$${db:Status-Status}' $$package 2>/dev/null || true)" = installed ] || missing+=" $$package"; \
	done; \
	[ -n "$$missing" ] || exit 0; \
	echo "Debian packages:$$missing"; \
	if [ "$$(id -u)" = 0 ]; then root=""; elif sudo -n true 2>/dev/null; then root="sudo -n"; \
	else echo "Please run: sudo apt-get install$$missing" >&2; exit 1; fi; \
	$$root apt-get update -qq || true; \
	$$root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null \
		|| { echo "apt-get could not install$$missing: see above" >&2; exit 1; }
endef

# An environment with a pip that knows dependency groups. $(1): its folder.
define venv
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "visrag needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1 || true)." >&2; \
		echo "Name another one: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || $(MAKE) --no-print-directory python-venv
	@$(PYTHON) -m venv $(1)
	@$(1)/bin/python -m pip install -qq --upgrade 'pip>=25.1'
endef

.venv/installed: $(SOURCES)
	$(call venv,.venv)
	@printf 'Installing visrag and the packages it needs into .venv (some minutes the first time) '
	@$(call pip,.venv,-e .)
	@touch $@

.venv/installed-tests: .venv/installed
	@printf 'Installing the packages for tests into .venv '
	@$(call pip,.venv,-e '.[$(EXTRAS)]' --group test)
	@touch $@

.venv-colpali/installed: $(SOURCES)
	$(call venv,.venv-colpali)
	@printf 'Installing visrag with colpali-engine into .venv-colpali (some minutes the first time) '
	@$(call pip,.venv-colpali,-e '.[colpali]' torchvision==0.28.0 --group test)
	@touch $@

.PHONY: help demo test test-colpali sanitize chaos lint types format samples wheel clean debian python-venv

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/installed ## set up, ingest samples/, ask a question, highlight the answer
	@mkdir -p demo
	$(BIN)/visrag ingest samples/ --index demo/index
	$(BIN)/visrag search "$(QUESTION)" --index demo/index
	$(BIN)/visrag highlight "$(QUESTION)" --index demo/index --document $(DOCUMENT) --page $(PAGE) -o demo/highlight.png

test: debian .venv/installed-tests ## set up for tests and run all: lint, types, tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest $(PARALLEL)
	@$(MAKE) --no-print-directory test-colpali

test-colpali: .venv-colpali/installed ## the tests of colpali-engine's models, in an environment of their own
	.venv-colpali/bin/pytest tests/test_colpali.py

sanitize: debian .venv/installed-tests ## the kernel's tests with AddressSanitizer and UndefinedBehaviorSanitizer
	rm -rf build/sanitized && mkdir -p build/sanitized && cp -r visrag build/sanitized/ && rm -f build/sanitized/visrag/maxsim/*.so
	gcc -g -O1 -pthread -shared -fPIC -fsanitize=address,undefined -fno-sanitize-recover=all \
		-I"$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_paths()["include"])')" \
		visrag/maxsim/module.c -o build/sanitized/visrag/maxsim/_kernel.abi3.so
	ASAN_OPTIONS=detect_leaks=0 PYTHONPATH=build/sanitized \
		LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
		$(BIN)/python -P -c 'import sys, pytest, visrag.maxsim._kernel as kernel; \
			assert "build/sanitized" in kernel.__file__, kernel.__file__; sys.exit(pytest.main(["tests/test_maxsim.py"]))'

chaos: debian .venv/installed-tests ## kill, stop and starve workers, broker and store amid an ingest of the evaluation data
	$(BIN)/python benchmarks/chaos.py

lint: .venv/installed-tests ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/installed-tests ## mypy, strict
	$(BIN)/mypy

format: .venv/installed-tests ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

samples: debian .venv/installed-tests ## make the documents in samples/ again
	$(BIN)/python samples/make_samples.py

wheel: .venv/installed ## build a wheel into dist/
	$(BIN)/python -m pip wheel -q --no-deps -w dist .
	@ls dist/*.whl

clean: ## remove what was built; the environments (.venv*) stay
	rm -rf demo build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +

debian:
	$(call apt,$(DEBIAN_PACKAGES))

python-venv:
	$(call apt,python3-venv)
