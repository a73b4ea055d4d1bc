"""Compare a folder of results with a manifest: the set of files, their sizes, their SHA-256."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from skyproof.core.errors import InputError
from skyproof.proof import inventory, item_sets, jobs
from skyproof.proof.forms import ItemForm
from skyproof.proof.manifest import Manifest, is_beside


@dataclass(frozen=True)
class CheckResult:
    """Result of comparing a folder with its manifest."""

    altered: dict[str, str]  # path, item set or block index -> problem
    extra: dict[str, str]  # path not in the manifest -> problem
    indices: list[str]  # block indexes that agree with the manifest
    left_over: list[str]  # products of earlier configurations, unaltered
    unfinished: list[str]  # temporary files that a killed process left behind
    hashes: dict[str, str]  # path -> SHA-256 of the present file
    n_bytes: int  # total size of the files of the manifest


def check(folder: Path, manifest: Manifest, workers: int) -> CheckResult:
    """Compare every file. Symbolic links are not followed and are not products.

    `workers` is the number of files hashed at once.
    """
    present = dict(inventory.products(folder))
    altered: dict[str, str] = {}
    regular: list[str] = []
    lower = {path.lower(): path for path in present}
    for path in sorted(manifest.files):
        if path not in present:
            altered[path] = "is missing" + _other_case(lower.get(path.lower()))
        elif not present[path]:
            altered[path] = "is a symbolic link or a special file"
        else:
            regular.append(path)
    found = dict(inventory.hashes(folder, regular, workers))
    n_bytes = 0
    for path in regular:
        entry, size = manifest.files[path], (folder / path).stat().st_size
        n_bytes += size
        if size != entry["size"]:
            altered[path] = f"has {size} bytes, in the manifest {entry['size']}"
        elif found[path] != entry["sha256"]:
            altered[path] = "has another SHA-256 than in the manifest"
    others = [p for p in present if p not in manifest.files and not is_beside(p)]
    unfinished = [path for path in others if inventory.is_unfinished(path)]
    indices, wrong = item_sets.check(
        folder, [p for p in others if present[p]], manifest.item_sets, manifest.files
    )
    others = [path for path in others if path not in indices]
    left_over = _left_over(folder, [p for p in others if present[p]], workers)
    altered |= {path: problem for path, problem in wrong.items() if path not in left_over}
    extra = {
        path: "is not in the manifest" if present[path] else "is a symbolic link or a special file"
        for path in others
        if path not in left_over and path not in unfinished and path not in altered
    }
    return CheckResult(altered, extra, indices, sorted(left_over), unfinished, found, n_bytes)


def _other_case(other: str | None) -> str:
    return f"; {other} is there, whose name differs in upper and lower case only" if other else ""


def _left_over(folder: Path, paths: Sequence[str], workers: int) -> set[str]:
    """Return those of `paths` that an earlier run made, by the receipts and resume logs.

    Such files remain after a run with a smaller or another configuration.
    """
    if not paths:
        return set()
    known = _ever_made(folder)
    return {
        p for p, digest in inventory.hashes(folder, paths, workers) if digest in known.get(p, ())
    }


def _ever_made(folder: Path) -> dict[str, set[str]]:
    """Map each path in receipts and resume logs to the SHA-256 of its versions."""
    made: dict[str, set[str]] = {}
    with suppress(OSError):
        for path in inventory.receipts(folder):
            with suppress(InputError):  # a damaged receipt is no evidence
                for output, entry in jobs.read_receipt(folder, path).outputs.items():
                    made.setdefault(output, set()).add(entry["sha256"])
        for path in inventory.resume_logs(folder):
            home = Path(path).parents[2]
            with suppress(ValueError):
                content = json.loads((folder / path).read_text(encoding="utf-8"))
                ItemForm.check(content)
                for entry in content["files"]:
                    made.setdefault((home / entry["path"]).as_posix(), set()).add(entry["sha256"])
    return made
