"""Every configuration in docs/configs plans, with files of the names that it mentions."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT
from tests.workflow.conftest import planned, snakemake

pytestmark = pytest.mark.workflow

CONFIGS = sorted((ROOT / "docs/configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_it_plans(path: Path, tmp_path):
    config = yaml.safe_load(path.read_text())
    (tmp_path / "bricks.txt").write_text("1211p060\n# a comment\n1213p060\n")
    (tmp_path / "exposures").mkdir()
    (tmp_path / "exposures/survey-ccds-1.fits.gz").touch()
    jobs = planned(snakemake(tmp_path, "-n", "--quiet", "rules", config=config))
    assert jobs["obiwan_train"] == 1
    assert jobs["obiwan_cutouts"] >= 1
    assert ("obiwan_ingest" in jobs) == (path.stem == "exposures")
    assert ("obiwan_simulate" in jobs) == (path.stem not in ("exposures", "release"))


def test_there_are_some():
    assert len(CONFIGS) >= 4
