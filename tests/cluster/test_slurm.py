"""The workflow on a real SLURM: the same bytes, one master a folder, no orphan, no silent trap."""

from __future__ import annotations

import pytest

from tests.cluster.conftest import root_of, wait_for_job
from tests.conftest import ROOT, launch, one_line

pytestmark = [pytest.mark.workflow, pytest.mark.slow]


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
    launcher = ("--set-resources", "obiwan_cutouts:mpi=srun --mpi=none")
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
