"""The manifest of a whole run: complete, free of the machine, and checked by `snakemake verify`."""

from __future__ import annotations

import copy
import getpass
import json
import os
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

from skyproof.proof import inventory, manifest
from tests.conftest import ROOT, clean_environment, skyproof
from tests.workflow.conftest import TINY, planned, snakemake

pytestmark = pytest.mark.workflow


@pytest.fixture
def run(tiny, tmp_path) -> Path:
    """A copy of the tiny run that a test may change."""
    return shutil.copytree(tiny, tmp_path / "run", symlinks=True)


def test_the_manifest_lists_every_product(tiny):
    results = tiny / "results"
    made = manifest.read(results)
    present = {path for path, _ in inventory.products(results) if not manifest.is_beside(path)}
    records = {path for path in present if re.search(r"/(block|simulated)-\d{5}\.json$", path)}
    assert len(records) == 6
    assert set(made.files) == present - records
    rules = {entry["stage"] for entry in made.files.values()}
    stages = ("simulate", "cutouts", "assign", "split", "train", "infer", "evaluate")
    assert rules == {f"obiwan.{stage}" for stage in stages}
    assert {entry["class"] for entry in made.files.values()} == {"bytes"}
    subprocess.run(
        ["sha256sum", "--check", "--strict", "--quiet", manifest.SUMS], cwd=results, check=True
    )


def test_the_libraries_and_locks_are_recorded(tiny):
    made = manifest.read(tiny / "results").content
    assert {"python", "numpy", "h5py", "torch", "fitsio"} <= made["libraries"].keys()
    assert made["locks"].keys() == {"all.lock.txt", "torch.lock.txt"}
    provenance = json.loads((tiny / "results/provenance.json").read_text())
    assert "snakemake" in provenance["workflow"]
    outputs = {path for job in provenance["jobs"] for path in job["outputs"]}
    assert "obiwan/simulate/simulated-00001.json" in outputs
    assert len(provenance["jobs"]) == len(made["steps"]) + 3  # three of the steps are two blocks


def needles(folder: Path, path: Path) -> list[re.Pattern[bytes]]:
    """Return patterns that no product may contain: folders, names and times of its run."""
    day = time.gmtime(path.stat().st_mtime)
    words = [str(folder), str(ROOT), str(Path.home()), os.path.realpath(folder)]
    words += [time.strftime(form, day) for form in ("%Y-%m-%d", "%d %b %Y", "%b %d %Y", "%Y%m%d")]
    patterns = [re.escape(word).encode() for word in words]
    # A short name also occurs in other words and in packed data.
    for name in (socket.gethostname(), getpass.getuser()):
        if len(name) > 4:
            patterns.append(rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])".encode())
    second = int(path.stat().st_mtime) // 1000  # Unix time in decimal, to a quarter of an hour
    patterns.append(str(second).encode() + rb"\d{3}(?!\d)")
    return [re.compile(pattern) for pattern in patterns]


def test_no_product_holds_place_host_user_or_time(tiny):
    results = tiny / "results"
    for path in [*manifest.read(results).files, manifest.MANIFEST, manifest.SUMS]:
        content = (results / path).read_bytes()
        for pattern in needles(tiny, results / path):
            assert pattern.search(content) is None, (path, pattern.pattern)


@pytest.mark.parametrize("planted", ["folder", "day", "second"])
def test_the_scan_finds_what_it_looks_for(tmp_path, planted):
    path = tmp_path / "product.bin"
    path.write_bytes(b"")
    text = {
        "folder": str(tmp_path),
        "day": time.strftime("%Y-%m-%d", time.gmtime()),
        "second": str(int(path.stat().st_mtime)),
    }[planted]
    content = b"\0\1" + text.encode() + b"\0"
    assert any(pattern.search(content) for pattern in needles(tmp_path, path))


def test_verify_runs_whenever_it_is_requested(run):
    for _ in range(2):
        result = snakemake(run, "-c", "1", "verify")
        assert result.returncode == 0, result.stderr
        assert f"identical: results, {len(manifest.read(run / 'results').files)} files" in (
            result.stdout
        )
    assert "Nothing to be done" in snakemake(run, "-n").stdout


def test_a_file_altered_without_a_new_time(run):
    """The time is kept: Snakemake does not detect the change, verify reports rule and file."""
    path = next((run / "results/obiwan/cutouts/real").rglob("img_ivar_grz.hdf5"))
    times = path.stat()
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert planned(snakemake(run, "-n")) == {}
    result = snakemake(run, "-c", "1", "verify")
    assert result.returncode == 1
    assert "rule     obiwan_cutouts" in result.stdout
    assert path.relative_to(run / "results").as_posix() in result.stdout


def test_an_altered_final_product_enters_no_manifest(run):
    verdict = run / "results/obiwan/evaluate/verdict.md"
    verdict.write_text(verdict.read_text() + "better than ever\n")
    result = snakemake(run, "-c", "1")
    assert result.returncode == 1
    assert "verdict.md: has another size than when obiwan.evaluate wrote it" in (
        result.stdout + result.stderr
    )
    assert not (run / "results/manifest.json").exists()


def test_another_training_is_traced_to_its_rule(tiny, run):
    """Verify reports the first rule whose products differ, the first weight, and later rules."""
    config = copy.deepcopy(TINY)
    config["obiwan"]["train"]["n_epochs"] = 1
    result = snakemake(run, "-c", "2", config=config)
    assert result.returncode == 0, result.stdout + result.stderr
    result = skyproof("verify", run / "results", "--against", tiny / "results")
    assert result.returncode == 1
    lines = [line.strip() for line in result.stdout.splitlines()]
    first = lines[lines.index("earliest mismatch:") :]
    assert first[1] == "rule     obiwan_train"
    assert first[2].startswith("file     obiwan/train/")
    later = lines[lines.index(next(x for x in lines if x.startswith("downstream of"))) + 1 :]
    assert "obiwan/infer/scores.parquet" in later
    assert "obiwan/evaluate/metrics.json" in later
    assert "note: obiwan.train had n_epochs 1, in the reference 2" in lines
    assert not [line for line in lines if "obiwan/cutouts" in line or "obiwan/split" in line]


def test_the_run_can_be_described_for_publication(run):
    result = skyproof("crate", run / "results")
    assert result.returncode == 0, result.stderr
    graph = json.loads((run / "results/ro-crate-metadata.json").read_text())["@graph"]
    actions = [entity for entity in graph if entity["@type"] == "CreateAction"]
    jobs = json.loads((run / "results/provenance.json").read_text())["jobs"]
    assert len(actions) == len(jobs) + 1
    assert skyproof("verify", run / "results", "--strict").returncode == 0


def test_make_run_ends_with_verify():
    result = subprocess.run(
        ["make", "--no-print-directory", "-n", "run"],
        cwd=ROOT,
        env=clean_environment(MAKEFLAGS="", MAKELEVEL="0"),  # `make test` may run this
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert result.stdout.splitlines()[-1] == "python -m skyproof verify results"
