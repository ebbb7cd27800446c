# `make help` lists what there is. Everything runs in .venv, which the first target that needs it creates.
PYTHON ?= python3
WORKERS ?= 2
BIN := .venv/bin
CHAPTERS := $(wildcard book/*.ipynb)
# One thread for each of the workers; a chapter's numbers do not depend on it.
PYTEST := TQDM_DISABLE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help demo test check lint format nbval book pages execute lab site-check pdf card slides clean

help:
	@echo "make demo    solve 200 problems with the shipped models: greedy, best-of-16, greedy search, a filter"
	@echo "make test    all tests, every chapter's output against a fresh run, and a build of the book"
	@echo "make check   the quick tests, the linter, the formatter's and the types' complaints"
	@echo "make format  bring all code into the one format"
	@echo "make book    build the book into _build/html"
	@echo "make pages   write the map, the whole package's pages and the front page's tables anew, from the code"
	@echo "make lab     open the book in JupyterLab, at its front page"
	@echo "make site-check  open every built page in Chromium: accessibility, links, formulas, console"
	@echo "make pdf     print the built book into _build/pdf/pfref.pdf"
	@echo "make slides  slides for a talk of an hour, into _build/slides/talk.html"
	@echo "make execute run the chapters and store what they print"
	@echo "make clean   remove what the other targets made, .venv included"
	@echo "The first of them installs everything into .venv, with $(PYTHON) (PYTHON=python3.12 picks another)."

# One command installs everything, so that one resolution holds it all together.
.venv/.installed: requirements.txt constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 11) <= v <= (3, 13) or sys.exit(f"pfref needs Python 3.11 to 3.13, and $(PYTHON) is {v[0]}.{v[1]}: run make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -r requirements.txt -c constraints.txt
	$(BIN)/python -m pip check
	@touch $@

demo: .venv/.installed
	$(BIN)/python -m pfref.demo

check: .venv/.installed lint
	$(PYTEST) -m "not slow" tests

lint: .venv/.installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

# What the linter can mend by itself, then the layout of every line.
format: .venv/.installed
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

test: .venv/.installed lint
	$(PYTEST) tests
	$(MAKE) nbval
	$(MAKE) book
	@if $(BROWSER); then $(MAKE) site-check; else echo "site-check is left out: it needs Chromium, Node, and npm ci --prefix site"; fi

# Every cell of every chapter is run again and must print what the page shows.
nbval: .venv/.installed
	$(if $(CHAPTERS),$(PYTEST) --nbval --nbval-current-env --nbval-cell-timeout=600 $(CHAPTERS),@echo "no chapters yet")

# --all: an unchanged page would keep its warnings to itself.
book: .venv/.installed
	$(BIN)/jupyter-book build . --all -W -n --keep-going

# What the code says about itself: book/map.md, book/source/ and the tables of book/index.md.
pages: .venv/.installed
	$(BIN)/python -m tests.package_map
	$(BIN)/python -m tests.source_pages
	$(BIN)/python -m tests.front_page

# After a change of the package: run the chapters and store what they print. CHAPTERS=book/05_resampling.ipynb for one.
execute: .venv/.installed
	TQDM_DISABLE=1 OMP_NUM_THREADS=1 $(BIN)/jupyter nbconvert --to notebook --execute --inplace --ExecutePreprocessor.record_timing=False $(CHAPTERS)
	$(BIN)/python -m tests.tidy_notebooks $(CHAPTERS)

lab: .venv/.installed
	install -D -m 644 .binder/overrides.json .venv/share/jupyter/lab/settings/overrides.json
	$(BIN)/jupyter lab --notebook-dir=. --LabApp.default_url=/lab/tree/book/index.md

# What follows needs Node and Chromium (CHROMIUM=path names another), and a built book.
BROWSER := node -e 'import("./site/browser.mjs").then((b) => process.exit(b.executable() ? 0 : 1), () => process.exit(1))' 2>/dev/null

site/node_modules: site/package-lock.json
	npm ci --prefix site --no-audit --no-fund
	@touch $@

site-check: site/node_modules
	node site/check.mjs _build/html

pdf: site/node_modules
	node site/pdf.mjs _build/html _build/pdf/pfref.pdf

card: .venv/.installed site/node_modules
	$(BIN)/python -m book.drawings.badges
	node site/card.mjs

slides: .venv/.installed
	$(BIN)/python -m book.slides _build/slides/talk.html

clean:
	rm -rf _build site/node_modules .venv build pfref.egg-info .pytest_cache .ruff_cache .mypy_cache
	find book pfref tests -name __pycache__ -prune -exec rm -rf {} +
