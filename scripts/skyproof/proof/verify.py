"""Verify a folder of results by its manifest, and compare it with a reference."""

from __future__ import annotations

import os
from collections.abc import Set
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from skyproof.core.atomic import sha256_of
from skyproof.core.formats.contents import content_digest
from skyproof.proof import check, inventory, item_sets
from skyproof.proof.compare import compare, compare_elements
from skyproof.proof.difference import Difference, Tolerance
from skyproof.proof.manifest import (
    MANIFEST,
    ROOT,
    CannotVerify,
    Manifest,
    inconsistencies,
    read,
    root_problems,
    tolerance_of,
)
from skyproof.proof.publish import sign
from skyproof.proof.report import (
    CANNOT,
    DETAILED,
    MISMATCH,
    WITHIN,
    ProductResult,
    Report,
    notes_on,
    sort_out,
)


@dataclass(frozen=True)
class Reference:
    """What a run is compared with: a manifest and the folder of its files, None if absent."""

    manifest: Manifest
    folder: Path | None

    @staticmethod
    def at(path: Path) -> Reference:
        """Read a folder of results, or a manifest.json (CannotVerify if its root.txt differs).

        A manifest.json may be alone; a folder of results must have its root.txt.
        """
        manifest = read(path)
        folder = path if path.is_dir() else path.parent
        whole = path.is_dir() or path.name == MANIFEST
        if path.is_dir() or (whole and os.path.lexists(folder / ROOT)):
            for problem in root_problems(manifest, folder):
                raise CannotVerify(f"the reference {folder}: {problem}")
        first = next(iter(manifest.files), None)
        has_files = whole and first is not None and (folder / first).is_file()
        return Reference(manifest, folder if has_files else None)

    def file(self, path: str) -> Path | None:
        """Return the reference's copy of a file, None without one (CannotVerify if altered)."""
        if self.folder is None or path not in self.manifest.files:
            return None
        copy = self.folder / path
        if not copy.is_file() or sha256_of(copy) != self.manifest.files[path]["sha256"]:
            raise CannotVerify(f"{copy}: the reference differs from its own manifest")
        return copy

    def recorded(self, name: str) -> dict[str, Any] | None:
        """Return the facts of the items of an item set, by the reference (CannotVerify)."""
        if self.folder is None:
            return None
        held = self.manifest.item_sets[name]
        found = item_sets.recorded(self.folder, held)
        if found.keys() != held["items"].keys():
            raise CannotVerify(f"{self.folder}: the reference's block indexes lack items of {name}")
        return found


def verify(
    folder: Path,
    against: Path | None = None,
    *,
    strict: bool = False,
    root: str | None = None,
    public_key: Path | None = None,
    workers: int | None = None,
) -> Report:
    """Verify a folder by its manifest and, with `against`, compare it with another run.

    `root` is a published root digest, `public_key` the key of its signer (PEM), `workers` the
    number of files hashed at once (default: one per processor). The report's code is 0 identical,
    1 mismatch, 2 equal within tolerance only (1 with `strict`), 3 cannot be verified. Raises
    CannotVerify where there is no valid manifest.
    """
    manifest = read(folder)
    forged = _published(folder, manifest, root, public_key) + inconsistencies(manifest, folder)
    found = check.check(folder, manifest, workers or inventory.cores())
    results = {path: ProductResult(path, what, MISMATCH) for path, what in found.altered.items()}
    reference = Reference.at(against) if against is not None else None
    if reference is not None:
        results |= _against(folder, manifest, found, reference)
    causes, downstream = sort_out(
        list(results.values()), manifest, reference.manifest if reference else None
    )
    causes = [
        _detailed(folder, result, manifest, reference) if number < DETAILED else result
        for number, result in enumerate(causes)
    ]
    notes = notes_on(manifest, reference.manifest) if reference else []
    if causes and (reference is None or reference.folder is None):
        notes.append("without a reference copy (--against FOLDER) only digests can be compared")
    outcomes = list(results.values())
    return Report(
        folder, manifest, against, strict, forged, found, outcomes, causes, downstream, notes
    )


def _published(
    folder: Path, manifest: Manifest, root: str | None, public_key: Path | None
) -> list[str]:
    problems = []
    if root is not None and root.lower() != manifest.root:
        problems.append(f"the root is {manifest.root}, the published one {root.lower()}")
    if public_key is not None and not sign.is_signed(folder, manifest.root, public_key):
        problems.append(f"the signature is not by {public_key.name} over the root {manifest.root}")
    return problems


def _against(
    folder: Path, manifest: Manifest, found: check.CheckResult, reference: Reference
) -> dict[str, ProductResult]:
    """Compare the present files and item sets with the reference, one by one."""
    theirs = reference.manifest
    results = {
        **_on_one_side(manifest.files.keys(), theirs.files.keys()),
        **_on_one_side(manifest.item_sets.keys(), theirs.item_sets.keys()),
    }
    for path in manifest.files.keys() & theirs.files.keys():
        if path not in found.altered and found.hashes[path] != theirs.files[path]["sha256"]:
            results[path] = _judge(folder, path, manifest, reference)
    for name in manifest.item_sets.keys() & theirs.item_sets.keys():
        other = manifest.item_sets[name]["items"] != theirs.item_sets[name]["items"]
        if other and name not in found.altered:
            results[name] = _judge_item_set(folder, name, manifest, reference)
    return results


def _on_one_side(mine: Set[str], theirs: Set[str]) -> dict[str, ProductResult]:
    """Return a mismatch for each file or item set that one run has and the other has not."""
    problems = dict.fromkeys(mine - theirs, "is not in the reference")
    problems |= dict.fromkeys(theirs - mine, "is in the reference only")
    return {path: ProductResult(path, what, MISMATCH) for path, what in problems.items()}


def _judge(folder: Path, path: str, manifest: Manifest, reference: Reference) -> ProductResult:
    """Judge a file that agrees with its own manifest and not with the reference."""
    equal_data = _has_data(folder / path, reference.manifest.files[path].get("content"))
    tolerance = _tolerance(path, manifest, reference)
    problem = "differs in its container only, the data are equal" if equal_data else "differs"
    if tolerance is None:
        return ProductResult(path, problem, MISMATCH)
    if equal_data:
        return ProductResult(path, problem, WITHIN)
    copy = reference.file(path)
    if copy is None:
        return ProductResult(path, "differs; by how much needs the reference's files", CANNOT)
    details = compare(folder / path, copy, tolerance)
    beyond = tuple(difference for difference in details if not difference.close)
    if beyond:
        return ProductResult(path, "differs by more than its tolerance", MISMATCH, beyond)
    return ProductResult(path, "differs within tolerance", WITHIN, tuple(details))


def _judge_item_set(
    folder: Path, name: str, manifest: Manifest, reference: Reference
) -> ProductResult:
    """Judge the facts of the items of an item set; their files are judged one by one."""
    mine, theirs = item_sets.recorded(folder, manifest.item_sets[name]), None
    with suppress(CannotVerify):
        theirs = reference.recorded(name)
    tolerance = _tolerance(name, manifest, reference)
    problem = "has items with other facts"
    if theirs is None:
        return ProductResult(name, problem, MISMATCH if tolerance is None else CANNOT)
    details = tuple(
        compare_elements(
            lambda: item_sets.elements(mine), lambda: item_sets.elements(theirs), tolerance
        )
    )
    close = tolerance is not None and all(difference.close for difference in details)
    return ProductResult(name, problem, WITHIN if close else MISMATCH, details)


def _tolerance(path: str, manifest: Manifest, reference: Reference) -> Tolerance | None:
    """Return the tolerance of a file or item set; None where equal bytes are guaranteed.

    Equal bytes are guaranteed only for equal numerics and library versions.
    """
    for side in (reference.manifest, manifest):
        if side.step_of(path) in side.tolerant_steps:
            return tolerance_of(path)
    if manifest.surroundings() != reference.manifest.surroundings():
        return tolerance_of(path)
    return None


def _detailed(
    folder: Path, result: ProductResult, manifest: Manifest, reference: Reference | None
) -> ProductResult:
    """Add to a mismatch where the file first differs or, without a copy, whether its data do."""
    path = folder / result.path
    if result.details or path.is_symlink() or not path.is_file():
        return result
    copy = reference.file(result.path) if reference else None
    if copy is not None:
        return replace(result, details=_compared(path, copy))
    if _has_data(path, manifest.files.get(result.path, {}).get("content")):
        return replace(result, problem=f"{result.problem}; the data in it are as stated")
    return result


def _has_data(path: Path, content: str | None) -> bool:
    """Return whether the data in a file, as read now, have a content digest."""
    with suppress(Exception):  # a damaged file may be unreadable
        return content is not None and content_digest(path) == content
    return False


def _compared(path: Path, copy: Path) -> tuple[Difference, ...]:
    return tuple(compare(path, copy, None))
