"""The Obiwan workflow as a user runs it."""

from __future__ import annotations

import json
import shutil
import subprocess
import zipfile

import numpy as np
import pandas as pd
import pytest

from tests.conftest import ROOT, clean_environment, skyproof
from tests.workflow.conftest import products, snakemake

pytestmark = pytest.mark.workflow


def test_the_run_makes_all_documented_products(tiny):
    made = set(products(tiny))
    for name in ("train/model.safetensors", "train/history.csv", "infer/scores.parquet"):
        assert f"obiwan/{name}" in made
    for name in ("mosaic", "roc", "magnitude", "curves"):
        assert f"obiwan/evaluate/{name}.png" in made
    assert {"obiwan/evaluate/metrics.json", "obiwan/evaluate/verdict.md"} <= made
    assert not [name for name in made if "/.tmp" in name]


def test_the_scores_are_of_the_test_part(tiny):
    """o12, o07: every test stamp has one score; there are both classes."""
    scores = pd.read_parquet(tiny / "results/obiwan/infer/scores.parquet")
    files = sorted((tiny / "results/obiwan/split/testtrain").rglob("ytest_*.npy"))
    labels = np.concatenate([np.load(path) for path in files])
    assert len(scores) == len(labels)
    assert sorted(scores["label"]) == sorted(labels.astype(int))
    assert set(scores["label"]) == {0, 1}
    assert scores["score"].between(0, 1).all()


def test_parts_share_no_brick(tiny):
    """o16: the folders of the test part have no training file."""
    split = tiny / "results/obiwan/split/testtrain"
    train = {path.parent.name for path in split.rglob("xtrain_*.npy")}
    test = {path.parent.name for path in split.rglob("xtest_*.npy")}
    assert train
    assert test
    assert not train & test


def test_logs_checkpoints_and_traces(tiny):
    """o13, and one log and one benchmark per job."""
    train = tiny / "results/obiwan/train"
    for folder in ("ckpts", "logs", "prof"):
        assert [path for path in (train / folder).rglob("*") if path.is_file()], folder
    assert (tiny / "logs/obiwan/train.log").stat().st_size > 0
    assert (tiny / "logs/benchmarks/obiwan/simulate-00000.tsv").is_file()


def test_metrics_are_complete(tiny):
    metrics = json.loads((tiny / "results/obiwan/evaluate/metrics.json").read_text())
    for key in ("accuracy", "auc", "p_value", "verdict"):
        assert key in metrics


def test_products_do_not_depend_on_the_machine(tiny):
    for name, content in products(tiny).items():
        assert str(tiny).encode() not in content, name
        assert str(ROOT).encode() not in content, name


def test_report(tiny, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(tiny, folder)
    result = snakemake(folder, "--report", "report.zip")
    assert result.returncode == 0, result.stdout + result.stderr
    with zipfile.ZipFile(folder / "report.zip") as archive:
        names = archive.namelist()
        page = archive.read(next(name for name in names if name.endswith(".html"))).decode()
        shown = next(name for name in names if name.endswith("/root.txt"))
        assert archive.read(shown) == (folder / "results/root.txt").read_bytes()
    assert sum(name.endswith(".png") for name in names) >= 4
    assert "Obiwan" in page


def test_summary(tiny):
    result = skyproof("summary", tiny / "results")
    assert result.returncode == 0
    lines = result.stdout.splitlines()
    assert len(lines) <= 5
    assert lines[0].startswith("obiwan: ")
    assert skyproof("summary", tiny / "logs").returncode == 3


def test_a_printed_line_can_be_pasted(tiny, tmp_path):
    """The command line printed by a dry run can be run separately and gives the same bytes."""
    record = "results/obiwan/simulate/simulated-00001.json"
    printed = snakemake(tmp_path, "-n", "-p", record).stdout
    line = next(line for line in printed.splitlines() if "python -m skyproof" in line)
    command = line[line.index("mpiexec") :]
    (tmp_path / "logs/obiwan").mkdir(parents=True)
    subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, env=clean_environment(), check=True, timeout=300
    )
    assert (tmp_path / record).read_bytes() == (tiny / record).read_bytes()


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"obiwan": {"trian": {}}}, "did you mean train?"),
        ({"obiwan": {"source": "release"}}, "bricks.txt: does not exist"),
    ],
)
def test_a_wrong_configuration_stops_before_anything_runs(tmp_path, config, expected):
    result = snakemake(tmp_path, "-n", config=config)
    assert result.returncode == 1
    assert expected in result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "results").exists()


def test_a_bad_brick_is_reported_and_the_others_continue(tiny, tmp_path):
    """One corrupt image: its block fails with its name, the other blocks are processed."""
    folder = tmp_path / "run"
    shutil.copytree(tiny, folder)
    shutil.rmtree(folder / "results/obiwan/cutouts")
    image = next((folder / "results/obiwan/simulate/coadd").rglob("*-image-r.fits.fz"))
    image.write_bytes(image.read_bytes()[: image.stat().st_size // 2])
    result = snakemake(folder, "-c", "2", "--forcerun", "obiwan_cutouts")
    assert result.returncode == 1
    text = result.stdout + result.stderr
    assert image.name.split("-")[1] in text
    assert "error:" in text


def test_many_core_profile_plans_threads_and_affinity(tmp_path):
    """The source document's settings of a Knights Landing node: one process of 68 threads."""
    words = ("-n", "-c", "68", "--profile", str(ROOT / "profiles/knl"))
    lines = snakemake(tmp_path, *words).stdout.splitlines()
    train = next(line for line in lines if "python -m skyproof obiwan.train" in line)
    assert "mpiexec" not in train
    assert "--ranks 1 --threads 68" in train
    assert "--numerics native" in train
    simulate = next(line for line in lines if "python -m skyproof obiwan.simulate" in line)
    assert "mpiexec -n 32 " in simulate
    variables = "environment=KMP_AFFINITY=granularity=fine,compact,1,0 KMP_BLOCKTIME=1"
    said = [line for line in lines if line.strip().startswith("resources: ")]
    assert said
    assert all(variables in line for line in said)


def test_variables_of_a_site_reach_the_jobs(tiny, tmp_path):
    """Tested with a variable that receipts record."""
    folder = tmp_path / "run"
    shutil.copytree(tiny, folder)
    target = folder / "results/obiwan/assign/membership.csv"
    words = ("--forcerun", "obiwan_assign", "--until", "obiwan_assign")
    words += ("--default-resources", "environment=PBS_JOBID='1 2' KMP_BLOCKTIME=1")
    result = snakemake(folder, "-c", "1", *words)
    assert result.returncode == 0, result.stderr
    receipt = json.loads((target.parent / ".journal/membership.csv.receipt.json").read_text())
    assert receipt["run"]["environment"]["PBS_JOBID"] == "1 2"
