# Two commands to begin with: `make demo` shows it, `make test` proves it. Each is enough alone on a machine with Python 3.11, pip and make.
# PIP_ARGS goes to pip as it stands, such as PIP_ARGS="--index-url …" for another build of torch.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_ARGS ?=
# Tests run in so many processes, each of one thread.
JOBS ?= 2
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(JOBS) --dist worksteal
PLUGIN := obsidian-plugin
PACKAGES := $(PLUGIN) $(PLUGIN)/in-app

.PHONY: demo test test-plugin test-long plugin check bench model clean
.DEFAULT_GOAL := demo

# A torch that is in .venv already stays, whatever its build; the pins hold for everything else.
$(BIN)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -c 'import sys; sys.exit("vaultlab needs Python 3.11 or newer; try: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	if $(BIN)/python -m pip show --quiet torch 2>/dev/null; then grep -v '^torch==' constraints.txt > $(VENV)/constraints.txt; \
	else cp constraints.txt $(VENV)/constraints.txt; fi
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c $(VENV)/constraints.txt -e '.[dev]'
	touch $@

model: $(BIN)/.installed
	$(BIN)/vaultlab models pull smollm2-135m

# A demo-vault that is there already keeps what you changed in it. A claim that does not hold (exit code 1) is an answer too.
# The notes named here are computed on this machine; those that take minutes come with the results they were published with.
DEMO := Home Superposition 'Attention heads' 'Logit lens' 'Key-value memories' 'Mechanistic interpretability'
demo: model
	@begun=$$(date +%s); \
	if [ -d demo-vault ]; then echo "demo-vault is there already: rendering what is new or changed in it."; \
	else mkdir demo-vault && tar -C sample-vault --exclude=./.readme -cf - . | tar -C demo-vault -xf -; \
	for note in $(DEMO); do $(BIN)/vaultlab render demo-vault --force --note "$$note.md" || [ $$? -eq 1 ] || exit 1; done; fi; \
	$(BIN)/vaultlab render demo-vault || [ $$? -eq 1 ] || exit 1; \
	[ ! -f $(PLUGIN)/dist/main.js ] || $(BIN)/vaultlab plugin install demo-vault || exit 1; \
	line=$$(grep -nm1 '^sparsity: 95%' demo-vault/Superposition.md | cut -d: -f1); \
	echo; \
	echo "Done in $$(( $$(date +%s) - begun )) s. Open the folder demo-vault in Obsidian, or read demo-vault/Home.md."; \
	echo "Next: in demo-vault/Superposition.md, line $$line, write \"sparsity: 0\" and run: $(BIN)/vaultlab render demo-vault"

test: $(BIN)/.installed
	$(PYTEST) -m "not long and not model"

# The plugin, built: the same sources give the same bytes.
plugin: $(PLUGIN)/node_modules/.installed
	npm --prefix $(PLUGIN) run --silent build

# In pages of Debian's Chromium too, or of the browser that VAULTLAB_CHROMIUM names; what they look like is left in shots/.
test-plugin: plugin $(PLUGIN)/in-app/node_modules/.installed $(BIN)/.installed
	@test -n "$$VAULTLAB_CHROMIUM" || command -v chromium >/dev/null \
	|| { apt-get update -q && apt-get install -qy --no-install-recommends chromium fonts-dejavu-core; } \
	|| { echo "Install Chromium, or let VAULTLAB_CHROMIUM name it."; exit 1; }
	npm --prefix $(PLUGIN) run --silent types
	npm --prefix $(PLUGIN)/in-app run --silent types
	npm --prefix $(PLUGIN) run --silent lint
	npm --prefix $(PLUGIN) run --silent test

$(PACKAGES:%=%/node_modules/.installed): %/node_modules/.installed: %/package.json %/package-lock.json
	@command -v npm >/dev/null || { echo "The plugin is built with Node.js 20 or newer; install nodejs and npm."; exit 1; }
	npm --prefix $* ci --ignore-scripts --no-progress
	touch $@

test-long: model
	$(PYTEST) -m "long or model"

# Numbers that moved are written only for an experiment whose version was raised.
golden: model
	VAULTLAB_WRITE_GOLDEN=1 $(BIN)/python -m pytest -q tests/experiments/test_every.py -k numbers_are_those

check: $(BIN)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: model
	$(BIN)/python -m tests.bench

clean:
	rm -rf $(VENV) demo-vault build dist $(PLUGIN)/node_modules $(PLUGIN)/in-app/node_modules $(PLUGIN)/dist $(PLUGIN)/shots .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
