"""The workflow on a real SLURM: the same bytes, one master a folder, no orphan, no silent trap."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT, launch, one_line, skyproof
from tests.workflow.conftest import snakemake

pytestmark = [pytest.mark.workflow, pytest.mark.slow]


def root_of(run: Path) -> str:
    result = skyproof("root", run / "results")
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.fixture(scope="session")
def local(tmp_path_factory) -> Path:
    """The tiny run on this machine alone."""
    folder = tmp_path_factory.mktemp("local")
    result = snakemake(folder, "-c", "1")
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


@pytest.fixture
def untrained(local, tmp_path) -> Path:
    """A copy of the tiny run without its training and what follows."""
    folder = tmp_path / "run"
    shutil.copytree(local, folder)
    for name in ("train", "infer", "evaluate"):
        shutil.rmtree(folder / "results/obiwan" / name)
    for name in ("manifest.json", "manifest-sha256.txt", "provenance.json"):
        (folder / "results" / name).unlink()
    return folder


def test_whole_run_makes_the_bytes_of_the_local_run(cluster, local, tmp_path):
    """MPI stages on four ranks and two nodes, all else where it fits; from the checkout's root."""
    code, output = cluster.finish(tmp_path / "run", timeout=500)
    assert code == 0, output
    assert root_of(tmp_path / "run") == root_of(local)
    nodes = cluster.ask("squeue", "--states=all", "-h", "-O", "NumNodes:10,Comment:100")
    assert "2         rule_obiwan_simulate" in nodes


def test_a_killed_master_leaves_nothing_that_the_next_one_does_not_mend(cluster, local, untrained):
    """Its job is cancelled before anything starts; no --unlock; one more master is refused."""
    first = cluster.start(untrained)
    wait_for_job(cluster, untrained)
    second, output = cluster.finish(untrained)
    assert second == 1
    assert f"process {first.pid} on" in output
    first.kill()
    first.communicate()
    code, output = cluster.finish(untrained)
    assert code == 0, output
    assert "(obiwan_train) of an earlier run whose master is gone" in output
    assert root_of(untrained) == root_of(local)


def wait_for_job(cluster, run: Path) -> None:
    for _ in range(60):
        shown = cluster.ask("squeue", "-h", "-t", "RUNNING", "-O", "StdOut:300")
        if str(run) in shown:
            return
        time.sleep(0.5)
    raise AssertionError("no job of the run within 30 s")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--slurm-status-command", "sacct"), "keeps no accounts"),
        (("--slurm-array-jobs", "all"), "good outputs are deleted"),
        (("--slurm-logdir", "logs/slurm"), "leave it out"),
        (("--slurm-init-seconds-before-status-checks", "200"), "use 100 or less"),
    ],
)
def test_settings_that_lose_jobs_are_refused(cluster, untrained, words, expected):
    code, output = cluster.finish(untrained, *words)
    assert code == 1
    assert expected in output
    assert "Submitted" not in output


def test_a_wrong_mpi_type_is_told_with_both_numbers(cluster, untrained):
    """Plain srun starts worlds of one rank each, silently; the stage counts them."""
    record = "results/obiwan/cutouts/block-00000.json"
    words = ("--forcerun", "obiwan_cutouts", "--until", "obiwan_cutouts", "--retries", "0")
    launcher = ("--set-resources", "obiwan_cutouts:mpi=srun --mpi=none -n 4")
    before = (untrained / record).read_bytes()
    code, output = cluster.finish(untrained, *words, *launcher)
    assert code == 1
    assert "asked for 4 ranks, but this MPI world has 1" in output
    assert not (untrained / record).exists() or (untrained / record).read_bytes() == before


def test_it_says_in_one_line_why_it_cannot_start(tmp_path):
    far = tmp_path / ("x" * 80)
    result = launch([ROOT / "scripts/cluster", "start", far])
    assert result.returncode == 4
    assert one_line(result).startswith("cluster: error:")
