"""Ratios of measured to estimated time and disk of earlier jobs.

A finished job has a benchmark file (seconds, memory) and a receipt (options, wildcards, ranks,
outputs). The receipts also give the configuration of that run, from which the system estimates the
cost of the job. Only the ratio of measured to estimated values is used; the formula of the system
scales with the size of a job.
"""

from __future__ import annotations

import csv
import importlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_args

from skyproof.core import receipts
from skyproof.core.blocks import LOG_FOLDER
from skyproof.core.cost import Cost
from skyproof.core.errors import InputError, SkyproofError
from skyproof.core.options import home_of, options_model, systems
from skyproof.proof import item_sets
from skyproof.proof.jobs import JobReceipt, read_receipt
from skyproof.workflow.plan.systems import place_of, plan_of

BENCHMARKS = Path("logs/benchmarks")

# Jobs whose estimate is below this multiple of their fixed seconds are not used for rates: a slow
# start must not be scaled to a job a thousand times larger.
_LEAST_RATIO = 2.0
# This number of blocks of a stage suffices for a rate; block indexes of a survey are large files.
_ENOUGH = 64


@dataclass(frozen=True)
class EarlierJob:
    """A finished job: its measured time, memory and size, and its system's estimate."""

    stage: str
    device: str
    seconds: float
    workers: int
    memory_mb: float  # maximum resident memory of all its processes
    megabytes: float  # of its products
    cost: Cost

    @property
    def estimated(self) -> float:
        """Estimated seconds."""
        return self.cost.hours(self.workers, self.device == "cuda") * 3600

    @property
    def large_enough(self) -> bool:
        """Whether its estimated time is long compared with its start."""
        return self.estimated >= _LEAST_RATIO * self.cost.start


@dataclass(frozen=True)
class Rate:
    """Factors by which to multiply a stage's estimates, from earlier jobs."""

    jobs: int = 0  # number of jobs used; 0: unknown
    seconds: float = 1.0
    disk: float = 1.0
    memory_mb: float = 0.0  # maximum memory of one job

    @property
    def disk_known(self) -> bool:
        """Whether there was any earlier job, even a short one."""
        return self.memory_mb > 0 or self.jobs > 0


def rates(folder: Path, config: Any) -> dict[tuple[str, str], Rate]:
    """Return the rates of the finished jobs of a folder, by stage ('system.stage') and device.

    `config` is the configuration that is planned; it is used for what receipts do not state.
    """
    found: dict[tuple[str, str], list[EarlierJob]] = defaultdict(list)
    for job in earlier(folder, config):
        found[job.stage, job.device].append(job)
    return {key: _rate(jobs) for key, jobs in found.items()}


def _rate(jobs: list[EarlierJob]) -> Rate:
    estimated = sum(job.cost.megabytes for job in jobs)
    disk = sum(job.megabytes for job in jobs) / estimated if estimated else 1.0
    memory = max(job.memory_mb for job in jobs)
    used = [job for job in jobs if job.large_enough]
    if not used:
        return Rate(0, 1.0, disk, memory)
    # The ratio of the sums, so that a smaller last block has less weight.
    seconds = sum(job.seconds for job in used) / sum(job.estimated for job in used)
    return Rate(len(used), seconds, disk, memory)


def earlier(folder: Path, config: Any) -> Iterator[EarlierJob]:
    """Yield the finished jobs of a run's folder that left both a benchmark file and a receipt."""
    results = folder / "results"
    jobs = sorted(_sample(_receipts(results)), key=lambda job: job.receipt["run"]["ended"])
    sections = _sections(jobs, config)
    for job in jobs:
        system, _, stage = job.stage.partition(".")
        run, wildcards = job.receipt["run"], _wildcards(job)
        benchmark = _benchmark(folder / BENCHMARKS / f"{place_of(system, stage, wildcards)}.tsv")
        plan = _plan(system, _own(sections[system], job)) if benchmark else None
        if benchmark is None or plan is None:
            continue
        yield EarlierJob(
            stage=job.stage,
            device=job.receipt["device"],
            seconds=benchmark["s"],
            workers=run["ranks"] * run["threads"],
            memory_mb=benchmark["max_rss"],
            megabytes=_written(results, job) / 1e6,
            cost=plan.cost(stage, wildcards),
        )


def _receipts(results: Path) -> Iterator[JobReceipt]:
    """Yield the jobs whose receipts lie in the folders of stages, or of their regions' stages.

    Folders below those are not searched: items can have a million of them.
    """
    for folders in ("*/*", "*/*/*"):
        for path in sorted(results.glob(f"{folders}/{LOG_FOLDER}/*{receipts.SUFFIX}")):
            with suppress(InputError):
                job = read_receipt(results, path.relative_to(results).as_posix())
                if job.stage.partition(".")[0] in systems():
                    yield job


def _sample(jobs: Iterable[JobReceipt]) -> Iterator[JobReceipt]:
    """Yield some blocks of each stage and region, evenly spaced, and all jobs without a block."""
    alike: dict[tuple[str, ...], list[JobReceipt]] = defaultdict(list)
    for job in jobs:
        others = (value for name, value in _wildcards(job).items() if name != "block")
        alike[job.stage, *others].append(job)
    for found in alike.values():
        yield from found[:: -(-len(found) // _ENOUGH)]


def _wildcards(job: JobReceipt) -> dict[str, str]:
    """Return the wildcards of a job, by its receipt."""
    return dict(job.receipt["run"].get("wildcards", {}))


def _benchmark(path: Path) -> dict[str, float] | None:
    """Return seconds and memory [MB] of a benchmark file; None if the file has none."""
    with suppress(OSError, ValueError, KeyError, StopIteration), path.open(newline="") as lines:
        row = next(csv.DictReader(lines, delimiter="\t"))
        memory = row["max_rss"]
        return {"s": float(row["s"]), "max_rss": 0.0 if memory in ("-", "NA") else float(memory)}
    return None


def _sections(jobs: list[JobReceipt], config: Any) -> dict[str, dict[str, Any]]:
    """Return each system's section with the values of the receipts instead of those of `config`."""
    found = {name: getattr(config, name).model_dump(mode="json") for name in systems()}
    for job in jobs:
        system, _, stage = job.stage.partition(".")
        found[system] = _own(found[system], job)
        # The source of a system's data has the name of the stage that makes them.
        source = type(getattr(config, system)).model_fields.get("source")
        if source is not None and stage in get_args(source.annotation):
            found[system]["source"] = stage
    return found


def _own(section: Mapping[str, Any], job: JobReceipt) -> dict[str, Any]:
    """Return a section in which the options of this job's stage are those of its receipt."""
    stage = job.stage.partition(".")[2]
    fields = options_model(job.stage).model_fields
    given = {**job.receipt["options"], **job.receipt["run"]["grain"]}
    section = {**section, stage: dict(section[stage])}
    for name, value in given.items():
        home = home_of(fields[name]) if name in fields else "unknown"
        if home == "own":
            section[stage][name] = value
        elif home == "inherited" and name in section:
            section[name] = value
    return section


def _plan(system: str, section: Mapping[str, Any]) -> Any:
    """Return the system's plan of a section; None if it cannot be made (a missing file)."""
    return _planned(system, json.dumps(section, sort_keys=True))


@cache
def _planned(system: str, section: str) -> Any:
    model = importlib.import_module(f"skyproof.{system}.options").System
    with suppress(SkyproofError, ValueError):
        return plan_of(system, model.model_validate_json(section))
    return None


def _written(results: Path, job: JobReceipt) -> int:
    """Return the bytes of the products of a job: its outputs, and the files in a block index."""
    total = 0
    for path, made in job.outputs.items():
        index = None
        with suppress(InputError):
            index = item_sets.read(results / path) if path.endswith(".json") else None
        items = index["items"].values() if index else ()
        total += made["size"] + sum(file["size"] for item in items for file in item["files"])
    return total
