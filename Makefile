# `make demo` and `make test` set up what they need. You only need Python 3.11, make and git.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
SHELL := bash
VENV := .venv
READY := $(VENV)/.ready
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.DEFAULT_GOAL := help
.PHONY: help setup link demo metrics test test-fast mutation check sync structure format lock bench bench-page bench-extract bench-read bench-train bench-head bench-predict bench-growth bench-cores bench-gpu gpu-check ablation ablation-recipe docs clean

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

setup: $(READY) link  ## create .venv with the locked packages and this project

# After an interruption, packages may lie half-copied in $(VENV), and pip takes them for installed: an empty one is begun then.
UNFINISHED := $(VENV)/.unfinished
PIP := $(VENV)/bin/python -m pip install --disable-pip-version-check
PIP_STEPS := '(Downloading|Using cached) [^ ]+ \([0-9]{2,}[0-9.]* MB\)|^Installing collected packages'
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=..."; exit 1; }
	@if [ -e $(UNFINISHED) ]; then echo "the last installation was interrupted: removing $(VENV)"; rm -rf $(VENV); fi
	@mkdir -p $(VENV) && touch $(UNFINISHED)
	@echo "1 of 3: creating the environment $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@echo "2 of 3: installing $$(grep -c == requirements.lock) packages, 8 GB on the disk: takes 2 to 10 minutes. The largest files:"
	@set -o pipefail; $(PIP) -r requirements.lock | { grep --line-buffered -oE $(PIP_STEPS) || true; }
	@echo "3 of 3: installing moclip"
	@$(PIP) --quiet --no-deps --no-build-isolation --editable .
	@$(MAKE) --no-print-directory link
	@rm $(UNFINISHED) && touch $@
	@echo "installed; to activate the environment: source $(VENV)/bin/activate"

# An editable installation alone loses to a folder `moclip` where Python is started: in the parent of a clone of that name.
link:
	@$(VENV)/bin/python -c 'import pathlib, sysconfig; pathlib.Path(sysconfig.get_path("purelib"), "moclip-src.pth").write_text("$(CURDIR)/src\n")'

demo: $(READY)  ## render the demo clips, run the whole pipeline on params.yaml, print the results
	dvc repro
	@$(MAKE) --no-print-directory metrics

metrics: $(READY)  ## print the accuracies of the last run
	@moclip metrics

test: $(READY)  ## run every test, on up to four processes
	python -m pytest -n auto --dist loadfile --no-loadscope-reorder

test-fast: $(READY)  ## run the tests that take seconds
	python -m pytest -m "not slow" -n auto --dist loadfile --no-loadscope-reorder

mutation: $(READY)  ## break the core in 200 places, and count the breaks that no test notices (1 h)
	python -m tests.mutation --slow

check: $(READY)  ## lint, formatting, types, generated files, known vulnerabilities of the locked packages
	ruff check .
	ruff format --check .
	mypy
	python -m pipeline.sync --check
	python -m tests.audit

sync: $(READY)  ## update files that follow from the code: lists in dvc.yaml, docs/parameters.md, new keys in params.yaml, templates
	python -m pipeline.sync

docs: $(READY)  ## build the documentation as a site, build/site/index.html
	NO_MKDOCS_2_WARNING=1 mkdocs build --strict
	@echo "open build/site/index.html; its search needs a server: python -m http.server -d build/site"

LINUX := sys_platform == 'linux' and platform_machine == 'x86_64'
lock:  ## resolve pyproject.toml into requirements.lock again
	$(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet --disable-pip-version-check ".[pipeline,app,openclip,onnx,ray,s3,docs,dev]" setuptools torch==2.14.1 torchvision==0.29.1
	( echo "# Exact versions of everything \`make setup\` installs (Python 3.11). \`make lock\` writes it."; \
	  build/lock/bin/python -m pip freeze --all --exclude pip --exclude moclip | \
	  sed -E "/^nvidia-ml-py/!s/^((nvidia-|cuda-|triton|motion-vector-extractor).*)/\1; $(LINUX)/" ) > requirements.lock
	rm -rf build/lock

structure: $(READY)  ## print the packages, what each imports, and the longest functions
	@python -m tests.structure

format: $(READY)  ## fix lint and formatting with ruff
	ruff check --fix .
	ruff format .

BENCH := build/bench
PEERS := $(BENCH)/.ready
$(PEERS): $(READY) pyproject.toml
	$(PYTHON) -m venv --clear $(BENCH)
	python -c 'import sysconfig; print("import site; site.addsitedir(%r)" % sysconfig.get_path("purelib"))' \
	  > $$($(BENCH)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/moclip.pth
	python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["bench"])' | \
	  xargs $(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps
	@touch $@

bench: $(PEERS)  ## measure all parts and other tools, write benchmarks/results.json and docs/performance.md (25 min)
	$(BENCH)/bin/python -m benchmarks.peers $(PART)

bench-page: $(READY)  ## write docs/performance.md from benchmarks/results.json, without measuring
	python -m benchmarks.peers --page

bench-extract: $(READY)  ## compare extraction with decoding loops (11 min; prints only)
	python -m benchmarks.extract

bench-read: $(READY)  ## compare reading the store with other formats (1 min; prints only)
	python -m benchmarks.read

bench-train: $(READY)  ## compare MV-TSN's input and epochs with decoding at each access (5 min; prints only)
	python -m benchmarks.train

bench-head: $(READY)  ## time an experiment on the head at UCF-101's size (4 min; prints only)
	python -m benchmarks.head

bench-predict: $(READY)  ## compare a prediction with zero-shot CLIP and X-CLIP (3 min; prints only)
	python -m benchmarks.predict

bench-growth: $(READY)  ## time the commands on 100 to 10,000 clips (8 min; prints only)
	python -m benchmarks.growth

bench-cores: $(READY)  ## predict and encode many clips on one core and on all of them (4 min; prints only)
	python -m benchmarks.cores

bench-gpu: $(READY)  ## measure training and encoding on the GPU, beside the bare networks (3 min; on the CPU if there is none)
	python -m benchmarks.gpu

gpu-check: $(READY)  ## run the demo on the GPU in every precision and compare it with the CPU (5 min; does nothing without a GPU)
	python -m tests.gpu_check

ABLATION ?= size
ablation: $(READY)  ## compare input sizes and stem strides on params.yaml's clips, every seed of dataset.seeds (long)
	moclip sweep tsn.size=64,96,128,224 tsn.stem_stride=2 --name $(ABLATION)
	moclip sweep tsn.size=32,64,96 tsn.stem_stride=1 --name $(ABLATION)

# FRAME_RATES= (empty) leaves out the variant that does nothing to clips of 30 frames a second
FRAME_RATES ?= --variant mv.per=second
EARLIER := tsn.backbone=resnet10t tsn.stack=1 tsn.moments=1 tsn.epochs=20 tsn.min_steps=0 tsn.optimiser=adam \
  tsn.eps=0.001 tsn.weight_decay=0.0001 tsn.schedule=steps tsn.lr_steps=[14,18] tsn.warmup=0 \
  tsn.label_smoothing=0 tsn.dropout=0.5 tsn.flip=true
ablation-recipe: $(READY)  ## compare preset `folder` with single changes of its recipe, every seed of dataset.seeds (long)
	moclip sweep fit.refit=false --name recipe --variant tsn.stack=1 --variant tsn.moments=1 --variant tsn.flip=true \
	  --variant tsn.stabilise=median --variant tsn.stabilise=affine --variant 'earlier recipe: $(EARLIER)' $(FRAME_RATES)

clean:  ## remove the environment; outputs of DVC stay
	rm -rf $(VENV)
