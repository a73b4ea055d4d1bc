"""The report of a verification: verdict, first difference, and the files that depend on it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skyproof.proof.check import CheckResult
from skyproof.proof.difference import Difference
from skyproof.proof.manifest import Manifest

IDENTICAL, MISMATCH, WITHIN, CANNOT = 0, 1, 2, 3

DETAILED = 3  # number of files whose first difference is shown
_LISTED = 10


@dataclass(frozen=True)
class ProductResult:
    """A file or item set that differs from the manifest or the reference.

    `code` is MISMATCH, WITHIN or CANNOT.
    """

    path: str
    problem: str
    code: int
    details: tuple[Difference, ...] = ()


@dataclass(frozen=True)
class Report:
    """Result of a verification.

    `results` has every file and item set that differs. `causes` and `downstream` order them for the
    reader; `downstream` maps the path of a cause to its consequences.
    """

    folder: Path
    manifest: Manifest
    against: Path | None
    strict: bool
    forged: Sequence[str]
    found: CheckResult
    results: Sequence[ProductResult]
    causes: Sequence[ProductResult]
    downstream: dict[str, list[ProductResult]]
    notes: Sequence[str]

    @property
    def within(self) -> list[ProductResult]:
        """The files and item sets that differ within tolerance."""
        return [result for result in self.results if result.code == WITHIN]

    @property
    def code(self) -> int:
        """0 identical, 1 mismatch, 2 equal within tolerance only, 3 cannot be verified."""
        codes = {result.code for result in self.results}
        if self.forged or self.found.extra or MISMATCH in codes:
            return MISMATCH
        if self.strict and (self.within or self.found.left_over or self.found.unfinished):
            return MISMATCH
        if CANNOT in codes:
            return CANNOT
        return WITHIN if self.within else IDENTICAL

    def lines(self) -> list[str]:
        """Return the report as lines, the verdict first."""
        lines = [self._verdict()]
        lines += [f"manifest {problem}" for problem in _first(self.forged)]
        for number, result in enumerate(self.causes[:DETAILED]):
            lines += self._cause(result, "earliest mismatch:" if number == 0 else "then:")
        others = [f"  file     {result.path} {result.problem}" for result in self.causes[DETAILED:]]
        lines += ["also:", *_first(others)] if others else []
        extra = [f"extra    {path}: {what}" for path, what in sorted(self.found.extra.items())]
        lines += _first(extra)
        if self.within:
            lines += self._within()
        return lines + self._notes()

    def _verdict(self) -> str:
        folder = f"{self.folder}" + (f" against {self.against}" if self.against else "")
        size = f"{len(self.manifest.files)} files, {self.found.n_bytes / 1e6:.1f} MB"
        root = f"root {self.manifest.root}"
        if self.code == IDENTICAL:
            return f"identical: {folder}, {size}, {root}"
        n_bad = len(self.results) - len(self.within) + len(self.found.extra)
        if self.code == WITHIN:
            return (
                f"equal within tolerance only, not identical: {folder}, "
                f"{len(self.within)} of {size} differ, {root}"
            )
        if self.code == CANNOT:
            return f"cannot be verified: {folder}, {n_bad} of {size} cannot be judged"
        if n_bad == 0:
            return f"MISMATCH: {folder}, {size}"
        return f"MISMATCH: {folder}, {n_bad} of {size} differ"

    def _cause(self, result: ProductResult, title: str) -> list[str]:
        stage = self._stage(result.path)
        lines = [title]
        if stage:
            lines.append(f"  rule     {stage.replace('.', '_')}")
        lines.append(f"  file     {result.path} {result.problem}")
        for difference in result.details[:_LISTED]:
            lines += [f"  {line}" for line in difference.lines()]
        lines += [f"  {line}" for line in _more(result.details)]
        later = self.downstream.get(result.path, [])
        if later:
            lines.append(f"  downstream of {stage or result.path}: {len(later)} files")
            lines += _first(f"    {other.path}" for other in later)
        return lines

    def _stage(self, path: str) -> str | None:
        step = self.manifest.step_of(path)
        return None if step is None else self.manifest.steps[step]["stage"]

    def _within(self) -> list[str]:
        lines = ["within tolerance:"]
        for result in self.within[:_LISTED]:
            lines.append(f"  file     {result.path} {result.problem}")
            for difference in result.details[:1]:
                lines += [f"  {line}" for line in difference.lines()]
        return lines + _more(self.within)

    def _notes(self) -> list[str]:
        lines = [f"note: {note}" for note in self.notes]
        for what, paths in (
            ("there are products of earlier configurations", self.found.left_over),
            ("there are unfinished files of a killed process", self.found.unfinished),
        ):
            if paths:
                more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
                lines.append(f"note: {what}, not part of this run: {paths[0]}{more}")
        return lines


def _first(lines: Iterable[str]) -> list[str]:
    found = list(lines)
    return found[:_LISTED] + _more(found)


def _more(things: Sequence[Any]) -> list[str]:
    return [f"... and {len(things) - _LISTED} more"] if len(things) > _LISTED else []


def sort_out(
    results: Sequence[ProductResult], manifest: Manifest, reference: Manifest | None
) -> tuple[list[ProductResult], dict[str, list[ProductResult]]]:
    """Separate causes from consequences, both in graph order.

    In a comparison with another run, a file whose inputs differ is a consequence of the earliest
    step that differs. Without a reference every altered file is a cause.
    """
    bad = sorted(
        (result for result in results if result.code in (MISMATCH, CANNOT)),
        key=lambda result: _place(result.path, manifest, reference),
    )
    by_step: dict[int, list[ProductResult]] = {}
    for result in bad:
        by_step.setdefault(_place(result.path, manifest, reference)[0], []).append(result)
    if reference is None:
        return bad, {}
    causes: list[ProductResult] = []
    downstream: dict[str, list[ProductResult]] = {}
    origin: dict[int, str] = {}  # step -> path of the cause on which its products depend
    for step in range(len(manifest.steps) + 1):
        parents = manifest.parents[step] if step < len(manifest.steps) else set()
        before = min((p for p in parents if p in origin), default=None)
        found = by_step.get(step, [])
        if before is not None:
            origin[step] = origin[before]
            downstream.setdefault(origin[step], []).extend(found)
        elif found:
            origin[step] = found[0].path
            causes += found
    return causes, downstream


def _place(path: str, manifest: Manifest, reference: Manifest | None) -> tuple[int, bool, str]:
    """Return a sort key: the step; within a step, files before item sets and block indexes."""
    step = manifest.step_of(path)
    if step is not None:
        return step, path not in manifest.files, path
    # Of the reference only: at the first step of the same stage, else at the end.
    theirs = {**reference.item_sets, **reference.files} if reference else {}
    stage = theirs[path]["stage"] if path in theirs else ""
    steps = [number for number, step in enumerate(manifest.steps) if step["stage"] == stage]
    return (steps[0] if steps else len(manifest.steps)), True, path


def notes_on(manifest: Manifest, reference: Manifest) -> list[str]:
    """Return the differences of code, options, inputs and surroundings of the two runs."""
    notes = []
    mine, theirs = manifest.content["stages"], reference.content["stages"]
    for stage in sorted(mine.keys() & theirs.keys()):
        if mine[stage]["code"] != theirs[stage]["code"]:
            notes.append(f"{stage} had other code")
        for option, (a, b) in sorted(_unequal(mine[stage]["options"], theirs[stage]["options"])):
            notes.append(f"{stage} had {option} {a!r}, in the reference {b!r}")
    if _external(manifest) != _external(reference):
        notes.append("the external inputs were not the same")
    if manifest.surroundings() != reference.surroundings():
        for key, (a, b) in sorted(_unequal(_flat(manifest), _flat(reference))):
            notes.append(f"{key} was {a}, in the reference {b}")
        notes.append("equal bytes are guaranteed only for equal numerics and libraries")
    return notes


def _unequal(mine: dict[str, Any], theirs: dict[str, Any]) -> list[tuple[str, tuple[Any, Any]]]:
    keys = mine.keys() | theirs.keys()
    return [(k, (mine.get(k), theirs.get(k))) for k in keys if mine.get(k) != theirs.get(k)]


def _flat(manifest: Manifest) -> dict[str, Any]:
    around = manifest.surroundings()
    numerics = {f"numerics of {stage}": " on ".join(v) for stage, v in around["numerics"].items()}
    return {**numerics, **around["libraries"]}


def _external(manifest: Manifest) -> list[Any]:
    return [given for step in manifest.steps for given in step["external"]]
