# Everything runs with the programs of .venv (python, mpiexec, snakemake), never with the system's.
# SHELL is set because make looks up a simple command on its own PATH and not on this one otherwise.
SHELL := bash
export PATH := $(CURDIR)/.venv/bin:$(PATH)
# Containers often set this; each start of Snakemake or torch then compiles its modules again (3-6 s).
unexport PYTHONDONTWRITEBYTECODE

TOOLS := envs/all.lock.txt envs/test.lock.txt
# Those for CPUs, and with TORCH=cuda the one for GPUs.
IMAGES := $(if $(filter cuda,$(TORCH)),$(basename $(notdir $(wildcard containers/*.def))))
# Processes that run tests.
WORKERS := 2
REPORT := results/report.zip
# What the report shows, or is made from.
SHOWN := $(wildcard results rules Snakefile config.yaml)

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14
	@echo "Settings: TORCH=cuda (CUDA build of torch), PYTHON=python3.12 (another interpreter)"

run: venv  ## run the default config.yaml and make its report
	@snakemake all
	@if [ -e $(REPORT) ] && [ -z "$$(find $(SHOWN) -type f -newer $(REPORT) -print -quit)" ]; \
	then echo "The report is up to date."; \
	else snakemake --report .snakemake/report.zip && mv .snakemake/report.zip $(REPORT); fi
	@python -m skyproof summary results
	@python -m skyproof verify results

test: tools  ## run the tests; T='tests/unit -k seeds' chooses some
	python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(T)

golden: tools  ## write the checksums of tests/golden anew; commit them with what changed them
	SKYPROOF_REFRESH_GOLDEN=1 python -m pytest -q tests/workflow/test_golden.py

bench: tools  ## measure the figures of benchmarks/
	python -m benchmarks $(B)

lint: tools  ## ruff, snakefmt, mypy, snakemake --lint
	ruff check .
	ruff format --check .
	snakefmt --check Snakefile rules
	mypy
	snakemake --lint

format: tools  ## rewrite the code in the project's format
	ruff check --fix .
	ruff format .
	snakefmt Snakefile rules

locks: tools  ## compile envs/*.lock.txt anew; UPGRADE=--upgrade for newer versions
	envs/lock $(UPGRADE)

images: venv  ## build the container images; RECORD=1 accepts what came out
	@python -m skyproof images build $(IMAGES) $(if $(RECORD),--record)

images-verify: venv  ## are they those of containers/images.yaml, and do they start here?
	@python -m skyproof images verify $(IMAGES) $(if $(PUBLIC_KEY),--public-key $(PUBLIC_KEY))

cluster:  ## start a small SLURM on this machine, as root; FOLDER=.cluster, ACCOUNTS=1, CGROUPS=1
	@scripts/cluster start $(FOLDER)

cluster-stop:  ## end it
	@scripts/cluster stop $(FOLDER)

clean:  ## remove .venv and caches; results and logs stay
	rm -rf .venv .venv.lock .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +

venv:
	@scripts/make_venv .venv

tools:
	@scripts/make_venv .venv $(TOOLS)

.PHONY: help run test golden bench lint format locks images images-verify cluster cluster-stop clean venv tools
