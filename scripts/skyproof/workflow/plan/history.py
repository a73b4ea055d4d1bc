"""How long earlier jobs took and how much they wrote, against what was foreseen for them.

A finished job left a benchmark file (seconds, memory) and a receipt (options, ranks, outputs). The
receipts also tell the configuration of that run, from which its system foresees the job's work as
it does for the run that is planned. The quotient of the two is all that is carried over: a job of
another size is scaled by the system's own formula.
"""

from __future__ import annotations

import csv
import importlib
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from skyproof.core import receipts
from skyproof.core.blocks import JOURNAL_FOLDER
from skyproof.core.cost import Work
from skyproof.core.errors import InputError, SkyproofError
from skyproof.core.options import home_of, options_model, systems
from skyproof.proof import item_sets
from skyproof.proof.jobs import JobReceipt, read_receipt
from skyproof.workflow.plan.systems import plan_of

BENCHMARKS = Path("logs/benchmarks")

# A job that is foreseen to take less than so many times its fixed seconds says nothing about the
# rest: how slow its start was must not be carried over to a job a thousand times as large.
_TELLING = 2.0
# Of so many blocks of a stage the rate is known well; a record of a survey's block is large.
_ENOUGH = 64


@dataclass(frozen=True)
class Earlier:
    """A finished job: what it took, and what its system foresees for it."""

    stage: str
    device: str
    seconds: float
    workers: int
    memory_mb: float  # greatest resident memory of its processes together
    megabytes: float  # of its products
    work: Work

    @property
    def foreseen(self) -> float:
        """Seconds that its system foresees for it."""
        return self.work.hours(self.workers, self.device == "cuda") * 3600

    @property
    def tells(self) -> bool:
        """Say whether it was large enough for its seconds to mean something."""
        return self.foreseen >= _TELLING * self.work.start


@dataclass(frozen=True)
class Rate:
    """What earlier jobs of a stage teach: by what to multiply what is foreseen."""

    jobs: int = 0  # from so many jobs; 0: nothing is known
    seconds: float = 1.0
    disk: float = 1.0
    memory_mb: float = 0.0  # the most that one of them took

    @property
    def disk_known(self) -> bool:
        """Say whether there was any earlier job, however short."""
        return self.memory_mb > 0 or self.jobs > 0


def rates(folder: Path, config: Any) -> dict[tuple[str, str], Rate]:
    """Return what the finished jobs of a run's folder teach, by stage ('system.stage') and device.

    `config` is the configuration that is planned: it stands for what receipts do not tell.
    """
    found: dict[tuple[str, str], list[Earlier]] = defaultdict(list)
    for job in earlier(folder, config):
        found[job.stage, job.device].append(job)
    return {key: _rate(jobs) for key, jobs in found.items()}


def _rate(jobs: list[Earlier]) -> Rate:
    foreseen = sum(job.work.megabytes for job in jobs)
    disk = sum(job.megabytes for job in jobs) / foreseen if foreseen else 1.0
    memory = max(job.memory_mb for job in jobs)
    telling = [job for job in jobs if job.tells]
    if not telling:
        return Rate(0, 1.0, disk, memory)
    # Of all jobs together, so that a last, smaller block weighs less.
    took = sum(job.seconds for job in telling) / sum(job.foreseen for job in telling)
    return Rate(len(telling), took, disk, memory)


def earlier(folder: Path, config: Any) -> Iterator[Earlier]:
    """Yield the finished jobs of a run's folder that left both a benchmark file and a receipt."""
    results = folder / "results"
    found = [_receipt(results, path) for path in _receipts(results)]
    jobs = sorted((job for job in found if job), key=lambda job: job.receipt["run"]["ended"])
    sections = _sections(jobs, config)
    for job in jobs:
        place = _Place(job)
        benchmark = _benchmark(folder / BENCHMARKS / place.benchmark)
        plan = _plan(place.system, _own(sections[place.system], job)) if benchmark else None
        if benchmark is None or plan is None:
            continue
        run = job.receipt["run"]
        yield Earlier(
            stage=job.stage,
            device=job.receipt["device"],
            seconds=benchmark["s"],
            workers=run["ranks"] * run["threads"],
            memory_mb=benchmark["max_rss"],
            megabytes=_written(results, job) / 1e6,
            work=plan.work(place.stage, place.wildcards),
        )


def _receipts(results: Path) -> Iterator[str]:
    """Yield receipts' paths from `results`, of enough blocks of each stage.

    They lie in the folders of a system's stages, or of its regions' stages. Trees of bricks have a
    million folders, none of which holds a receipt.
    """
    alike: dict[str, list[str]] = defaultdict(list)
    for folders in ("*/*", "*/*/*"):
        for found in sorted(results.glob(f"{folders}/{JOURNAL_FOLDER}/*{receipts.SUFFIX}")):
            path = found.relative_to(results).as_posix()
            alike[re.sub(r"-\d{5}\.", "-.", path)].append(path)
    for paths in alike.values():
        yield from paths[:: -(-len(paths) // _ENOUGH)]


def _receipt(results: Path, path: str) -> JobReceipt | None:
    with suppress(InputError):
        job = read_receipt(results, path)
        return job if job.stage.partition(".")[0] in systems() else None
    return None


class _Place:
    """Where a job belongs: system, stage, wildcards, and the name of its benchmark file."""

    def __init__(self, job: JobReceipt) -> None:
        self.system, _, self.stage = job.stage.partition(".")
        *regions, _, name = PurePosixPath(job.key).parts[1:]
        block = re.search(r"-(\d{5})\.json$", name)
        self.wildcards = {"block": block[1]} if block else {}
        self.wildcards |= {"region": regions[0]} if regions else {}
        end = f"-{block[1]}" if block else ""
        self.benchmark = PurePosixPath(self.system, *regions, f"{self.stage}{end}.tsv")


def _benchmark(path: Path) -> dict[str, float] | None:
    """Return seconds and memory [MB] of a benchmark file; None where it holds none."""
    with suppress(OSError, ValueError, KeyError, StopIteration), path.open(newline="") as lines:
        row = next(csv.DictReader(lines, delimiter="\t"))
        memory = row["max_rss"]
        return {"s": float(row["s"]), "max_rss": 0.0 if memory in ("-", "NA") else float(memory)}
    return None


def _sections(jobs: list[JobReceipt], config: Any) -> dict[str, dict[str, Any]]:
    """Return each system's section as the receipts tell it, over that of `config`."""
    found = {name: getattr(config, name).model_dump(mode="json") for name in systems()}
    for job in jobs:
        system, _, stage = job.stage.partition(".")
        found[system] = _own(found[system], job)
        # The stage that makes a system's data bears the name of their source.
        if stage in str(type(getattr(config, system)).model_fields.get("source", "")):
            found[system]["source"] = stage
    return found


def _own(section: Mapping[str, Any], job: JobReceipt) -> dict[str, Any]:
    """Return a section in which the options of this job's stage are those of its receipt."""
    stage = job.stage.partition(".")[2]
    fields = options_model(job.stage).model_fields
    said = {**job.receipt["options"], **job.receipt["run"]["grain"]}
    section = {**section, stage: dict(section[stage])}
    for name, value in said.items():
        home = home_of(fields[name]) if name in fields else "unknown"
        if home == "own":
            section[stage][name] = value
        elif home == "inherited" and name in section:
            section[name] = value
    return section


def _plan(system: str, section: Mapping[str, Any]) -> Any:
    """Return the system's plan of a section; None where there can be none (a file that is gone)."""
    return _planned(system, json.dumps(section, sort_keys=True))


@cache
def _planned(system: str, section: str) -> Any:
    model = importlib.import_module(f"skyproof.{system}.options").System
    with suppress(SkyproofError, ValueError):
        return plan_of(system, model.model_validate_json(section))
    return None


def _written(results: Path, job: JobReceipt) -> int:
    """Return the bytes of a job's products: its outputs, and the files that a record lists."""
    total = 0
    for path, made in job.outputs.items():
        record = None
        with suppress(InputError):
            record = item_sets.read(results / path) if path.endswith(".json") else None
        items = record["items"].values() if record else ()
        total += made["size"] + sum(file["size"] for item in items for file in item["files"])
    return total
