"""The tool `plan`: estimated time, memory and disk of a run, one line per stage."""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from skyproof.core.errors import UsageError
from skyproof.workflow.plan import forecast
from skyproof.workflow.plan.dryrun import DryRun, dry_run
from skyproof.workflow.plan.forecast import Estimate
from skyproof.workflow.plan.history import Rate, rates
from skyproof.workflow.slurm import sbatch_args

# Snakemake itself, for every job (measured: two nested processes on a node).
_SNAKEMAKE_CORE_SECONDS = 2.0
_MANY_JOBS = 10_000


@dataclass(frozen=True)
class Row:
    """One stage; sums over all its jobs unless stated otherwise."""

    rule: str
    jobs: int
    nodes: int  # of one job
    ranks: int  # of one job
    hours: float  # of its longest job
    core_hours: float
    gpu_hours: float
    memory_gb: float  # requested by a job per node, maximum
    seen_gb: float  # maximum of earlier jobs, at their size; 0: unknown
    disk_gb: float  # of its products
    chain_hours: float  # its share of the longest chain
    basis: str  # measured, estimate, limit
    disk_basis: str
    partition: str  # best partition for its jobs; empty without partitions


@dataclass(frozen=True)
class Forecast:
    """Estimated time, memory and disk of a run."""

    rows: list[Row]
    chain_hours: float  # the longest chain of jobs
    until_done_hours: float  # with `slots` jobs or cores at a time
    slots: int
    cluster: bool
    snakemake_core_hours: float
    warnings: list[str]


def plan(parser: argparse.ArgumentParser, words: list[str]) -> int:
    """Print the estimated time, memory and disk of a run."""
    parser.allow_abbrev = False
    parser.epilog = (
        "All other arguments are Snakemake's: --profile, --configfile, --config, --directory, -c, "
        "targets; --forceall also plans finished jobs."
    )
    parser.add_argument(
        "--rates",
        type=Path,
        metavar="FOLDER",
        help="folder of an earlier run with measured times [the run's]",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    given, rest = parser.parse_known_args(words)
    if given.rates is not None and not (given.rates / "logs/benchmarks").is_dir():
        raise UsageError(f"--rates {given.rates}: holds no logs/benchmarks of an earlier run")
    run = dry_run(rest)
    known = rates(given.rates or run.folder, run.config)
    made = make(run, known)
    print(json.dumps(asdict(made), indent=1) if given.json else "\n".join(lines(made)))
    return 0


def make(run: DryRun, known: Mapping[tuple[str, str], Rate]) -> Forecast:
    """Return the plan of a dry run; `known` are the rates of earlier jobs."""
    items = forecast.estimate(run, known)
    before = forecast.parents(items)
    chain = forecast.longest_chain(items, before)
    partitions = sbatch_args.partitions(run)
    on_chain: dict[str, float] = defaultdict(float)
    for number in chain:
        on_chain[items[number].job.rule] += items[number].hours
    stages: dict[str, list[Estimate]] = defaultdict(list)
    for number in forecast.in_order(before):
        stages[items[number].job.rule].append(items[number])
    cluster = run.executor != "local"
    return Forecast(
        rows=[
            _row(rule, stage, on_chain[rule], known, partitions) for rule, stage in stages.items()
        ],
        chain_hours=sum(on_chain.values()),
        until_done_hours=forecast.hours_until_done(items, before, run.slots, cluster),
        slots=run.slots,
        cluster=cluster,
        snakemake_core_hours=len(items) * _SNAKEMAKE_CORE_SECONDS / 3600,
        warnings=list(_warnings(stages, known, partitions)),
    )


def _row(
    rule: str,
    stage: Sequence[Estimate],
    chain: float,
    known: Mapping[tuple[str, str], Rate],
    partitions: list[Any],
) -> Row:
    jobs = [item.job for item in stage]
    best = {sbatch_args.best(partitions, job) or "none" for job in jobs} if partitions else set()
    return Row(
        rule=rule,
        jobs=len(jobs),
        nodes=max(job.nodes for job in jobs),
        ranks=max(job.tasks for job in jobs),
        hours=max(item.hours for item in stage),
        core_hours=sum(item.core_hours for item in stage),
        gpu_hours=sum(item.gpu_hours for item in stage),
        memory_gb=max(job.memory_mb for job in jobs) / 1e3,
        seen_gb=_seen_mb(stage, known) / 1e3,
        disk_gb=sum(item.megabytes for item in stage) / 1e3,
        chain_hours=chain,
        basis=stage[0].basis,
        disk_basis=stage[0].disk_basis,
        partition=",".join(sorted(best)),
    )


def _seen_mb(stage: Sequence[Estimate], known: Mapping[tuple[str, str], Rate]) -> float:
    """Return the maximum memory [MB] of earlier jobs of a stage; 0 if there were none."""
    return max(
        (rate.memory_mb for key, rate in known.items() if key[0] == stage[0].stage), default=0
    )


def _warnings(
    stages: Mapping[str, Sequence[Estimate]],
    known: Mapping[tuple[str, str], Rate],
    partitions: list[Any],
) -> Iterator[str]:
    for rule, stage in stages.items():
        worst = max(stage, key=lambda item: item.hours)
        limit = worst.job.limit_minutes / 60
        if limit and worst.hours > limit:
            yield (
                f"{rule}: {_time(worst.hours)} are estimated for a job whose first time limit is "
                f"{_time(limit)}: more ranks, smaller blocks, a GPU, or a longer runtime"
            )
        lost = next(
            (
                item.job
                for item in stage
                if partitions and not sbatch_args.best(partitions, item.job)
            ),
            None,
        )
        if lost is not None:
            yield (
                f"{rule}: fits no partition of partitions.yaml ({lost.limit_minutes:.0f} min, "
                f"{lost.memory_mb:.0f} MB and {lost.cores // lost.nodes} cores a node, "
                f"{lost.nodes} nodes, {lost.gpus} GPUs); SLURM's default partition would be tried"
            )
        took = _seen_mb(stage, known)
        asked = max(item.job.memory_mb * item.job.nodes for item in stage)
        if took > asked > 0:
            yield f"{rule}: an earlier job took {took:.0f} MB, {asked:.0f} MB are asked for"
    jobs = sum(map(len, stages.values()))
    if jobs > _MANY_JOBS:
        yield f"{jobs} jobs, each {_SNAKEMAKE_CORE_SECONDS:.0f} s of Snakemake: raise block_size"


_HEAD = (
    *("stage", "jobs", "nodes", "ranks", "a job", "core-h", "GPU-h"),
    *("GB/node", "seen", "disk GB", "chain", "basis"),
)


def lines(made: Forecast) -> list[str]:
    """Return a plan as lines of text."""
    if not made.rows:
        return ["Nothing to be done; --forceall plans all of it."]
    width = len(_HEAD) + any(row.partition for row in made.rows)
    table = [[*_HEAD, "partition"], *map(_cells, made.rows), _total(made)]
    what = "jobs" if made.cluster else "cores"
    return [
        *_table([row[:width] for row in table]),
        "",
        f"longest chain of jobs: {_time(made.chain_hours)}; with {made.slots} {what} at a time and "
        f"no queue, all is done after {_time(made.until_done_hours)}",
        f"Snakemake itself: {_number(made.snakemake_core_hours)} core-hours",
        "measured: by earlier jobs of that stage, scaled to this size; estimate: by the system's",
        "plan.py, for a usual server, right within a factor of a few; GB/node: what jobs ask for;",
        "seen: the most that an earlier job took, at its own size",
        *(f"warning: {text}" for text in made.warnings),
    ]


def _cells(row: Row) -> list[str]:
    return [
        row.rule,
        f"{row.jobs:,}",
        str(row.nodes),
        str(row.ranks),
        _time(row.hours),
        _number(row.core_hours),
        _number(row.gpu_hours),
        f"{row.memory_gb:.1f}",
        f"{row.seen_gb:.1f}" if row.seen_gb else "-",
        _number(row.disk_gb),
        _time(row.chain_hours) if row.chain_hours else "-",
        row.basis + (" (disk measured)" if row.disk_basis == "measured" != row.basis else ""),
        row.partition,
    ]


def _total(made: Forecast) -> list[str]:
    rows = made.rows
    return [
        "total",
        f"{sum(row.jobs for row in rows):,}",
        *("", "", ""),
        _number(sum(row.core_hours for row in rows)),
        _number(sum(row.gpu_hours for row in rows)),
        f"{max(row.memory_gb for row in rows):.1f}",
        "",
        _number(sum(row.disk_gb for row in rows)),
        _time(made.chain_hours),
        *("", ""),
    ]


def _table(cells: list[list[str]]) -> list[str]:
    """Return the lines of a table: words left-aligned, numbers right-aligned."""
    widths = [max(len(row[k]) for row in cells) for k in range(len(cells[0]))]
    texts = {0, *range(_HEAD.index("basis"), len(widths))}
    return [
        "  ".join(
            cell.ljust(width) if k in texts else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]


def _number(value: float) -> str:
    """Return a number with three digits, or all digits before the point."""
    return (
        f"{value:,.0f}"
        if value >= 100
        else f"{value:.3g}"
        if value >= 0.01
        else "<0.01"
        if value
        else "-"
    )


def _time(hours: float) -> str:
    if hours >= 1:
        return f"{_number(hours)} h"
    return f"{hours * 60:.1f} min" if hours * 60 >= 1 else f"{hours * 3600:.0f} s"
