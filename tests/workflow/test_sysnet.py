"""The SYSNet workflow as a user runs it."""

from __future__ import annotations

import copy
import json
import os
import shutil
import signal
import time
import zipfile
from pathlib import Path

import fitsio
import numpy as np
import pytest

from skyproof.proof import inventory, manifest
from skyproof.sysnet.api import TrainedModel
from skyproof.sysnet.folds import TEST, read_folds
from skyproof.sysnet.table import read_table
from tests.conftest import ROOT, skyproof
from tests.workflow.conftest import TINY_SYSNET, planned, snakemake, started

pytestmark = pytest.mark.workflow

REGIONS = ("north", "south")
STAGES = (
    *("mock", "split", "select", "tune", "train", "infer", "baselines", "stack", "evaluate"),
    "summarise",
)


def products(folder: Path, region: str) -> dict[str, bytes]:
    """Return the products of a region without block indexes, which depend on the block size."""
    results = folder / "results/sysnet" / region
    names = sorted(path for path, _ in inventory.products(results))
    return {
        name: (results / name).read_bytes() for name in names if not name.startswith("train/block-")
    }


def differing(one: Path, two: Path, region: str) -> list[str]:
    """Return the products of a region that differ between two runs or exist in one only."""
    a, b = products(one, region), products(two, region)
    assert a
    return [name for name in sorted(a.keys() | b.keys()) if a.get(name) != b.get(name)]


def only(region: str, **train: object) -> dict:
    """Return the tiny configuration of one region, with other options of the training."""
    config = copy.deepcopy(TINY_SYSNET)
    config["sysnet"]["regions"] = {region: config["sysnet"]["regions"][region]}
    config["sysnet"]["train"] |= train
    return config


@pytest.mark.parametrize("region", REGIONS)
def test_the_run_makes_all_documented_products(tiny_sysnet, region):
    made = set(products(tiny_sysnet, region))
    for name in ("nn-weights.fits", "metrics.npz", "history.csv", "train.log"):
        assert f"infer/{name}" in made
    assert {"stack/selection.fits", "stack/weights.fits", "stack/stack.json"} <= made
    for name in ("maps", "templates", "power", "curves", "scan"):
        assert f"evaluate/{name}.png" in made
    assert {"evaluate/verdict.md", "evaluate/metrics.json", "evaluate/nulltest.json"} <= made
    assert sum(name.startswith("train/members/fold") for name in made) == 10


def test_both_regions_are_in_one_verdict(tiny_sysnet):
    summary = tiny_sysnet / "results/sysnet/summarise"
    verdict = (summary / "verdict.md").read_text()
    metrics = json.dumps(json.loads((summary / "metrics.json").read_text()))
    for region in REGIONS:
        assert region in verdict
        assert region in metrics
    result = skyproof("summary", tiny_sysnet / "results")
    assert result.stdout.splitlines()[0].startswith("sysnet: ")


@pytest.mark.parametrize("region", REGIONS)
def test_every_pixel_is_predicted_once_by_networks_that_did_not_see_it(tiny_sysnet, region):
    results = tiny_sysnet / "results/sysnet" / region
    weights = fitsio.read(results / "infer/nn-weights.fits")
    table = read_table(results / "mock/table.fits")
    folds = read_folds(results / "split/folds.fits", table)
    rows = np.concatenate([folds.rows(fold, TEST) for fold in range(folds.n_folds)])
    np.testing.assert_array_equal(weights["hpix"], table.hpix[rows])
    np.testing.assert_array_equal(np.sort(weights["hpix"]), table.hpix)
    assert weights["weight"].shape == (len(table), 2)
    assert (weights["weight"] > 0).all()


def test_the_manifest_lists_every_product(tiny_sysnet):
    results = tiny_sysnet / "results"
    made = manifest.read(results)
    present = {path for path, _ in inventory.products(results) if not manifest.is_beside(path)}
    records = {path for path in present if "/train/block-" in path}
    assert set(made.files) == present - records
    assert set(made.item_sets) == {f"sysnet/{region}/train/ (sysnet.train)" for region in REGIONS}
    assert sum(len(tree["items"]) for tree in made.item_sets.values()) == 2 * 3  # groups
    assert {entry["stage"] for entry in made.files.values()} == {f"sysnet.{s}" for s in STAGES}
    assert {entry["class"] for entry in made.files.values()} == {"bytes"}
    result = skyproof("verify", results, "--strict")
    assert result.returncode == 0, result.stdout


def test_no_product_holds_the_place_of_the_run(tiny_sysnet):
    for region in REGIONS:
        for name, content in products(tiny_sysnet, region).items():
            assert str(tiny_sysnet).encode() not in content, name
            assert str(ROOT).encode() not in content, name


def test_s23_a_region_alone_on_three_ranks_in_larger_blocks_is_the_same(tiny_sysnet, tmp_path):
    """s11, s23: the other region, ranks and the block size do not change the bytes."""
    words = ["-c", "3", "--set-threads", "sysnet_mock=3", "sysnet_train=3", "sysnet_infer=3"]
    result = snakemake(tmp_path, *words, config=only("north", block_size=3))
    assert result.returncode == 0, result.stdout + result.stderr
    blocks = list((tmp_path / "results/sysnet/north/train").glob("block-*.json"))
    assert len(blocks) == 1
    assert differing(tiny_sysnet, tmp_path, "north") == []


def test_s12_one_root_after_a_kill_on_other_ranks_in_other_blocks(tiny_sysnet, tmp_path):
    """Snakemake and all its jobs get SIGKILL at the first checkpoint, without any clean-up.

    Blocks have two groups here instead of one, and the run goes on with two ranks, not one.
    """
    train = tmp_path / "results/sysnet"
    config = copy.deepcopy(TINY_SYSNET)
    config["sysnet"]["train"]["block_size"] = 2
    with started(tmp_path, "-c", "1", config=config) as run:
        deadline = time.monotonic() + 200
        while not list(train.rglob("ckpts/**/*.safetensors")):
            assert run.poll() is None, "the run ended before its first checkpoint"
            assert time.monotonic() < deadline, "no checkpoint"
            time.sleep(0.01)
        os.killpg(run.pid, signal.SIGKILL)
    assert not list(train.rglob("train/block-00001.json"))
    result = snakemake(tmp_path, "-c", "2", "--rerun-incomplete", config=config)
    assert result.returncode == 0, result.stdout + result.stderr
    assert (tmp_path / "results/sysnet/north/train/block-00001.json").exists()
    roots = {manifest.read(folder / "results").root for folder in (tiny_sysnet, tmp_path)}
    assert len(roots) == 1


def test_the_originals_checkpoints_predict_what_the_run_did(tiny_sysnet, tmp_path):
    """Target sysnet_exports: best.pth.tar of every fold, in three lines of Python."""
    folder = shutil.copytree(tiny_sysnet, tmp_path / "run", symlinks=True)
    result = snakemake(folder, "-c", "2", "sysnet_exports", config=TINY_SYSNET)
    assert result.returncode == 0, result.stdout + result.stderr
    results = folder / "results/sysnet/south"
    weights = fitsio.read(results / "infer/nn-weights.fits")
    table = results / "mock/table.fits"
    folds = read_folds(results / "split/folds.fits", read_table(table))
    start = 0
    for fold in range(5):
        (path,) = (results / "export").glob(f"model_{fold}_2664486226/best.pth.tar")
        hpix, density = TrainedModel("dnnp", path, (3, 8)).forward(table)
        rows = folds.rows(fold, TEST)
        found = weights[start : start + len(rows)]
        np.testing.assert_array_equal(found["hpix"], hpix[rows])
        np.testing.assert_allclose(found["weight"][:, 0], density[rows], rtol=1e-5)
        start += len(rows)


def test_report(tiny_sysnet, tmp_path):
    folder = shutil.copytree(tiny_sysnet, tmp_path / "run", symlinks=True)
    result = snakemake(folder, "--report", "report.zip", config=TINY_SYSNET)
    assert result.returncode == 0, result.stdout + result.stderr
    with zipfile.ZipFile(folder / "report.zip") as archive:
        names = archive.namelist()
        page = archive.read(next(name for name in names if name.endswith(".html"))).decode()
    assert sum(name.endswith(".png") for name in names) >= 2 * 5
    assert "SYSNet" in page


def test_both_systems_are_in_the_default_run(tmp_path):
    jobs = planned(snakemake(tmp_path, "-n", config={"seed": 1}))
    assert jobs["obiwan_evaluate"] == 1
    assert jobs["sysnet_evaluate"] == 2
    assert "sysnet_export" not in jobs


@pytest.mark.real
def test_the_real_table_runs_from_end_to_end(real_data, tmp_path):
    """DECaLS LRGs, 41,653 pixels: five folds of separate sky, five chains."""
    table = real_data / "sysnet/decals_lrg_table_nside256_ring.fits"
    config = {
        "sysnet": {
            "regions": {"decals": {"source": "table", "table": [str(table)]}},
            "train": {"n_chains": 5, "n_epochs": 2},
            "baselines": {"n_trees": 10},
            "evaluate": {"n_mocks": 20},
        }
    }
    result = snakemake(tmp_path, "-c", "2", config=config)
    assert result.returncode == 0, result.stdout + result.stderr
    results = tmp_path / "results/sysnet/decals"
    weights = fitsio.read(results / "infer/nn-weights.fits")
    assert weights["weight"].shape == (41653, 5)
    assert np.isfinite(weights["weight"]).all()
    np.testing.assert_array_equal(np.sort(weights["hpix"]), np.sort(fitsio.read(table)["hpix"]))
    log = (results / "infer/train.log").read_text()
    assert log.startswith("# of data: 41653\npartition_0 with (4, 20, 8, 1)\n")
    assert (results / "evaluate/verdict.md").stat().st_size > 0
