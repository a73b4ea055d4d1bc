"""The sbatch arguments with which Snakemake's SLURM executor submits a job, by its functions."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from skyproof.workflow.plan.dryrun import DryRun, PlannedJob


class _Resources(dict[str, Any]):
    """Resources that are read both as items and as attributes."""

    __getattr__ = dict.__getitem__


def partitions(run: DryRun) -> list[Any]:
    """Return the site's partitions as the executor reads them; empty without partitions.yaml."""
    if run.partitions is None:
        return []
    from snakemake_executor_plugin_slurm.partitions import read_partition_file

    return list(read_partition_file(run.partitions))


def best(declared: Sequence[Any], job: PlannedJob) -> str | None:
    """Return the partition that the executor will choose; None if the job fits none."""
    if job.resources.get("slurm_partition"):
        return str(job.resources["slurm_partition"])
    scores = {found.name: found.score_job_fit(_asked(job)) for found in declared}
    fits = {name: score for name, score in scores.items() if score is not None}
    return max(fits, key=lambda name: fits[name]) if fits else None


def words(job: PlannedJob, declared: Sequence[Any]) -> list[str]:
    """Return the arguments of sbatch for a job (ValueError if the executor rejects it)."""
    from snakemake_executor_plugin_slurm.submit_string import get_submit_command
    from snakemake_executor_plugin_slurm.utils import set_gres_string
    from snakemake_interface_common.exceptions import WorkflowError

    account, partition = job.resources.get("slurm_account"), best(declared, job)
    parameters = {
        "run_uuid": "skyproof",
        "slurm_logfile": "/dev/null",
        "comment_str": f"rule_{job.rule}",
        "account": f"-A {shlex.quote(str(account))}" if account else "",
        "partition": f"-p {shlex.quote(partition)}" if partition else "",
        "workdir": "",
    }
    try:
        line = get_submit_command(_asked(job), parameters) + set_gres_string(_asked(job))
    except WorkflowError as error:
        raise ValueError(" ".join(str(error).split())) from None
    return [word for word in shlex.split(line)[1:] if word != "--parsable"]


def _asked(job: PlannedJob) -> Any:
    return SimpleNamespace(
        name=job.rule,
        threads=job.threads,
        resources=_Resources(job.resources),
        is_group=lambda: False,
    )
