"""`--sdm conda` end to end, with a replacement of conda and a local channel.

The channel holds empty packages of the locks' names and versions, and a python that is the
test's own. So environment files are read, solved and activated as Snakemake does it; that
conda-forge has such packages, or that they give the same bytes, is not shown.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import shlex
import shutil
import sys
import tarfile
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT, launch
from tests.workflow.conftest import TINY_SYSNET, root_of, snakemake, without

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

FAMILIES = ("analyse", "generate", "train")


def locked_versions() -> dict[str, str]:
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for name in ("all", "torch"):
        for line in (ROOT / f"envs/{name}.lock.txt").read_text().splitlines():
            package, pinned, rest = line.partition("==")
            if pinned and line[0] not in " #":
                found[package] = rest.split()[0]
    return found | {"pytorch": found["torch"]}


def write_package(folder: Path, name: str, version: str, files: dict[str, str]) -> dict:
    """Write a package of these files (path: content) and return its line for the index."""
    about = {
        "name": name, "version": version, "build": "0", "build_number": 0, "depends": [],
        "subdir": folder.name, "arch": "x86_64", "platform": "linux",
    }  # fmt: skip
    paths = [
        {
            "_path": path, "path_type": "hardlink", "size_in_bytes": len(text),
            "sha256": hashlib.sha256(text.encode()).hexdigest(),
        }
        for path, text in files.items()
    ]  # fmt: skip
    content = files | {
        "info/index.json": json.dumps(about),
        "info/paths.json": json.dumps({"paths": paths, "paths_version": 1}),
        "info/files": "".join(f"{path}\n" for path in files),
    }
    archive = folder / f"{name}-{version}-0.tar.bz2"
    with tarfile.open(archive, "w:bz2") as tar:
        for path, text in content.items():
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(text), 0o755
            tar.addfile(entry, io.BytesIO(text.encode()))
    data = archive.read_bytes()
    digests = {name: hashlib.new(name, data).hexdigest() for name in ("md5", "sha256")}
    return about | digests | {"size": len(data)}


@pytest.fixture
def conda(tmp_path, monkeypatch) -> Path:
    """A `conda` first on PATH and its channel; gives the log to which python adds its prefix."""
    log = tmp_path / "log"
    python = f'#!/bin/sh\necho "$CONDA_PREFIX" >>{shlex.quote(str(log))}\n'
    python += f'exec {shlex.quote(sys.executable)} "$@"\n'
    channel = tmp_path / "channels/conda-forge"
    index: dict[str, dict] = {}
    for subdir in ("linux-64", "noarch"):
        (channel / subdir).mkdir(parents=True)
    names = {
        line.split()[0]
        for family in FAMILIES
        for line in yaml.safe_load((ROOT / f"envs/{family}.yaml").read_text())["dependencies"]
    }
    for name in names:
        files = {"bin/python": python} if name == "python" else {f"share/{name}": name}
        version = locked_versions()[name]
        about = write_package(channel / "linux-64", name, version, files)
        index[f"{name}-{version}-0.tar.bz2"] = about
    for subdir, packages in (("linux-64", index), ("noarch", {})):
        repodata = {"info": {"subdir": subdir}, "packages": packages, "packages.conda": {}}
        (channel / subdir / "repodata.json").write_text(json.dumps(repodata))
    home = tmp_path / "conda"
    (home / "bin").mkdir(parents=True)
    (home / "bin/activate").write_text('export CONDA_PREFIX="$1" PATH="$1/bin:$PATH"\n')
    standin = [sys.executable, str(ROOT / "tests/workflow/conda_standin.py"), str(home)]
    (home / "bin/conda").write_text(f'#!/bin/sh\nexec {shlex.join(standin)} "$@"\n')
    (home / "bin/conda").chmod(0o755)
    monkeypatch.setenv("PATH", f"{home / 'bin'}:{Path('/usr/bin')}:/bin")
    monkeypatch.setenv("SKYPROOF_TEST_CHANNELS", str(tmp_path / "channels"))
    return log


def test_rules_of_obiwan(conda, tiny, tmp_path):
    """From the split on, on two cores: MPI ranks, and rules of each environment."""
    stages = ("split", "train", "infer", "evaluate")
    folder = without(tiny, tmp_path / "run", *stages)
    rules = (*(f"obiwan_{stage}" for stage in stages), "manifest", "obiwan", "all")
    words = ("-c", "2", "--sdm", "conda", "--allowed-rules", *rules, "--", "all")
    result = snakemake(folder, *words)
    assert result.returncode == 0, result.stdout + result.stderr
    assert root_of(folder) == root_of(tiny)
    prefixes = {Path(line) for line in conda.read_text().split()}
    held = {frozenset(path.name for path in (prefix / "share").iterdir()) for prefix in prefixes}
    assert len(held) == len(FAMILIES)
    for family in FAMILIES:
        lines = yaml.safe_load((ROOT / f"envs/{family}.yaml").read_text())["dependencies"]
        assert frozenset(line.split()[0] for line in lines) - {"python"} in held, family


def test_rules_of_sysnet(conda, tiny_sysnet, tmp_path):
    """One rule of each environment is run again in a finished run."""
    folder = tmp_path / "run"
    shutil.copytree(tiny_sysnet, folder)
    made = ("split/folds.fits", "select/selection.json", "tune/tuning.json")
    targets = [f"results/sysnet/south/{name}" for name in made]
    for name in targets:
        (folder / name).unlink()
    words = ("-c", "1", "--sdm", "conda", "--allowed-rules")
    rules = ("sysnet_split", "sysnet_select", "sysnet_tune")
    result = snakemake(folder, *words, *rules, "--", *targets, config=TINY_SYSNET)
    assert result.returncode == 0, result.stdout + result.stderr
    for name in targets:
        assert (folder / name).read_bytes() == (tiny_sysnet / name).read_bytes()
    assert len({Path(line) for line in conda.read_text().split()}) == len(FAMILIES)


def test_lock_conda_pins_what_was_solved(conda, checkout):
    """The steps of a solver with the local channel; conda-forge may give other versions."""
    result = launch([checkout / "scripts/lock_conda"], cwd=checkout)
    assert result.returncode == 0, result.stderr
    for family in FAMILIES:
        asked = yaml.safe_load((checkout / f"envs/{family}.yaml").read_text())["dependencies"]
        lines = (checkout / f"envs/{family}.linux-64.pin.txt").read_text().splitlines()
        assert lines[0] == "@EXPLICIT"
        pinned = dict(re.search(r"/([^/]+)-([^-]+)-0\.tar\.bz2#[0-9a-f]{32}$", line).groups()
                      for line in lines[1:])  # fmt: skip
        assert pinned == {line.split()[0]: locked_versions()[line.split()[0]] for line in asked}


def test_lock_conda_reports_what_was_not_solved(conda, checkout):
    path = checkout / "envs/analyse.yaml"
    path.write_text(path.read_text().replace("numpy >=2.3,<3", "numpy >=99,<100"))
    result = launch([checkout / "scripts/lock_conda", "analyse"], cwd=checkout)
    assert result.returncode == 4
    assert "analyse was not solved" in result.stderr
    assert not list((checkout / "envs").glob("*.pin.txt"))


def test_bounds_that_cannot_be_satisfied(conda, checkout, tmp_path):
    path = checkout / "envs/analyse.yaml"
    path.write_text(path.read_text().replace("numpy >=2.3,<3", "numpy >=99,<100"))
    result = snakemake(tmp_path / "run", "-c", "1", "--sdm", "conda", checkout=checkout)
    assert result.returncode == 1
    assert "numpy >=99,<100" in result.stdout + result.stderr
    assert not (tmp_path / "run/results").exists()
