"""A cluster on which the kernel limits the memory of jobs, as on most sites."""

from __future__ import annotations

import pytest

from tests.cluster.conftest import running
from tests.workflow.conftest import root_of, without

pytestmark = [pytest.mark.workflow, pytest.mark.slow]


def test_a_rank_that_the_kernel_kills_gets_more_memory(tiny, tmp_path):
    """The state of such a job in SLURM is FAILED, because its main process ends by itself."""
    run = without(tiny, tmp_path / "run", "infer", "evaluate")
    with running(CGROUPS="1") as cluster:
        code, output = cluster.finish(
            run, "--set-resources", "obiwan_infer:mem_mb=600 * 2 ** (attempt - 1)"
        )
        jobs = [(job.state, job.memory) for job in cluster.jobs(run, "obiwan_infer")]
    assert code == 0, output
    assert jobs[0] == ("FAILED", "600M")
    assert jobs[-1] in [("COMPLETED", "1200M"), ("COMPLETED", "2400M")]
    assert "oom-kill event" in output
    assert root_of(run) == root_of(tiny)
