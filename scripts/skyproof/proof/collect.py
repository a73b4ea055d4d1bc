"""Collects the manifest of a run from the receipts and records of its jobs, and checks it."""

from __future__ import annotations

import hashlib
import heapq
import json
import os
import posixpath
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import skyproof
from skyproof.core import receipts, records
from skyproof.core.errors import InputError
from skyproof.proof import manifest, tree

_AGAIN = "run it again (snakemake --forcerun), or restore the file"


@dataclass(frozen=True)
class Job:
    """A receipt whose paths count from the folder of results."""

    key: str  # the first output
    receipt: dict[str, Any]
    inputs: dict[str, dict[str, Any]]
    external: list[dict[str, Any]]
    outputs: dict[str, dict[str, Any]]

    @property
    def stage(self) -> str:
        return self.receipt["stage"]


def collect(
    folder: Path, wanted: Sequence[Path], workers: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the content of the manifest and of the provenance of a run.

    `wanted` are the run's final products: the manifest holds what they were made from, through all
    jobs; files that earlier configurations left are none of it. Without any, all jobs count.
    Raises InputError for a product without a receipt, one that is not what its receipt or record
    says, and for jobs of a stage that disagree about code or options.
    """
    makers = _jobs_by_output(folder)
    if not makers:
        raise InputError(folder, "holds no receipt of a job", expected="results of skyproof stages")
    names = [_below(folder, path) for path in wanted] or sorted(makers)
    jobs = _in_graph_order(folder, makers, names)
    _check_inputs(jobs)
    entries = [
        {"job": number, "stage": job.stage, **entry}
        for number, job in enumerate(jobs)
        for entry in _files_of(folder, job)
    ]
    entries.sort(key=lambda entry: entry["path"].encode())
    _check_files(folder, entries, workers)
    content = {
        "stages": _stages(jobs),
        "libraries": _libraries(jobs),
        "locks": _locks(),
        "jobs": [_job(job) for job in jobs],
        "files": entries,
    }
    tolerant = manifest.tolerant_jobs(content)
    for entry in entries:
        of_class = "tolerance" if entry["job"] in tolerant else "bytes"
        entry["class"] = of_class
        if of_class == "tolerance":
            entry |= manifest.allowance(entry["path"])
    return content, _provenance(jobs)


def _jobs_by_output(folder: Path) -> dict[str, Job]:
    """Map each output to the job that made it last."""
    found: dict[str, Job] = {}
    for path in tree.journals(folder, receipts.SUFFIX):
        job = read_receipt(folder, path)
        for output in job.outputs:
            other = found.get(output)
            if other is None or other.receipt["run"]["ended"] < job.receipt["run"]["ended"]:
                found[output] = job
    return found


def read_receipt(folder: Path, path: str) -> Job:
    """Read a receipt; its paths count from the folder of its first output."""
    home = posixpath.dirname(posixpath.dirname(path))
    try:
        receipt = json.loads((folder / path).read_text(encoding="utf-8"))
        if receipt["format"] != receipts.FORMAT:
            raise ValueError(receipt["format"])
        inputs, external = {}, []
        for given in receipt["inputs"]:
            place = posixpath.normpath(posixpath.join(home, given["path"]))
            if place.startswith("../") or given.get("folder"):
                external.append({**given, "path": posixpath.basename(place)})
            else:
                inputs[place] = given
        outputs = {
            posixpath.normpath(posixpath.join(home, made["path"])): made
            for made in receipt["outputs"]
        }
        return Job(next(iter(outputs)), receipt, inputs, external, outputs)
    except (ValueError, KeyError, TypeError, StopIteration):
        raise InputError(folder / path, "is not a whole receipt of a job") from None


def _below(folder: Path, path: Path) -> str:
    relative = Path(os.path.relpath(path.absolute(), folder.absolute())).as_posix()
    if relative.startswith("../"):
        raise InputError(path, f"is not below {folder}")
    return relative


def _in_graph_order(folder: Path, makers: Mapping[str, Job], names: Sequence[str]) -> list[Job]:
    """Return the jobs behind the named products, each after those whose products it read."""
    parents: dict[str, set[str]] = {}
    jobs: dict[str, Job] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in makers:
            raise InputError(
                folder / name, "has no receipt of the job that made it", expected=_AGAIN
            )
        job = makers[name]
        if job.key not in jobs:
            jobs[job.key] = job
            read = [path for path in job.inputs if path in makers]
            parents[job.key] = {makers[path].key for path in read} - {job.key}
            waiting += read
    return [jobs[key] for key in _topological(parents)]


def _topological(parents: Mapping[str, set[str]]) -> Iterator[str]:
    """Yield the keys in graph order; of those that are ready, the first by name."""
    children: dict[str, list[str]] = {}
    missing = {key: len(before) for key, before in parents.items()}
    for key, before in parents.items():
        for parent in before:
            children.setdefault(parent, []).append(key)
    ready = [key for key, count in missing.items() if not count]
    heapq.heapify(ready)
    done = 0
    while ready:
        key = heapq.heappop(ready)
        yield key
        done += 1
        for child in children.get(key, []):
            missing[child] -= 1
            if not missing[child]:
                heapq.heappush(ready, child)
    if done < len(parents):
        stuck = min(key for key, count in missing.items() if count)
        raise InputError(stuck, "was made from itself, say the receipts")


def _files_of(folder: Path, job: Job) -> Iterator[dict[str, Any]]:
    for path, made in job.outputs.items():
        yield {"path": path, **_known(made)}
        if path.endswith(".json"):
            yield from _files_of_record(folder, path)


def _files_of_record(folder: Path, path: str) -> Iterator[dict[str, Any]]:
    try:
        content = json.loads((folder / path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return  # missing or damaged: the check of the files names it
    if not isinstance(content, dict) or content.get("format") != records.FORMAT:
        return
    home = posixpath.dirname(path)
    for item in content["items"].values():
        for made in item["files"]:
            yield {"path": posixpath.normpath(posixpath.join(home, made["path"])), **_known(made)}


def _known(made: Mapping[str, Any]) -> dict[str, Any]:
    return {key: made[key] for key in ("size", "sha256", "content") if key in made}


def _check_inputs(jobs: Sequence[Job]) -> None:
    """Refuse a job that read something else than the run now holds (InputError)."""
    made = {path: entry["sha256"] for job in jobs for path, entry in job.outputs.items()}
    for job in jobs:
        for path, given in job.inputs.items():
            if path in made and given.get("sha256", made[path]) != made[path]:
                raise InputError(
                    path,
                    f"was another file when {job.stage} made {job.key} from it",
                    expected=f"the same content; {_AGAIN}",
                )


def _check_files(folder: Path, entries: Sequence[Mapping[str, Any]], workers: int) -> None:
    """Refuse products that are not what was written (InputError that names the first)."""
    bad = []
    sound = []
    for before, entry in zip([None, *entries], entries, strict=False):
        path = entry["path"]
        if before is not None and before["path"] == path:
            bad.append((path, f"was made by {before['stage']} and by {entry['stage']}"))
        elif "\n" in path or "\\" in path:
            bad.append((path, "has a name that sha256sum would have to quote"))
        elif (folder / path).is_symlink() or not (folder / path).is_file():
            bad.append((path, f"is missing; {entry['stage']} wrote it"))
        elif (folder / path).stat().st_size != entry["size"]:
            bad.append((path, f"has not the size with which {entry['stage']} wrote it"))
        else:
            sound.append(entry)
    found = tree.hashes(folder, [entry["path"] for entry in sound], workers)
    for entry, (path, digest) in zip(sound, found, strict=True):
        if digest != entry["sha256"]:
            bad.append((path, f"is not what {entry['stage']} wrote (another SHA-256)"))
    if bad:
        more = f" (and {len(bad) - 1} more files)" if len(bad) > 1 else ""
        raise InputError(folder / bad[0][0], bad[0][1] + more, expected=_AGAIN)


def _stages(jobs: Sequence[Job]) -> dict[str, Any]:
    """Return code, options and numerics a stage; its jobs must agree (InputError)."""
    found: dict[str, tuple[dict[str, Any], Job]] = {}
    for job in jobs:
        facts = {key: job.receipt[key] for key in ("code", "options", "numerics", "device")}
        first, other = found.setdefault(job.stage, (facts, job))
        for key, value in facts.items():
            if value != first[key]:
                raise InputError(
                    job.key,
                    f"was made by {job.stage} with other {key} than {other.key}",
                    expected=f"one run; {_AGAIN}",
                )
    return {stage: facts for stage, (facts, _) in found.items()}


def _libraries(jobs: Sequence[Job]) -> dict[str, str]:
    """Return the version of each library; several, where jobs ran with several."""
    versions: dict[str, set[str]] = {}
    for job in jobs:
        for name, version in job.receipt["libraries"].items():
            versions.setdefault(name, set()).add(version)
    return {name: ", ".join(sorted(found)) for name, found in versions.items()}


def _job(job: Job) -> dict[str, Any]:
    return {
        "stage": job.stage,
        "options": job.receipt["job_options"],
        "inputs": sorted(job.inputs),
        "external": sorted(job.external, key=lambda given: (given["name"], given["path"])),
        "outputs": sorted(job.outputs),
        **({"notes": notes} if (notes := job.receipt.get("notes")) else {}),
    }


def checkout() -> Path:
    """Return the checkout that this package is part of."""
    return Path(skyproof.__file__).parents[2]


def _locks() -> dict[str, str]:
    """Return the digests of the locks that say what an environment must hold."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((checkout() / "envs").glob("*.lock.txt"))
        if path.name in ("all.lock.txt", "torch.lock.txt")
    }


def _provenance(jobs: Sequence[Job]) -> dict[str, Any]:
    """Return when, where and how each job ran: never part of the root."""
    return {
        "workflow": os.environ.get("SKYPROOF_WORKFLOW"),
        "git": _git(),
        "jobs": [{"stage": job.stage, "output": job.key, **job.receipt["run"]} for job in jobs],
    }


def _git() -> str | None:
    command = ["git", "-C", str(checkout()), "describe", "--always", "--dirty", "--abbrev=40"]
    with suppress(OSError, subprocess.TimeoutExpired):
        result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        if result.returncode == 0:
            return result.stdout.strip()
    return None
