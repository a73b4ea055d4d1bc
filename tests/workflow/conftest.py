"""Runs of the whole workflow, each in a separate folder, shared by the tests of a session."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import yaml

from skyproof.core.options import systems
from skyproof.proof import manifest
from tests.conftest import ROOT, clean_environment, launch, made_once
from tests.processes import of_session

# The whole chain in half a minute on two cores.
TINY = {
    "obiwan": {
        "block_size": 2,
        "simulate": {
            "n_bricks": 4,
            "brick_pixels": 300,
            "n_real": 20,
            "n_fake": 20,
            "n_stars": 4,
            "mag_max": 22.5,
        },
        "split": {"rows_train": 16, "rows_test": 8},
        "train": {
            "n_epochs": 2,
            "batch": 8,
            "micro_batch": 2,
            "checkpoint_every": 2,
            "profile_steps": 1,
        },
        "evaluate": {"n_bootstrap": 50, "n_permutations": 50},
    }
}

# Two skies of some thousand pixels, ten networks each in groups of four.
TINY_SYSNET = {
    "sysnet": {
        "regions": {"north": {"contamination": "linear"}, "south": {"contamination": "none"}},
        "batch": 128,
        "structure": [3, 8],
        "group_size": 4,
        "mock": {"nside": 16},
        "split": {"nside_group": 4},
        "train": {"n_chains": 2, "n_epochs": 3, "checkpoint_every": 1},
        "baselines": {"n_trees": 5},
        "evaluate": {"n_mocks": 20},
    }
}


TINY_ALL = TINY | TINY_SYSNET


def snakemake(
    folder: Path,
    *words: str,
    checkout: Path = ROOT,
    config: dict | None = None,
    timeout: float = 900,
    **environment: str,
) -> subprocess.CompletedProcess[str]:
    """Run `snakemake WORDS` of a checkout in `folder` with a separate configuration."""
    mine = configured(folder, TINY if config is None else config)
    command = [sys.executable, "-m", "snakemake", "-s", checkout / "Snakefile"]
    command += ["--directory", folder, "--configfile", mine, *words]
    return launch(command, cwd=folder, timeout=timeout, **environment)


def configured(folder: Path, config: dict) -> Path:
    """Write the configuration of a run in `folder`, and return its path.

    Unless it sets `systems`, the systems with a section in the configuration run.
    """
    sections = [name for name in config if name in systems()]
    folder.mkdir(parents=True, exist_ok=True)
    mine = folder / "mine.yaml"
    mine.write_text(
        yaml.safe_dump(({"systems": sections} if sections else {}) | config, sort_keys=False)
    )
    return mine


@contextmanager
def started(
    folder: Path, *words: str, config: dict | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Start `snakemake WORDS` in a new session; at the end all its processes are killed.

    Jobs that outlive a killed Snakemake get time to end, as a user who restarts it must wait for
    them as well. The folder is not locked.
    """
    mine = configured(folder, TINY if config is None else config)
    command = [sys.executable, "-m", "snakemake", "-s", ROOT / "Snakefile", *words]
    command += ["--configfile", mine, "--retries", "0", "--nolock"]
    with open(folder / "output.txt", "ab") as output:
        run = subprocess.Popen(
            command, cwd=folder, env=clean_environment(), start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=output, stderr=output,
        )  # fmt: skip
    try:
        yield run
        limit = time.monotonic() + 120
        while (run.poll() is None or of_session(run.pid)) and time.monotonic() < limit:
            time.sleep(0.1)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGKILL)
        run.wait(30)


def planned(result: subprocess.CompletedProcess[str]) -> dict[str, int]:
    """Return the number of jobs per rule printed by a dry run (empty: nothing to do)."""
    assert result.returncode == 0, result.stdout + result.stderr
    table = re.findall(r"^(\w+) +(\d+)$", result.stdout + result.stderr, flags=re.MULTILINE)
    # Targets, and the rule that depends on all products.
    targets = ("total", "all", "obiwan", "sysnet", "sysnet_exports", "toy", "manifest")
    return {rule: int(count) for rule, count in table if rule not in targets}


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[None]:
    """Mount a memory file system of `size` bytes, or skip."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """The folder of a finished tiny run, on one core; tests must not change it."""
    return made_once(tmp_path_factory, "tiny", lambda folder: run(folder, "-c", "1"))


@pytest.fixture(scope="session")
def tiny_sysnet(tmp_path_factory) -> Path:
    """The folder of a finished tiny run of SYSNet, on one rank; tests must not change it."""
    one_rank = [f"sysnet_{rule}=1" for rule in ("mock", "train", "infer")]
    words = ("-c", "2", "--set-threads", *one_rank)
    return made_once(
        tmp_path_factory, "tiny-sysnet", lambda folder: run(folder, *words, config=TINY_SYSNET)
    )


@pytest.fixture(scope="session")
def tiny_all(tiny, tiny_sysnet, tmp_path_factory) -> Path:
    """The folder of both, with one manifest; tests must not change it."""

    def join(folder: Path) -> None:
        for each in (tiny, tiny_sysnet):
            shutil.copytree(each, folder, symlinks=True, dirs_exist_ok=True)
        run(folder, "-c", "1", config=TINY_ALL)

    return made_once(tmp_path_factory, "tiny-all", join)


def run(folder: Path, *words: str, config: dict | None = None) -> None:
    """Run `snakemake WORDS` in a folder and check that it succeeds."""
    result = snakemake(folder, *words, config=config)
    assert result.returncode == 0, result.stdout + result.stderr


def products(folder: Path) -> dict[str, bytes]:
    """Return the products of a run, without logs, checkpoints, traces and provenance."""
    results = folder / "results"
    logs = {"ckpts", "logs", "prof", ".journal", "provenance.json"}
    return {
        path.relative_to(results).as_posix(): path.read_bytes()
        for path in sorted(results.rglob("*"))
        if path.is_file() and not logs & set(path.parts) and path.suffix != ".zip"
    }


def without(finished: Path, folder: Path, *stages: str) -> Path:
    """Copy a finished run of Obiwan, without the products of some stages and the manifest."""
    shutil.copytree(finished, folder)
    for name in stages:
        shutil.rmtree(folder / "results/obiwan" / name)
    for name in ("manifest.json", "root.txt", "manifest-sha256.txt", "provenance.json"):
        (folder / "results" / name).unlink()
    return folder


def root_of(folder: Path) -> str:
    """Return the root of a run's manifest."""
    return manifest.read(folder / "results").root


def copy_checkout(copy: Path) -> Path:
    """Copy the files of the checkout that runs need, except images, and return the copy."""
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info", "*.sif")
    for name in ("scripts", "rules", "envs", "profiles", "containers"):
        shutil.copytree(ROOT / name, copy / name, ignore=ignore)
    for name in ("Snakefile", "config.yaml"):
        shutil.copy(ROOT / name, copy / name)
    return copy


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A copy of the checkout that a test may edit."""
    return copy_checkout(tmp_path / "checkout")


@pytest.fixture
def edit() -> Callable[[Path], None]:
    """Append a line to a source file."""

    def append(path: Path) -> None:
        path.write_text(path.read_text() + "\n# a changed line\n")

    return append
