"""The manifest: the files of a run, their checksums, and what determined them.

`manifest-sha256.txt` is the input of `sha256sum -c`. `manifest.json` holds the digest of that file,
the code, options, locks and libraries of the run, its steps in topological order (a step is the set
of jobs that differ only in the block of work), its item sets (key `trees`), and one entry per file.
The SHA-256 of manifest.json is the *root*. Publishing or signing it fixes every byte of the run.
`root.txt` holds the root as a line of `sha256sum`, so that damage to manifest.json is found.
"""

from __future__ import annotations

import hashlib
import json
import stat
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from posixpath import dirname
from typing import Any

from skyproof.core import atomic
from skyproof.core.errors import SkyproofError
from skyproof.core.formats import write as writers
from skyproof.core.formats.contents import suffix_of
from skyproof.proof.difference import Tolerance
from skyproof.proof.forms import ManifestForm, ProvenanceForm, WrongForm

FORMAT = "skyproof-manifest-2"
MANIFEST = "manifest.json"
ROOT = "root.txt"
SUMS = "manifest-sha256.txt"
PROVENANCE = "provenance.json"
SIGNATURE = "manifest.json.sig"
CRATE = "ro-crate-metadata.json"
CRATE_FOLDER = "workflow"

# Files that describe the products or are made from them, and are not products.
BESIDE = {MANIFEST, ROOT, SUMS, PROVENANCE, SIGNATURE, CRATE, "report.zip"}

# A forward pass with another order of additions differs by about 1e-7. Differences in weights grow
# with every training step, so a trained model is rarely within this tolerance.
FLOATS = {"rtol": 1e-5, "atol": 1e-7}
FIGURES = {"mean_pixel": 2.0}


class CannotVerify(SkyproofError):
    """The manifest or the reference is missing or cannot be read (exit 3)."""

    exit_code = 3


def is_beside(path: str) -> bool:
    """Return whether a path belongs to the manifest, the signature or the crate."""
    return path in BESIDE or path.startswith(f"{CRATE_FOLDER}/")


def allowance(path: str) -> dict[str, float]:
    """Return the tolerance of a product of class "tolerance", which depends on its format."""
    return dict(FIGURES) if suffix_of(path) == ".png" else dict(FLOATS)


def tolerance_of(path: str) -> Tolerance:
    """Return the tolerance of a path as a Tolerance, also for item sets."""
    return Tolerance(**{"rtol": 0.0, "atol": 0.0, **allowance(path)})


@dataclass(frozen=True)
class Manifest:
    """The content of a manifest.json and its SHA-256, `root`."""

    content: dict[str, Any]
    root: str

    @cached_property
    def files(self) -> dict[str, dict[str, Any]]:
        """The entries of the files by path."""
        return {entry["path"]: entry for entry in self.content["files"]}

    @property
    def steps(self) -> list[dict[str, Any]]:
        """The steps in topological order."""
        return self.content["steps"]

    @property
    def item_sets(self) -> dict[str, dict[str, Any]]:
        """The item sets by name (item_sets.name_of)."""
        return self.content["trees"]

    @cached_property
    def parents(self) -> list[set[int]]:
        """The numbers of the steps whose products each step read."""
        makers: dict[str, set[int]] = {}
        for number, step in enumerate(self.steps):
            for path in step["outputs"]:
                makers.setdefault(path, set()).add(number)
        return [
            {maker for path in step["inputs"] for maker in makers.get(path, ())} - {number}
            for number, step in enumerate(self.steps)
        ]

    def step_of(self, path: str) -> int | None:
        """Return the number of the step that made a file or an item set.

        For another path, such as a block index, it is the last step with an item set in the same
        folder. None if there is no such step.
        """
        if path in self.files:
            return self.files[path]["step"]
        names = {path, *(n for n, t in self.item_sets.items() if t["folder"] == dirname(path))}
        return max((n for n, s in enumerate(self.steps) if names & set(s["outputs"])), default=None)

    @cached_property
    def tolerant_steps(self) -> set[int]:
        """The numbers of the steps whose products are of class "tolerance".

        These are the steps with native numerics, on a GPU, or with code compiled by the local
        compiler, and all steps that depend on them.
        """
        found: set[int] = set()
        for number, step in enumerate(self.steps):
            stage = self.content["stages"][step["stage"]]
            portable = stage["numerics"] == "portable" and stage["device"] == "cpu"
            portable = portable and not step.get("notes", {}).get("compiled")
            if not portable or self.parents[number] & found:
                found.add(number)
        return found

    def surroundings(self) -> dict[str, Any]:
        """Return what equal bytes require besides equal code, options and inputs."""
        stages = self.content["stages"]
        return {
            "numerics": {name: (s["numerics"], s["device"]) for name, s in stages.items()},
            "libraries": self.content["libraries"],
        }


def read(path: Path) -> Manifest:
    """Read a manifest.json, or the one in a folder (CannotVerify)."""
    path = path / MANIFEST if path.is_dir() else path
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CannotVerify(f"{path}: cannot be read: {error.strerror}") from None
    try:
        content = json.loads(data)
        ManifestForm.check(content, FORMAT)
        _check_references(content)
    except ValueError as error:
        raise CannotVerify(f"{path}: is not a valid manifest: {error}") from None
    return Manifest(content, hashlib.sha256(data).hexdigest())


def _check_references(content: dict[str, Any]) -> None:
    """Raise WrongForm where a stage or a step that an entry names is not in the manifest."""
    stages, steps = content["stages"], content["steps"]
    for number, step in enumerate(steps):
        if step["stage"] not in stages:
            raise WrongForm(f"steps.{number}: stage {step['stage']} is not in the manifest")
    for name, item_set in content["trees"].items():
        if item_set["stage"] not in stages:
            raise WrongForm(f"trees.{name}: stage {item_set['stage']} is not in the manifest")
    for number, entry in enumerate(content["files"]):
        if entry["step"] >= len(steps):
            raise WrongForm(f"files.{number}: step {entry['step']} is not in the manifest")
        if steps[entry["step"]]["stage"] != entry["stage"]:
            raise WrongForm(f"files.{number}: {entry['path']} is not of its step's stage")


def sums_text(entries: Sequence[Mapping[str, Any]]) -> str:
    """Return the output of sha256sum for the files, sorted by the bytes of their paths."""
    ordered = sorted(entries, key=lambda entry: entry["path"].encode())
    return "".join(f"{entry['sha256']}  {entry['path']}\n" for entry in ordered)


def write(folder: Path, content: Mapping[str, Any], provenance: Mapping[str, Any]) -> Manifest:
    """Write the four files of a manifest into the folder of results, and read it back.

    The root is written last: after an interruption `verify` finds the old one or none.
    """
    text = sums_text(content["files"])
    digest = hashlib.sha256(text.encode()).hexdigest()
    with atomic.replacing(folder / SUMS) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
    with atomic.replacing(folder / PROVENANCE) as temporary:
        writers.json(temporary, provenance)
    with atomic.replacing(folder / MANIFEST) as temporary:
        writers.json(temporary, {**content, "format": FORMAT, "manifest_sha256": digest})
    written = read(folder)
    with atomic.replacing(folder / ROOT) as temporary:
        temporary.write_text(root_text(written.root), encoding="ascii", newline="\n")
    return written


def root_text(root: str) -> str:
    """Return the content of root.txt: the line that `sha256sum manifest.json` prints."""
    return f"{root}  {MANIFEST}\n"


def root_problems(manifest: Manifest, folder: Path) -> list[str]:
    """Return what is wrong with root.txt; an empty list if it has the root of the manifest."""
    path, expected = folder / ROOT, root_text(manifest.root).encode()
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return [f"{ROOT}: is a symbolic link or a special file"]
        with path.open("rb") as file:
            data = file.read(len(expected) + 1)
    except OSError as error:
        return [f"{ROOT}: cannot be read: {error.strerror}"]
    if data != expected:
        return [f"{ROOT}: does not hold the SHA-256 of {MANIFEST}, {manifest.root}"]
    return []


def read_provenance(folder: Path) -> dict[str, Any]:
    """Return the content of provenance.json: when, where and how the jobs ran (CannotVerify)."""
    path = folder / PROVENANCE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        ProvenanceForm.check(content)
    except (OSError, ValueError) as error:
        raise CannotVerify(f"{path}: cannot be read: {error}") from None
    return content


def date_of_run(folder: Path) -> str:
    """Return the day on which the last job ended (YYYY-MM-DD): a date that is reproducible."""
    return max(job["ended"] for job in read_provenance(folder)["jobs"])[:10]


def inconsistencies(manifest: Manifest, folder: Path) -> list[str]:
    """Return contradictions in the manifest, its root, its checksums and its classes of files."""
    problems = [*root_problems(manifest, folder), *_sums_problems(manifest, folder)]
    counts = Counter(entry["path"] for entry in manifest.content["files"])
    problems += [f"{path}: is listed {n} times" for path, n in counts.items() if n > 1]
    for entry in manifest.content["files"]:
        path = entry["path"]
        parts = PurePosixPath(path).parts
        if not parts or parts[0] == "/" or ".." in parts or "\\" in path or "\n" in path:
            problems.append(f"{path!r}: leads out of the folder")
        elif is_beside(path):
            problems.append(f"{path}: is part of the manifest itself")
    for entry in manifest.content["files"]:
        stated = {k: v for k, v in entry.items() if k in ("rtol", "atol", "mean_pixel")}
        due = allowance(entry["path"]) if entry["step"] in manifest.tolerant_steps else {}
        if (entry["class"] == "tolerance") != bool(due) or stated != due:
            problems.append(
                f"{entry['path']}: is stated to be of class {entry['class']} {stated or ''}, which "
                f"does not follow from the numerics of {entry['stage']} and of its inputs"
            )
    return problems


def _sums_problems(manifest: Manifest, folder: Path) -> list[str]:
    path = folder / SUMS
    try:
        data = path.read_bytes()
    except OSError as error:
        return [f"{SUMS}: cannot be read: {error.strerror}"]
    problems = []
    if hashlib.sha256(data).hexdigest() != manifest.content["manifest_sha256"]:
        problems.append(f"{SUMS}: does not have the SHA-256 that {MANIFEST} holds")
    if data != sums_text(manifest.content["files"]).encode():
        problems.append(f"{SUMS}: does not list the files and checksums of {MANIFEST}")
    return problems
