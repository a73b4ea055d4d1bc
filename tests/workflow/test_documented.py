"""Every configuration in docs/configs plans, with files of the names that it mentions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT
from tests.workflow.conftest import planned, snakemake

pytestmark = pytest.mark.workflow

CONFIGS: dict[str, list[Path]] = {"obiwan": [], "sysnet": []}
for _path in sorted((ROOT / "docs/configs").glob("*.yaml")):
    CONFIGS[next(name for name in CONFIGS if name in yaml.safe_load(_path.read_text()))] += [_path]


def files_of(value: object) -> Iterator[str]:
    """Yield the names of files that a configuration mentions."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from files_of(part)
    elif isinstance(value, str) and value.endswith((".fits", ".npy", ".dat", ".fits.gz")):
        yield value


def plan(path: Path, folder: Path) -> dict[str, int]:
    config = yaml.safe_load(path.read_text())
    for name in files_of(config):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    (folder / "bricks.txt").write_text("1211p060\n# a comment\n1213p060\n")
    (folder / "exposures").mkdir(exist_ok=True)
    return planned(snakemake(folder, "-n", "--quiet", "rules", config=config))


@pytest.mark.parametrize("path", CONFIGS["obiwan"], ids=lambda path: path.stem)
def test_obiwan_plans(path: Path, tmp_path):
    jobs = plan(path, tmp_path)
    assert jobs["obiwan_train"] == 1
    assert jobs["obiwan_cutouts"] >= 1
    assert ("obiwan_ingest" in jobs) == (path.stem == "exposures")
    assert ("obiwan_simulate" in jobs) == (path.stem not in ("exposures", "release"))


@pytest.mark.parametrize("path", CONFIGS["sysnet"], ids=lambda path: path.stem)
def test_sysnet_plans(path: Path, tmp_path):
    jobs = plan(path, tmp_path)
    n_regions = 3 if path.stem == "sysnet_regions" else 1
    assert jobs["sysnet_evaluate"] == jobs["sysnet_tune"] == n_regions
    assert jobs["sysnet_summarise"] == 1
    assert jobs.get("sysnet_mock", 0) == (path.stem == "sysnet_regions")
    assert jobs["sysnet_tabulate"] == n_regions - jobs.get("sysnet_mock", 0)
    # 100 networks of a region are four groups of 25, each a job.
    assert jobs["sysnet_train"] == (3 if path.stem == "sysnet_regions" else 4)
    assert ("sysnet_export" in jobs) == (path.stem == "sysnet_table")


def test_there_are_some():
    assert len(CONFIGS["obiwan"]) >= 4
    assert len(CONFIGS["sysnet"]) >= 3
