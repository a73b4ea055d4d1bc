"""A release folder is used instead of simulated bricks, by one key of the configuration."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT
from tests.workflow.conftest import TINY, snakemake

pytestmark = pytest.mark.workflow


def release_of(tiny: Path, folder: Path, *, coadds: bool) -> tuple[list[str], dict[str, str]]:
    """Return brick names and the `release` section for the tiny run's bricks, copied to `folder`.

    With `coadds` the tree also has the release's own images and catalogues, outside rs0.
    """
    tree = folder / "survey"
    shutil.copytree(tiny / "results/obiwan/simulate", tree, ignore=shutil.ignore_patterns("*.json"))
    names = []
    for images in sorted(tree.glob("coadd/*/*/rs0")):
        brick = images.parent.name
        names.append(brick)
        if coadds:
            shutil.copytree(images, images.parent, dirs_exist_ok=True)
            catalogue = tree / f"tractor/{brick[:3]}/{brick}/rs0/tractor-{brick}.fits"
            shutil.copy(catalogue, tree / f"tractor/{brick[:3]}")
    (folder / "bricks.txt").write_text("# four bricks\n" + "\n".join(names) + "\n")
    return names, {"bricks": str(folder / "bricks.txt"), "real": str(tree)}


def test_the_same_bricks_as_a_release_give_the_same_stamps(tiny, tmp_path):
    names, release = release_of(tiny, tmp_path, coadds=False)
    config = {"obiwan": TINY["obiwan"] | {"source": "release", "release": release}}
    result = snakemake(tmp_path, "-c", "1", "results/obiwan/assign/membership.csv", config=config)
    assert result.returncode == 0, result.stdout + result.stderr
    assert len(names) == 4
    for kind in ("real", "fake"):
        made = sorted((tmp_path / f"results/obiwan/cutouts/{kind}").rglob("*.hdf5"))
        assert len(made) == 2 * len(names)
        for path in made:
            twin = tiny / path.relative_to(tmp_path)
            assert path.read_bytes() == twin.read_bytes(), path.name


def test_the_choices_of_the_original_run_to_a_verdict(tiny, tmp_path):
    """docs/configs/original.yaml on a release: groups by source, 80/20 within bricks."""
    names, release = release_of(tiny, tmp_path, coadds=True)
    original = yaml.safe_load((ROOT / "docs/configs/original.yaml").read_text())["obiwan"]
    config = {"obiwan": {**TINY["obiwan"], "source": "release", "release": release}}
    for section, options in original.items():
        config["obiwan"][section] = {**config["obiwan"].get(section, {}), **options}
    result = snakemake(tmp_path, "-c", "2", config=config)
    assert result.returncode == 0, result.stdout + result.stderr
    split = tmp_path / "results/obiwan/split/testtrain"
    for brick in names:
        assert list(split.rglob(f"{brick}/xtrain_1.npy"))
        assert list(split.rglob(f"{brick}/xtest_1.npy"))
    metrics = json.loads((tmp_path / "results/obiwan/evaluate/metrics.json").read_text())
    assert metrics["groups_in_training"] == len(names)
    assert "same sky" in (tmp_path / "logs/obiwan/split-00000.log").read_text()
    assert list((tmp_path / "results/obiwan/cutouts").rglob("jpeg_grz.hdf5"))
