"""The same root for other folders, ranks and schedules, and after kills and a full disk."""

from __future__ import annotations

import copy
import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from skyproof.proof import manifest
from skyproof.proof.report import IDENTICAL
from skyproof.proof.verify import verify
from tests.processes import kill, of_session, wait
from tests.workflow.conftest import TINY, products, root_of, small_disk, snakemake, started

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

N_KILLS = 12
# The stages that run MPI ranks.
THREE_RANKS = [f"obiwan_{rule}=3" for rule in ("simulate", "cutouts", "split", "train", "infer")]


def test_another_place_time_zone_locale_umask_and_three_ranks(tiny, tmp_path):
    """All settings of a site or a user at once; `tiny` ran on one core and one rank."""
    before = os.umask(0o077)
    try:
        result = snakemake(
            tmp_path / "deep er/else-where", "-c", "3", "--set-threads", *THREE_RANKS,
            TZ="Pacific/Auckland", LC_ALL="C", LANG="de_DE.UTF-8", PYTHONHASHSEED="4711",
        )  # fmt: skip
    finally:
        os.umask(before)
    assert result.returncode == 0, result.stdout + result.stderr
    folder = tmp_path / "deep er/else-where"
    assert root_of(folder) == root_of(tiny)
    one, other = products(tiny), products(folder)
    assert one.keys() == other.keys()
    assert [name for name in one if one[name] != other[name]] == []


def test_ranks_that_take_their_items_in_reverse_in_other_blocks(tiny, checkout, tmp_path):
    """Blocks of three bricks and one here, of two and two there.

    Another schedule changes the code and thus the root: the checksums are compared.
    """
    module = checkout / "scripts/skyproof/core/comm.py"
    forth = "items[comm.rank :: comm.size]"
    assert forth in module.read_text()
    module.write_text(module.read_text().replace(forth, f"{forth}[::-1]"))
    config = copy.deepcopy(TINY)
    config["obiwan"]["block_size"] = 3
    result = snakemake(tmp_path / "run", "-c", "2", checkout=checkout, config=config)
    assert result.returncode == 0, result.stdout + result.stderr
    sums = [(folder / "results" / manifest.SUMS).read_text() for folder in (tiny, tmp_path / "run")]
    assert sums[0] == sums[1]
    report = verify(tmp_path / "run/results", tiny / "results")
    assert report.code == IDENTICAL, "\n".join(report.lines())


@pytest.fixture
def finished(tiny, tmp_path) -> Path:
    """The tiny run in a new folder."""
    return shutil.copytree(tiny, tmp_path / "run", symlinks=True)


def test_a_training_on_more_ranks(tiny, finished):
    result = snakemake(finished, "-c", "4", "--forcerun", "obiwan_train")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "--ranks 4 " in result.stdout + result.stderr
    assert root_of(finished) == root_of(tiny)


def test_kills_at_random_moments(tiny, tmp_path):
    """SIGKILL of Snakemake, of a rank or stage, or of all at once; then Snakemake is started again.

    Where a run ends before it is killed, the next begins from nothing.
    """
    folder = tmp_path / "run"
    hit = dict.fromkeys(("snakemake", "rank", "all"), 0)
    for seed in range(N_KILLS):
        draw = random.Random(seed)
        with started(folder, "-c", "2") as run:
            wait(run, draw.uniform(2, 9))
            victim = draw.choice(list(hit))
            hit[victim] += kill(run, victim)
        assert not of_session(run.pid)
        if run.returncode == 0:
            assert root_of(folder) == root_of(tiny), f"after the kills up to seed {seed}"
            shutil.rmtree(folder / "results")
    assert min(hit.values()) >= 2, hit  # measured: see the print of a run with -s
    result = snakemake(folder, "-c", "2")
    assert result.returncode == 0, result.stdout + result.stderr
    assert root_of(folder) == root_of(tiny)


def test_a_full_disk_and_a_second_run_with_space(tiny, tmp_path):
    folder = tmp_path / "run"
    results = folder / "results"
    results.mkdir(parents=True)
    size = sum(path.stat().st_size for path in (tiny / "results").rglob("*") if path.is_file())
    with small_disk(results, size // 3):
        result = snakemake(folder, "-c", "2")
        assert result.returncode == 1
        assert "No space left on device" in result.stdout + result.stderr
        subprocess.run(["mount", "-o", f"remount,size={3 * size}", results], check=True)
        result = snakemake(folder, "-c", "2")
        assert result.returncode == 0, result.stdout + result.stderr
        assert root_of(folder) == root_of(tiny)
