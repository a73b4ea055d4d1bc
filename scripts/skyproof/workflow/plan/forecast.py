"""Estimated hours and disk of the jobs of a dry run, their longest chain and total time."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import Any, Literal

from skyproof.workflow.plan.dryrun import DryRun, PlannedJob
from skyproof.workflow.plan.history import Rate
from skyproof.workflow.plan.systems import hashing_hours, plan_of, stages_by_rule

Basis = Literal["measured", "estimate", "limit"]


@dataclass(frozen=True)
class Estimate:
    """Estimated time and size of the products of a job."""

    job: PlannedJob
    stage: str  # 'system.stage', or the name of a rule without a stage
    hours: float
    megabytes: float
    basis: Basis  # source of the hours: earlier jobs, the system's estimate, or the time limit
    disk_basis: Basis

    @property
    def core_hours(self) -> float:
        return self.hours * self.job.cores

    @property
    def gpu_hours(self) -> float:
        return self.hours * self.job.gpus


def estimate(run: DryRun, rates: Mapping[tuple[str, str], Rate]) -> list[Estimate]:
    """Return an estimate for each job of a dry run, in its order."""
    plans = {name: plan_of(name, getattr(run.config, name)) for name in run.config.systems}
    found = [_one(job, plans, rates) for job in run.jobs if job.benchmark or job.outputs]
    total = sum(item.megabytes for item in found)
    return [_manifest(item, total) if item.stage == "manifest" else item for item in found]


def _one(
    job: PlannedJob, plans: Mapping[str, Any], rates: Mapping[tuple[str, str], Rate]
) -> Estimate:
    system, name = stages_by_rule().get(job.rule, ("", ""))
    plan = plans.get(system)
    if plan is None:
        return Estimate(job, job.rule, job.limit_minutes / 60, 0, "limit", "limit")
    cost = plan.cost(name, job.wildcards)
    device = str(job.resources.get("device", "cpu"))
    stage = f"{system}.{name}"
    rate = rates.get((stage, device), Rate())
    disk = rate if rate.disk_known else rates.get((stage, "cpu"), Rate())
    hours = cost.hours(job.cores, gpu=device == "cuda", factor=rate.seconds)
    basis: Basis = "measured" if rate.jobs else "estimate"
    disk_basis: Basis = "measured" if disk.disk_known else "estimate"
    return Estimate(job, stage, hours, cost.megabytes * disk.disk, basis, disk_basis)


def _manifest(item: Estimate, megabytes: float) -> Estimate:
    """Return the estimate of the collection of checksums, which reads all products again."""
    hours = hashing_hours(megabytes, item.job.threads)
    return Estimate(item.job, item.stage, hours, 0.001, "estimate", "estimate")


def parents(items: Sequence[Estimate]) -> list[list[int]]:
    """Return for each job the numbers of the jobs whose outputs it reads."""
    makers = {path: number for number, item in enumerate(items) for path in item.job.outputs}
    return [sorted({makers[path] for path in item.job.inputs if path in makers}) for item in items]


def longest_chain(items: Sequence[Estimate], before: Sequence[Sequence[int]]) -> list[int]:
    """Return the chain of dependent jobs with the longest total time, first to last."""
    end = [0.0] * len(items)
    last: list[int | None] = [None] * len(items)
    for number in in_order(before):
        if before[number]:
            last[number] = latest = max(before[number], key=lambda parent: end[parent])
            end[number] = end[latest]
        end[number] += items[number].hours
    chain: list[int] = []
    at = max(range(len(items)), key=lambda number: end[number], default=None)
    while at is not None:
        chain.append(at)
        at = last[at]
    return chain[::-1]


def in_order(before: Sequence[Sequence[int]]) -> list[int]:
    """Return the job numbers in topological order.

    Jobs without predecessors come first, in increasing order; the others follow in the order in
    which they become ready.
    """
    return list(_sorter(before).static_order())


def hours_until_done(
    items: Sequence[Estimate], before: Sequence[Sequence[int]], slots: int, cluster: bool
) -> float:
    """Return the time [h] at which the last job ends if each starts as early as possible.

    On a cluster, `slots` jobs run at a time and none waits in the queue. On one machine, the
    running jobs share `slots` cores.
    """
    sorter = _sorter(before)
    sorter.prepare()
    size = [1 if cluster else min(item.job.cores, slots) for item in items]
    ready = list(sorter.get_ready())
    heapq.heapify(ready)
    running: list[tuple[float, int]] = []
    now, free = 0.0, slots
    while ready or running:
        waiting = []
        while ready and free > 0:
            number = heapq.heappop(ready)
            if size[number] <= free:
                free -= size[number]
                heapq.heappush(running, (now + items[number].hours, number))
            else:
                waiting.append(number)
        for number in waiting:
            heapq.heappush(ready, number)
        now, done = heapq.heappop(running)
        free += size[done]
        sorter.done(done)
        for child in sorter.get_ready():
            heapq.heappush(ready, child)
    return now


def _sorter(before: Sequence[Sequence[int]]) -> TopologicalSorter[int]:
    """Return the graph of the jobs, added in increasing order."""
    sorter: TopologicalSorter[int] = TopologicalSorter(dict.fromkeys(range(len(before)), ()))
    for number, found in enumerate(before):
        sorter.add(number, *found)
    return sorter
