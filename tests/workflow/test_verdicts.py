"""Verdicts of the default run: a planted difference is found, and none without a difference.

Two runs of the default options that differ in `clump_fraction` alone, on two thirds of the bricks.
"""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from skyproof.assess.twosample import Ranking
from tests.workflow.conftest import snakemake

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

FRACTIONS = (0.0, 0.5)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory) -> dict[float, Path]:
    """Folders of the results by clump fraction."""
    folders = {}
    for fraction in FRACTIONS:
        folder = tmp_path_factory.mktemp(f"clumps-{fraction}")
        config = {"obiwan": {"simulate": {"clump_fraction": fraction, "n_bricks": 16}}}
        result = snakemake(folder, "-c", "2", config=config)
        assert result.returncode == 0, result.stdout + result.stderr
        folders[fraction] = folder / "results/obiwan"
    return folders


@pytest.fixture(scope="module")
def metrics(evaluated) -> dict[float, dict]:
    return {
        fraction: json.loads((folder / "evaluate/metrics.json").read_text())
        for fraction, folder in evaluated.items()
    }


def test_o14_equal_classes_are_indistinguishable(metrics):
    null = metrics[0.0]
    assert null["verdict"] == "indistinguishable"
    assert null["auc"]["low"] < 0.5 < null["auc"]["high"]
    assert null["p_value"] > 0.01


def test_o15_planted_clumps_are_found(metrics):
    planted = metrics[0.5]
    assert planted["verdict"] == "appearance"
    assert planted["p_value"] < 0.01
    assert planted["accuracy"]["value"] > planted["baselines"]["majority_accuracy"] + 0.2


def test_the_area_is_that_of_planted_clumps(metrics):
    """Measured: 0.50 and 0.855 (of all 24 bricks 0.50 and 0.91)."""
    assert metrics[0.0]["auc"]["value"] < 0.6
    assert metrics[0.5]["auc"]["value"] > 0.8


def test_bright_galaxies_with_half_their_light_in_clumps(evaluated):
    """The area for g < 22 at clump_fraction 0.5, measured: 0.885 (of all 24 bricks 0.96)."""
    scores = pd.read_parquet(evaluated[0.5] / "infer/scores.parquet")
    bright = scores[scores["mag_g"] < 22]
    assert Ranking(bright["score"].to_numpy(), bright["label"].to_numpy()).auc() > 0.84


def test_accuracy_falls_with_magnitude(metrics):
    bins = metrics[0.5]["by_magnitude"]
    first, last = bins[0], bins[-1]
    assert first["accuracy"] > last["accuracy"]


@pytest.mark.parametrize("fraction", FRACTIONS)
def test_metadata_alone_do_not_separate_the_classes(metrics, fraction):
    """The classes differ only in appearance, not in magnitudes, colours, sizes and depth."""
    control = metrics[fraction]["metadata_auc"]
    assert abs(control["value"] - 0.5) < 0.08  # measured: 0.49
