"""The jobs of a run by their receipts, and the steps of the run."""

from __future__ import annotations

import heapq
import json
import os
import posixpath
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from skyproof.core import receipts
from skyproof.core.errors import InputError
from skyproof.proof import inventory, item_sets
from skyproof.proof.forms import ReceiptForm

AGAIN = "run it again (snakemake --forcerun), or restore the file"


@dataclass(frozen=True)
class JobReceipt:
    """The receipt of a job; its paths are relative to the folder of results."""

    key: str  # the first output
    receipt: dict[str, Any]
    inputs: dict[str, dict[str, Any]]
    external: list[dict[str, Any]]
    outputs: dict[str, dict[str, Any]]

    @property
    def stage(self) -> str:
        return self.receipt["stage"]


@dataclass(frozen=True)
class Run:
    """The jobs that lead to the final products, and the block indexes among their outputs."""

    folder: Path
    jobs: list[JobReceipt]

    @cached_property
    def item_set_of(self) -> dict[str, str]:
        """Map the path of each block index to the name of its item set."""
        return {
            path: item_sets.name_of(posixpath.dirname(path), job.stage)
            for job in self.jobs
            for path in job.outputs
            if path.endswith(".json") and item_sets.read(self.folder / path) is not None
        }

    def named(self, paths: Iterable[str]) -> list[str]:
        """Return paths as a manifest names them: an item set instead of its block indexes."""
        return sorted({self.item_set_of.get(path, path) for path in paths})

    @cached_property
    def steps(self) -> list[list[JobReceipt]]:
        """The jobs grouped into steps, each step after those whose products it read.

        Jobs that write only block indexes of one item set, with the same options, are one step.
        """
        steps: dict[str, list[JobReceipt]] = {}
        for job in sorted(self.jobs, key=lambda job: job.key):
            steps.setdefault(self._step_key(job), []).append(job)
        makers: dict[str, set[str]] = {}
        for key, jobs in steps.items():
            for name in self.named(path for job in jobs for path in job.outputs):
                makers.setdefault(name, set()).add(key)
        parents = {
            key: {
                maker
                for name in self.named(path for job in jobs for path in job.inputs)
                for maker in makers.get(name, ())
            }
            - {key}
            for key, jobs in steps.items()
        }
        return [steps[key] for key in _topological(parents)]

    def _step_key(self, job: JobReceipt) -> str:
        if not job.outputs.keys() <= self.item_set_of.keys():
            return job.key
        return json.dumps([self.named(job.outputs), job.receipt["job_options"]], sort_keys=True)


def find(folder: Path, wanted: Iterable[Path]) -> Run:
    """Return the jobs that lead to the final products `wanted`; all jobs if none are given.

    Raises InputError for a folder without receipts, and for a product without a receipt.
    """
    makers = _jobs_by_output(folder)
    if not makers:
        raise InputError(folder, "holds no receipt of a job", expected="results of skyproof stages")
    names = [_below(folder, path) for path in wanted] or sorted(makers)
    return Run(folder, _jobs_behind(folder, makers, names))


def _jobs_by_output(folder: Path) -> dict[str, JobReceipt]:
    """Map each output to the last job that wrote it."""
    found: dict[str, JobReceipt] = {}
    for path in inventory.receipts(folder):
        job = read_receipt(folder, path)
        for output in job.outputs:
            other = found.get(output)
            if other is None or other.receipt["run"]["ended"] < job.receipt["run"]["ended"]:
                found[output] = job
    return found


def read_receipt(folder: Path, path: str) -> JobReceipt:
    """Read a receipt and make its paths relative to `folder` (InputError).

    In the file, they are relative to the folder of the first output.
    """
    home = posixpath.dirname(posixpath.dirname(path))
    try:
        receipt = json.loads((folder / path).read_text(encoding="utf-8"))
        ReceiptForm.check(receipt, receipts.FORMAT)
    except ValueError as error:
        raise InputError(folder / path, f"is not a valid receipt of a job: {error}") from None
    inputs, external = {}, []
    for given in receipt["inputs"]:
        place = posixpath.normpath(posixpath.join(home, given["path"]))
        if place.startswith("../") or given.get("folder"):
            external.append({**given, "path": posixpath.basename(place)})
        else:
            inputs[place] = given
    outputs = {
        posixpath.normpath(posixpath.join(home, made["path"])): made for made in receipt["outputs"]
    }
    return JobReceipt(next(iter(outputs)), receipt, inputs, external, outputs)


def _below(folder: Path, path: Path) -> str:
    relative = Path(os.path.relpath(path.absolute(), folder.absolute())).as_posix()
    if relative.startswith("../"):
        raise InputError(path, f"is not below {folder}")
    return relative


def _jobs_behind(
    folder: Path, makers: Mapping[str, JobReceipt], names: Iterable[str]
) -> list[JobReceipt]:
    """Return the named products' jobs and all jobs before them (InputError if one is unknown)."""
    jobs: dict[str, JobReceipt] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in makers:
            raise InputError(
                folder / name, "has no receipt of the job that made it", expected=AGAIN
            )
        job = makers[name]
        if job.key not in jobs:
            jobs[job.key] = job
            waiting += [path for path in job.inputs if path in makers]
    return list(jobs.values())


def _topological(parents: Mapping[str, set[str]]) -> Iterator[str]:
    """Yield the keys in topological order; of the keys that are ready, the first by name.

    Raises InputError if there is a cycle.
    """
    sorter = TopologicalSorter({key: sorted(parents[key]) for key in sorted(parents)})
    try:
        sorter.prepare()
    except CycleError as error:
        raise InputError(
            min(error.args[1]), "was made from itself, according to the receipts"
        ) from None
    ready: list[str] = []
    while sorter.is_active():
        for key in sorter.get_ready():
            heapq.heappush(ready, key)
        key = heapq.heappop(ready)
        yield key
        sorter.done(key)
