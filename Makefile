# Each target does all of its set-up on a Debian machine with Python >= 3.11 and the package registries.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
STAMP := .venv/.installed
XVFB := xvfb-run -a -s "-screen 0 1400x900x24"
# a real window system on a virtual screen: with `offscreen` napari's canvas stays black
GUI_ENV := QT_QPA_PLATFORM=xcb LIBGL_ALWAYS_SOFTWARE=1 QT_API=pyqt6

# what Qt's xcb platform, Mesa's software GL and the tests themselves load
SYSTEM := python3-venv python3-dev gcc xvfb xauth xdotool libegl1 libgl1 libgl1-mesa-dri libglib2.0-0 libfontconfig1 \
	libdbus-1-3 libxkbcommon-x11-0 libx11-xcb1 libxcb-cursor0 libxcb-icccm4 libxcb-image0 libxcb-keysyms1 \
	libxcb-randr0 libxcb-render-util0 libxcb-shape0 libxcb-xkb1

.PHONY: help system install lint types contracts test test-all bench look demo docs build clean

help:  ## Show what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

system:  ## Install the Debian packages that are missing (asks sudo if you are not root)
	@missing=$$({ dpkg-query -W -f '$${Package} $${db:Status-Status}\n' $(SYSTEM) 2>/dev/null || true; } \
		| awk '$$2=="installed"{print $$1}' | sort | comm -13 - <(printf '%s\n' $(SYSTEM) | sort)); \
	if [ -n "$$missing" ]; then \
		sudo=; [ "$$(id -u)" = 0 ] || sudo=sudo; \
		$$sudo apt-get update -qq; \
		DEBIAN_FRONTEND=noninteractive $$sudo apt-get install -y -qq --no-install-recommends $$missing; \
	fi

$(STAMP): pyproject.toml constraints.txt | system
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --upgrade "pip>=25.1"
	$(BIN)/python -m pip install -q --no-compile -c constraints.txt -e ".[napari,cluster]" --group dev
	$(BIN)/python -W ignore -m compileall -qq -j 0 .venv/lib || true  # on all cores; packages may hold files of other Pythons
	touch $@

install: $(STAMP)  ## Set up .venv with the package (editable) and everything for development

lint: $(STAMP)  ## Style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)  ## mypy, strict
	$(BIN)/mypy

contracts: $(STAMP)  ## Directions of import
	$(BIN)/lint-imports

# types and contracts are one process each, so they run beside the tests; their output follows the tests'
CHECKS := .venv/checks.log
define run-tests
{ $(BIN)/mypy && $(BIN)/lint-imports; } >$(CHECKS) 2>&1 & checks=$$!; \
failed=; $(GUI_ENV) $(XVFB) $(BIN)/pytest -n 2 $(1) || failed+=" tests"; \
wait $$checks || failed+=" types-or-contracts"; \
cat $(CHECKS); \
[ -z "$$failed" ] || { echo "FAILED:$$failed" >&2; exit 1; }
endef

test: system lint  ## Everything that CI runs, under ten minutes
	@$(call run-tests)

test-all: system lint  ## The slow tests too
	@$(call run-tests,-m "not gpu and not benchmark")

bench: $(STAMP)  ## Speed and accuracy against the peers, installed only here
	$(BIN)/python -m pip install -q -c constraints.txt --group bench
	test -x .venv-picasso/bin/python || { $(PYTHON) -m venv .venv-picasso && .venv-picasso/bin/pip install -q picassosr; } \
		|| { rm -rf .venv-picasso; echo "picasso cannot be installed here: its rows are left out"; }
	$(BIN)/pytest -m benchmark -s tests/benchmarks/*bench_*.py

look: system $(STAMP)  ## Start the real program on a virtual screen, drive it and write look/*.png
	$(GUI_ENV) $(XVFB) $(BIN)/python scripts/look.py

demo: system $(STAMP)  ## The main job on sample data: in napari with a display, else headless into demo/
	$(BIN)/stackalign demo -o demo

docs: $(STAMP)  ## The documentation site into site/
	$(BIN)/python -m pip install -q --group docs
	$(BIN)/mkdocs build

build: $(STAMP)  ## Wheel and sdist into dist/
	$(BIN)/python -m build --no-isolation

clean:  ## Remove what these targets made
	rm -rf .venv .venv-picasso build dist demo look .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
