"""Real DECam exposures from images to scores, end to end.

The field is 200 x 200 pixels, so the sample is a handful of real stamps: the test is that the chain
stands on real input, that the brick is sound, and that the verdict says how little it can say.
"""

from __future__ import annotations

import json
from pathlib import Path

import fitsio
import numpy as np
import pandas as pd
import pytest

from tests.conftest import skyproof
from tests.workflow.conftest import snakemake

pytestmark = [pytest.mark.workflow, pytest.mark.real]


@pytest.fixture(scope="module")
def brick(real_data, tmp_path_factory) -> Path:
    """The folder of a finished run on the exposures, three realisations."""
    source = real_data / "obiwan/testcase_decals_grz"
    exposures = {
        "ccds": str(source / "survey-ccds-1.fits.gz"),
        "images": str(source / "images"),
        "calib": str(source / "calib"),
    }
    config = {
        "obiwan": {
            "source": "ingest",
            "patch_pixels": 70,
            "exposures": exposures,
            "ingest": {"n_realizations": 3},
            # The cuts leave one real galaxy of this field.
            "cutouts": {"cut": "none"},
            "train": {"n_epochs": 2, "batch": 4},
        }
    }
    folder = tmp_path_factory.mktemp("exposures")
    result = snakemake(folder, "-c", "2", config=config)
    assert result.returncode == 0, result.stdout + result.stderr
    return folder / "results/obiwan"


def planes(brick: Path, kind: str) -> dict[str, np.ndarray]:
    found = sorted((brick / "ingest/coadd").rglob(f"rs0/legacysurvey-*-{kind}-*.fits.fz"))
    return {path.name.split("-")[-1][0]: fitsio.read(path, ext=1) for path in found}


def test_sky_is_zero_and_noise_is_what_the_weights_say(brick):
    """Measured: median of chi 0.08 to 0.13, spread 0.92 to 0.96 (resampling correlates pixels)."""
    images, weights = planes(brick, "image"), planes(brick, "invvar")
    assert set(images) == set("grz")
    for band, image in images.items():
        good = weights[band] > 0
        assert good.mean() > 0.9
        chi = (image * np.sqrt(weights[band]))[good]
        spread = 1.4826 * np.median(np.abs(chi - np.median(chi)))
        assert abs(np.median(chi)) < 0.2
        assert 0.8 < spread < 1.1


def test_real_and_injected_sources_are_cut_from_the_same_images(brick):
    items = json.loads((brick / "cutouts/block-00000.json").read_text())["items"]
    info = next(iter(items.values()))["info"]
    assert info["n_real"] >= 3
    assert info["n_fake"] >= 10


def test_the_verdict_claims_nothing_from_so_few(brick):
    metrics = json.loads((brick / "evaluate/metrics.json").read_text())
    assert metrics["verdict"] == "indistinguishable"
    assert "Caution" in (brick / "evaluate/verdict.md").read_text()


def test_every_stamp_can_be_scored(brick, tmp_path):
    """Scores for any folder of stamps: here all stamps of the field, also edge stamps."""
    result = skyproof(
        "obiwan.infer",
        *("--in", f"model={brick}/train/model.safetensors", f"stamps={brick}/cutouts"),
        *("--out", f"scores={tmp_path}/scores.parquet"),
    )
    assert result.returncode == 0, result.stderr
    scores = pd.read_parquet(tmp_path / "scores.parquet")
    assert (scores["label"] == 0).sum() >= 10
    assert (scores["label"] == 1).sum() >= 40
    assert scores["score"].between(0, 1).all()
