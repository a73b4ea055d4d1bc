"""Errors on a real SLURM: settings and launchers that would otherwise fail silently."""

from __future__ import annotations

import pytest

from tests.conftest import ROOT, launch, one_line

pytestmark = [pytest.mark.workflow, pytest.mark.slow]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--slurm-status-command", "sacct"), "keeps no accounts"),
        (("--slurm-array-jobs", "all"), "deletes valid outputs"),
        (("--slurm-logdir", "logs/slurm"), "leave it out"),
        (("--slurm-init-seconds-before-status-checks", "700"), "use 600 or less"),
    ],
)
def test_settings_that_lose_jobs_are_errors(cluster, untrained, words, expected):
    code, output = cluster.finish(untrained, *words)
    assert code == 1
    assert expected in output
    assert "Submitted" not in output


def test_a_wrong_mpi_type_is_reported_with_both_numbers(cluster, untrained):
    """Plain srun silently starts separate worlds of one rank; the stage counts them."""
    record = "results/obiwan/cutouts/block-00000.json"
    words = ("--forcerun", "obiwan_cutouts", "--until", "obiwan_cutouts", "--retries", "0")
    launcher = ("--set-resources", "obiwan_cutouts:mpi=srun --mpi=none -n 4")
    before = (untrained / record).read_bytes()
    code, output = cluster.finish(untrained, *words, *launcher)
    assert code == 1
    assert "requested 4 ranks, but this MPI world has 1" in output
    assert not (untrained / record).exists() or (untrained / record).read_bytes() == before


def test_the_reason_for_no_start_is_one_line(tmp_path):
    far = tmp_path / ("x" * 80)
    result = launch([ROOT / "scripts/cluster", "start", far])
    assert result.returncode == 4
    assert one_line(result).startswith("cluster: error:")
