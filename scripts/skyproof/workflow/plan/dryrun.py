"""The jobs that Snakemake would run, with their resources.

Snakemake runs in this process, as a dry run. It logs each job in a record with the fields of its
interface for logger plugins, and a filter on its logger reads them. Thus no printed text has to be
parsed, and all options and profiles of Snakemake apply.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from skyproof.core.errors import UsageError
from skyproof.workflow import config as configuration

SNAKEFILE = Path(__file__).parents[4] / "Snakefile"


@dataclass(frozen=True)
class PlannedJob:
    """A job, from the log of a dry run."""

    rule: str
    wildcards: Mapping[str, str]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    benchmark: str  # path of its benchmark file, empty if the rule has none
    threads: int
    resources: Mapping[str, Any]

    @property
    def tasks(self) -> int:
        """Number of ranks; 1 if the rule sets none."""
        return int(self.resources.get("tasks", 1) or 1)

    @property
    def nodes(self) -> int:
        return int(self.resources.get("nodes", 1) or 1)

    @property
    def cores(self) -> int:
        """Number of cores of the job, on all nodes."""
        if "cpus_per_task" in self.resources:
            return self.tasks * int(self.resources["cpus_per_task"])
        return self.threads

    @property
    def gpus(self) -> int:
        """Number of GPUs of the job, from `gpu=N` or `gres="gpu:MODEL:N"`."""
        words = str(self.resources.get("gres", "")).split(":")
        if words[0] == "gpu":
            return int(words[-1]) if words[-1].isdigit() else 1
        return int(self.resources.get("gpu", 0) or 0)

    @property
    def memory_mb(self) -> float:
        """Requested memory per node [MB] at the first attempt."""
        return float(self.resources.get("mem_mb", 0) or 0)

    @property
    def limit_minutes(self) -> float:
        """The time limit [min] of the first attempt; 0 without a limit."""
        return float(self.resources.get("runtime", 0) or 0)


@dataclass
class DryRun:
    """Result of a dry run."""

    jobs: list[PlannedJob] = field(default_factory=list)  # by rule; without those that do nothing
    config: Any = None  # the checked configuration
    folder: Path = Path()  # of the run
    executor: str = "local"
    slots: int = 1  # jobs at a time on a cluster, cores on one machine
    arguments: Any = None  # of Snakemake, from profile and command line
    partitions: Path | None = None  # the file of the site's partitions


def dry_run(words: Sequence[str]) -> DryRun:
    """Return the result of `snakemake -n WORDS`; raise UsageError with its message if it fails."""
    from snakemake.cli import args_to_api, parse_args
    from snakemake.logging import logger

    found = DryRun()

    def listen(record: Any) -> bool:
        if str(getattr(record, "event", "")) == "job_info":
            found.jobs.append(_job(record))
        return True

    argv = ["-n", "--nocolor", "-s", str(SNAKEFILE), *words]
    printed = io.StringIO()
    logger.addFilter(listen)
    variables = dict(os.environ)
    try:
        with redirect_stdout(printed), redirect_stderr(printed), _stored(found):
            parser, arguments = parse_args(argv)
            done = args_to_api(arguments, parser)
    except SystemExit as stop:
        done = not stop.code
    except Exception as error:
        raise UsageError(f"snakemake: {' '.join(str(error).split())}") from None
    finally:
        logger.removeFilter(listen)
        # The rules set environment variables for their jobs.
        named = os.environ.get("SNAKEMAKE_SLURM_PARTITIONS", "")
        os.environ.clear()
        os.environ.update(variables)
    if not done:
        raise UsageError(f"snakemake: {_reason(printed.getvalue())}")
    # The order of jobs that could run at once is random in Snakemake's log.
    found.jobs.sort(key=lambda job: (job.rule, job.outputs))
    found.arguments, found.executor = arguments, arguments.executor or "local"
    found.slots = _slots(arguments)
    found.partitions = Path(named) if named and found.executor == "slurm" else None
    return found


@contextmanager
def _stored(found: DryRun) -> Any:
    """Store the configuration that the rules check, and the folder in which they run."""

    def remember(config: Any) -> None:
        found.config, found.folder = config, Path.cwd()

    configuration.listeners.append(remember)
    try:
        yield
    finally:
        configuration.listeners.remove(remember)


def _job(record: Any) -> PlannedJob:
    return PlannedJob(
        rule=record.rule_name,
        wildcards=dict(record.wildcards or {}),
        inputs=tuple(map(str, record.input)),
        outputs=tuple(map(str, record.output)),
        benchmark=str(record.benchmark or ""),
        threads=int(record.threads),
        resources=dict(record.resources.items()),
    )


def _slots(arguments: Any) -> int:
    if arguments.executor not in (None, "local"):
        return int(arguments.jobs) if str(arguments.jobs).isdigit() else 100
    here = len(os.sched_getaffinity(0))
    return int(arguments.cores) if str(arguments.cores).isdigit() else here


def _reason(printed: str) -> str:
    """Return the last line that Snakemake printed, except positions in source files."""
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    messages = [line for line in lines if not line.startswith('File "')]
    return messages[-1] if messages else "failed without a message"
