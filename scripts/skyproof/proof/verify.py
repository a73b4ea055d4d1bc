"""Says whether a folder of results is what was made, and whether it equals a reference."""

from __future__ import annotations

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
    CannotVerify,
    Manifest,
    inconsistencies,
    read,
    tolerance_of,
)
from skyproof.proof.publish import sign
from skyproof.proof.report import (
    CANNOT,
    DETAILED,
    MISMATCH,
    WITHIN,
    Outcome,
    Report,
    notes_on,
    sort_out,
)


@dataclass(frozen=True)
class Reference:
    """What a run is compared with: a manifest and, where they are at hand, its files."""

    manifest: Manifest
    folder: Path | None

    @staticmethod
    def at(path: Path) -> Reference:
        """Read a folder of results, or a manifest.json, whose neighbours are its files."""
        manifest = read(path)
        folder = path if path.is_dir() else path.parent
        whole = path.is_dir() or path.name == MANIFEST
        first = next(iter(manifest.files), None)
        at_hand = whole and first is not None and (folder / first).is_file()
        return Reference(manifest, folder if at_hand else None)

    def file(self, path: str) -> Path | None:
        """Return the reference's copy of a file; one that was altered is none (CannotVerify)."""
        if self.folder is None or path not in self.manifest.files:
            return None
        copy = self.folder / path
        if not copy.is_file() or sha256_of(copy) != self.manifest.files[path]["sha256"]:
            raise CannotVerify(f"{copy}: the reference is itself not what its manifest says")
        return copy

    def said(self, name: str) -> dict[str, Any] | None:
        """Return what the reference's records say of the items of a tree (CannotVerify)."""
        if self.folder is None:
            return None
        held = self.manifest.trees[name]
        found = item_sets.said(self.folder, held, held["stage"])
        if found.keys() != held["items"].keys():
            raise CannotVerify(f"{self.folder}: the reference's records lack items of {name}")
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

    `root` is a root digest that was published, `public_key` that of who signed it. The report's
    code is 0 identical, 1 mismatch, 2 equal within tolerance only (1 with `strict`), 3 cannot be
    verified; the last also as CannotVerify where there is no manifest to begin with.
    """
    manifest = read(folder)
    forged = _published(folder, manifest, root, public_key) + inconsistencies(manifest, folder)
    found = check.check(folder, manifest, workers or inventory.cores())
    outcomes = {path: Outcome(path, what, MISMATCH) for path, what in found.altered.items()}
    reference = Reference.at(against) if against is not None else None
    if reference is not None:
        outcomes |= _against(folder, manifest, found, reference)
    causes, downstream = sort_out(
        list(outcomes.values()), manifest, reference.manifest if reference else None
    )
    causes = [
        _detailed(folder, outcome, manifest, reference) if number < DETAILED else outcome
        for number, outcome in enumerate(causes)
    ]
    within = [outcome for outcome in outcomes.values() if outcome.code == WITHIN]
    notes = notes_on(manifest, reference.manifest) if reference else []
    if causes and (reference is None or reference.folder is None):
        notes.append("without a reference copy (--against FOLDER) only digests can be compared")
    return Report(
        folder, manifest, against, strict, forged, found, causes, downstream, within, notes
    )


def _published(
    folder: Path, manifest: Manifest, root: str | None, public_key: Path | None
) -> list[str]:
    problems = []
    if root is not None and root.lower() != manifest.root:
        problems.append(f"the root is {manifest.root}, published was {root.lower()}")
    if public_key is not None and not sign.is_signed(folder, manifest.root, public_key):
        problems.append(f"the signature is not by {public_key.name} over the root {manifest.root}")
    return problems


def _against(
    folder: Path, manifest: Manifest, found: check.Found, reference: Reference
) -> dict[str, Outcome]:
    """Judge what lies in the folder now by the reference, file by file."""
    outcomes: dict[str, Outcome] = {}
    theirs = reference.manifest.files
    for path in manifest.files.keys() | theirs.keys():
        if path not in theirs:
            outcomes[path] = Outcome(path, "is not in the reference", MISMATCH)
        elif path not in manifest.files:
            outcomes[path] = Outcome(path, "is in the reference only", MISMATCH)
        elif path not in found.altered and found.hashes[path] != theirs[path]["sha256"]:
            outcomes[path] = _judge(folder, path, manifest, reference)
    for name in manifest.trees.keys() & reference.manifest.trees.keys():
        other = manifest.trees[name]["items"] != reference.manifest.trees[name]["items"]
        if other and name not in found.altered:
            outcomes[name] = _judge_tree(folder, name, manifest, reference)
    return outcomes


def _judge(folder: Path, path: str, manifest: Manifest, reference: Reference) -> Outcome:
    """Judge a file, sound by its own manifest, that is another one than the reference's."""
    mine, other = manifest.files[path], reference.manifest.files[path]
    equal_data = "content" in mine and mine["content"] == other.get("content")
    tolerance = _tolerance(path, manifest, reference)
    problem = "differs in its container only, the data are equal" if equal_data else "differs"
    if tolerance is None:
        return Outcome(path, problem, MISMATCH)
    if equal_data:
        return Outcome(path, problem, WITHIN)
    copy = reference.file(path)
    if copy is None:
        return Outcome(path, "differs; how much, only the reference's files can tell", CANNOT)
    details = compare(folder / path, copy, tolerance)
    beyond = tuple(difference for difference in details if not difference.close)
    if beyond:
        return Outcome(path, "differs by more than its tolerance", MISMATCH, beyond)
    return Outcome(path, "differs within tolerance", WITHIN, tuple(details))


def _judge_tree(folder: Path, name: str, manifest: Manifest, reference: Reference) -> Outcome:
    """Judge what the records say of items; their files are judged one by one."""
    mine, theirs = item_sets.said(folder, manifest.trees[name], manifest.trees[name]["stage"]), None
    with suppress(CannotVerify):
        theirs = reference.said(name)
    tolerance = _tolerance(name, manifest, reference)
    problem = "has records that say something else of its items"
    if theirs is None:
        return Outcome(name, problem, MISMATCH if tolerance is None else CANNOT)
    details = tuple(
        compare_elements(
            lambda: item_sets.elements(mine), lambda: item_sets.elements(theirs), tolerance
        )
    )
    close = tolerance is not None and all(difference.close for difference in details)
    return Outcome(name, problem, WITHIN if close else MISMATCH, details)


def _tolerance(path: str, manifest: Manifest, reference: Reference) -> Tolerance | None:
    """Return what applies to a file or tree: a tolerance, or none where bytes were promised.

    Equal bytes are promised only for equal numerics and library versions.
    """
    for side in (reference.manifest, manifest):
        if side.step_of(path) in side.tolerant_steps:
            return tolerance_of(path)
    if manifest.surroundings() != reference.manifest.surroundings():
        return tolerance_of(path)
    return None


def _detailed(
    folder: Path, outcome: Outcome, manifest: Manifest, reference: Reference | None
) -> Outcome:
    """Add to a mismatch where the file first differs, or at least whether its data do."""
    path = folder / outcome.path
    if outcome.details or path.is_symlink() or not path.is_file():
        return outcome
    copy = reference.file(outcome.path) if reference else None
    if copy is not None:
        return replace(outcome, details=_compared(path, copy))
    stated = manifest.files.get(outcome.path, {}).get("content")
    with suppress(Exception):  # a damaged file may not be readable at all
        if stated is not None and content_digest(path) == stated:
            return replace(outcome, problem=f"{outcome.problem}; the data in it are as stated")
    return outcome


def _compared(path: Path, copy: Path) -> tuple[Difference, ...]:
    return tuple(compare(path, copy, None))
