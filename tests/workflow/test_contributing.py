"""The example of CONTRIBUTING.md: its files, in a copied checkout, are a system that runs."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import ROOT, launch
from tests.workflow.conftest import planned, snakemake

pytestmark = pytest.mark.workflow

PAGE = (ROOT / "CONTRIBUTING.md").read_text()
CONFIG = {"systems": ["stars"], "stars": {"simulate": {"n_fields": 5, "block_size": 3}}}


def section(title: str) -> str:
    """Return a section of the page, to the next one."""
    return re.split(r"^## ", PAGE.partition(f"\n## {title}\n")[2], flags=re.MULTILINE)[0]


def write_files(title: str, checkout: Path) -> None:
    """Write the files of a section; a block whose header says so is appended to its file."""
    blocks = re.findall(r"^```python (\S+)( \(append\))?\n(.*?)^```$", section(title), re.M | re.S)
    assert blocks, title
    for name, append, content in blocks:
        path = checkout / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{path.read_text()}\n\n{content}" if append else content)


def run(checkout: Path, *words: object) -> str:
    """Run Python in a checkout, with its package, and return what it printed."""
    command = [sys.executable, *words]
    result = launch(command, cwd=checkout, PYTHONPATH=os.fspath(checkout / "scripts"))
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def write_config(checkout: Path) -> str:
    run(checkout, "-m", "skyproof", "config", "--write")
    return (checkout / "config.yaml").read_text()


def test_the_example_runs(checkout, tmp_path):
    folder, results = tmp_path / "run", tmp_path / "run/results/stars"
    write_files("Add a system", checkout)
    assert "n_fields: 8  # number of fields (>= 1)" in write_config(checkout)
    words = {"checkout": checkout, "config": CONFIG}
    made = snakemake(folder, "-c", "2", **words)
    assert made.returncode == 0, made.stdout + made.stderr
    counts = [len(np.load(path)) for path in sorted(results.glob("simulate/field-*.npy"))]
    assert len(counts) == 5
    run(checkout, "-m", "pytest", "-q", "tests/unit/stars", "-p", "no:cacheprovider")

    write_files("Add a stage", checkout)
    assert "min_fields: 2" in write_config(checkout)
    metrics = results / "evaluate/metrics.json"
    target = metrics.relative_to(folder)
    assert planned(snakemake(folder, "-n", target, **words)) == {"stars_evaluate": 1}
    made = snakemake(folder, "-c", "2", target, **words)
    assert made.returncode == 0, made.stdout + made.stderr
    assert json.loads(metrics.read_text())["mean"] == pytest.approx(np.mean(counts))

    write_files("Add a command", checkout)
    assert "stars.count" in run(checkout, "-m", "skyproof", "--help")
    printed = run(checkout, "-m", "skyproof", "stars.count", results / "simulate/field-00000.npy")
    assert printed == f"field-00000.npy {counts[0]}\n"

    for tool in (["check"], ["format", "--check"]):
        run(checkout, "-m", "ruff", *tool, "--config", ROOT / "pyproject.toml", "scripts", "tests")
    run(checkout, "-m", "mypy", "--config-file", ROOT / "pyproject.toml", "scripts/skyproof/stars")
