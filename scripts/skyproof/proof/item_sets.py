"""Trees: the items of a stage in a folder, whatever the blocks in which jobs made them.

A block's record lists its items; another block size gives other records of the same products. So a
manifest does not list records. It holds a tree for each folder and stage, the union of its records,
with a digest an item of what they say of it. A record that lies in the folder is checked against
the files and trees of the manifest.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from skyproof.core import blocks
from skyproof.core.errors import InputError
from skyproof.core.formats.contents import Element
from skyproof.core.formats.elements import leaves
from skyproof.proof.forms import BlockIndexForm, WrongForm

KNOWN = ("size", "sha256", "content")  # of a file, in records, receipts and manifests


def name_of(folder: str, stage: str) -> str:
    """Return the name by which a manifest calls a tree."""
    return f"{folder}/ ({stage})"


def read(path: Path) -> dict[str, Any] | None:
    """Return the content of a block index, or None for any other file.

    Raises InputError where the file states the format of a block index and is not of its form.
    """
    try:
        return _read(path)
    except WrongForm as error:
        raise InputError(path, f"is not a whole block index: {error}") from None


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(content, dict) or content.get("format") != blocks.FORMAT:
        return None
    BlockIndexForm.check(content)
    return content


def files_of(record: str, entry: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield path, from the folder of results, and checksums of an item's files."""
    home = posixpath.dirname(record)
    for made in entry["files"]:
        path = posixpath.normpath(posixpath.join(home, made["path"]))
        yield path, {key: made[key] for key in KNOWN if key in made}


def item_digest(entry: Mapping[str, Any]) -> str:
    """Return the SHA-256 of what a record says of an item, the checksums of its files apart.

    Those stand in the manifest, where each file is judged by itself.
    """
    said = [entry["info"], sorted(made["path"] for made in entry["files"])]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def check(
    folder: Path,
    candidates: Iterable[str],
    trees: Mapping[str, Mapping[str, Any]],
    files: Mapping[str, Mapping[str, Any]],
) -> tuple[list[str], dict[str, str]]:
    """Return which of the candidates are sound records of the trees, and what is wrong.

    The second maps a record, or the name of a tree of which some item is in no record, to the
    problem. Candidates that are no records of these trees are in neither.
    """
    sound: list[str] = []
    wrong: dict[str, str] = {}
    covered: dict[str, set[str]] = {name: set() for name in trees}
    places = {tree["folder"] for tree in trees.values()}
    for path in candidates:
        if posixpath.dirname(path) not in places or not path.endswith(".json"):
            continue
        try:
            content = _read(folder / path)
        except WrongForm as error:
            wrong[path] = f"is not a whole block index: {error}"
            continue
        name = name_of(posixpath.dirname(path), content["stage"]) if content else ""
        if content is None or name not in trees:
            continue
        problem = _problem(path, content["items"], trees[name]["items"], files)
        if problem is None:
            sound.append(path)
            covered[name] |= content["items"].keys()
        else:
            wrong[path] = problem
    for name, tree in trees.items():
        missing = sorted(tree["items"].keys() - covered[name])
        if missing:
            more = f" and {len(missing) - 1} more items" if len(missing) > 1 else ""
            wrong[name] = f"is incomplete: no sound record lists {missing[0]}{more}"
    return sound, wrong


def _problem(
    record: str,
    entries: Mapping[str, Mapping[str, Any]],
    items: Mapping[str, str],
    files: Mapping[str, Mapping[str, Any]],
) -> str | None:
    for item, entry in entries.items():
        if item not in items:
            return f"lists {item}, which is not of the run"
        for path, known in files_of(record, entry):
            stated = {key: files[path][key] for key in KNOWN if key in files.get(path, {})}
            if known != stated:
                return f"says of {path} (item {item}) other checksums than the manifest"
        if item_digest(entry) != items[item]:
            return f"says of {item} something else than its stage did"
    return None


def said(folder: Path, tree: Mapping[str, Any], stage: str) -> dict[str, Any]:
    """Return what the records in a folder say of the tree's items, as far as it is what was made.

    Item by item; without those of which no record here says what the tree's digests hold.
    """
    found: dict[str, Any] = {}
    for path in sorted((folder / tree["folder"]).glob("*.json")):
        content = None
        with suppress(WrongForm):
            content = _read(path)
        if content is not None and content["stage"] == stage:
            for item, entry in content["items"].items():
                if tree["items"].get(item) == item_digest(entry):
                    found[item] = {
                        "info": entry["info"],
                        "files": sorted(made["path"] for made in entry["files"]),
                    }
    return found


def elements(items: Mapping[str, Any]) -> Iterator[Element]:
    """Yield what is said of some items, leaf by leaf, for a comparison."""
    return leaves(items)
