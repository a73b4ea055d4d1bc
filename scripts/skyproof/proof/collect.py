"""Collect the manifest of a run from the receipts and block indexes of its jobs, and check it."""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import skyproof
from skyproof.core.errors import InputError
from skyproof.proof import inventory, item_sets, jobs, manifest
from skyproof.proof.jobs import AGAIN, JobReceipt, Run


def collect(
    folder: Path, wanted: Sequence[Path], workers: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the contents of manifest.json and of provenance.json of a run.

    `wanted` are the final products of the run. The manifest holds them and all products from
    which they were made, but no files of earlier configurations. If `wanted` is empty, it holds the
    products of all jobs.
    `workers` files are hashed at once. Raises InputError for a product without a receipt, for one
    that differs from its receipt or block index, and for jobs of a stage that differ in code or
    options.
    """
    run = jobs.find(folder, wanted)
    _check_inputs(run.jobs)
    files, sets = _products(run)
    _check_files(folder, files, workers)
    entries = [entry for entry in files if entry["path"] not in run.item_set_of]
    content = {
        "stages": _stages(run.jobs),
        "libraries": _libraries(run.jobs),
        "locks": _locks(),
        "steps": [_step(run, step) for step in run.steps],
        "trees": sets,
        "files": entries,
    }
    tolerant = manifest.Manifest(content, "").tolerant_steps
    for entry in entries:
        entry["class"] = "tolerance" if entry["step"] in tolerant else "bytes"
        if entry["class"] == "tolerance":
            entry |= manifest.allowance(entry["path"])
    return content, _provenance(run)


def _products(run: Run) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the entries of all files (also block indexes), sorted by path, and the item sets."""
    files: list[dict[str, Any]] = []
    sets: dict[str, Any] = {}
    for number, step in enumerate(run.steps):
        for job in step:
            for path, made in job.outputs.items():
                files.append(_entry(number, job, path, made))
                if path in run.item_set_of:
                    files += _items(run, number, job, path, sets)
    files.sort(key=lambda entry: entry["path"].encode())
    return files, sets


def _entry(step: int, job: JobReceipt, path: str, made: Mapping[str, Any]) -> dict[str, Any]:
    known = {key: made[key] for key in item_sets.KNOWN if key in made}
    return {"step": step, "stage": job.stage, "path": path, **known}


def _items(
    run: Run, step: int, job: JobReceipt, index: str, sets: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """Yield the entries of the files in a block index, and add its items to their item set."""
    content = item_sets.read(run.folder / index) or {"items": {}}
    blank = {"folder": posixpath.dirname(index), "stage": job.stage, "items": {}}
    items = sets.setdefault(run.item_set_of[index], blank)["items"]
    for item, entry in content["items"].items():
        if item in items:
            raise InputError(
                index, "was made by another job too", record=item,
                expected=f"each item of {run.item_set_of[index]} once",
            )  # fmt: skip
        items[item] = item_sets.item_digest(entry)
        for path, known in item_sets.files_of(index, entry):
            yield _entry(step, job, path, known)


def _check_inputs(all_jobs: Sequence[JobReceipt]) -> None:
    """Raise InputError for a job whose input was written again after the job had read it."""
    made = {path: entry["sha256"] for job in all_jobs for path, entry in job.outputs.items()}
    for job in all_jobs:
        for path, given in job.inputs.items():
            if path in made and given.get("sha256", made[path]) != made[path]:
                raise InputError(
                    path,
                    f"was another file when {job.stage} made {job.key} from it",
                    expected=f"the same content; {AGAIN}",
                )


def _check_files(folder: Path, entries: Sequence[Mapping[str, Any]], workers: int) -> None:
    """Raise InputError, with the first path, for products that differ from what was written."""
    bad = []
    present = []
    for before, entry in zip([None, *entries], entries, strict=False):
        path = entry["path"]
        if before is not None and before["path"] == path:
            bad.append((path, f"was made by {before['stage']} and by {entry['stage']}"))
        elif "\n" in path or "\\" in path:
            bad.append((path, "has a name that sha256sum would quote"))
        elif (folder / path).is_symlink() or not (folder / path).is_file():
            bad.append((path, f"is missing; {entry['stage']} wrote it"))
        elif (folder / path).stat().st_size != entry["size"]:
            bad.append((path, f"has another size than when {entry['stage']} wrote it"))
        else:
            present.append(entry)
    found = inventory.hashes(folder, [entry["path"] for entry in present], workers)
    for entry, (path, digest) in zip(present, found, strict=True):
        if digest != entry["sha256"]:
            bad.append((path, f"is not what {entry['stage']} wrote (another SHA-256)"))
    if bad:
        more = f" (and {len(bad) - 1} more files)" if len(bad) > 1 else ""
        raise InputError(folder / bad[0][0], bad[0][1] + more, expected=AGAIN)


def _stages(all_jobs: Sequence[JobReceipt]) -> dict[str, Any]:
    """Return code, options, numerics and device of each stage (InputError if its jobs differ)."""
    found: dict[str, tuple[dict[str, Any], JobReceipt]] = {}
    for job in all_jobs:
        facts = {key: job.receipt[key] for key in ("code", "options", "numerics", "device")}
        first, other = found.setdefault(job.stage, (facts, job))
        for key, value in facts.items():
            if value != first[key]:
                raise InputError(
                    job.key,
                    f"was made by {job.stage} with other {key} than {other.key}",
                    expected=f"one run; {AGAIN}",
                )
    return {stage: facts for stage, (facts, _) in found.items()}


def _libraries(all_jobs: Sequence[JobReceipt]) -> dict[str, str]:
    """Return the version of each library; where jobs differ, all versions, sorted."""
    versions: dict[str, set[str]] = {}
    for job in all_jobs:
        for name, version in job.receipt["libraries"].items():
            versions.setdefault(name, set()).add(version)
    return {name: ", ".join(sorted(found)) for name, found in versions.items()}


def _notes(step: Sequence[JobReceipt]) -> dict[str, Any]:
    """Return the notes of the jobs of a step; "mixed" where they differ."""
    notes: dict[str, Any] = {}
    for job in step:
        for name, value in job.receipt.get("notes", {}).items():
            notes[name] = value if notes.get(name, value) == value else "mixed"
    return notes


def _step(run: Run, step: Sequence[JobReceipt]) -> dict[str, Any]:
    external = {json.dumps(given, sort_keys=True): given for job in step for given in job.external}
    return {
        "stage": step[0].stage,
        "options": step[0].receipt["job_options"],
        "inputs": run.named(path for job in step for path in job.inputs),
        "external": sorted(external.values(), key=lambda given: (given["name"], given["path"])),
        "outputs": run.named(path for job in step for path in job.outputs),
        **({"notes": notes} if (notes := _notes(step)) else {}),
    }


def checkout() -> Path:
    """Return the root of the checkout that holds this package."""
    return Path(skyproof.__file__).parents[2]


def _locks() -> dict[str, str]:
    """Return the SHA-256 of the locks of the common environment."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((checkout() / "envs").glob("*.lock.txt"))
        if path.name in ("all.lock.txt", "torch.lock.txt")
    }


def _provenance(run: Run) -> dict[str, Any]:
    """Return when, where and how each job ran, and which block it made (not part of the root)."""
    return {
        "workflow": os.environ.get("SKYPROOF_WORKFLOW"),
        "git": _git(),
        "jobs": [
            {
                "stage": job.stage,
                "options": job.receipt["job_options"],
                "inputs": sorted(job.inputs),
                "external": job.external,
                "outputs": {path: made["sha256"] for path, made in job.outputs.items()},
                **job.receipt["run"],
            }
            for step in run.steps
            for job in step
        ],
    }


def _git() -> str | None:
    command = ["git", "-C", str(checkout()), "describe", "--always", "--dirty", "--abbrev=40"]
    with suppress(OSError, subprocess.TimeoutExpired):
        result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        if result.returncode == 0:
            return result.stdout.strip()
    return None
