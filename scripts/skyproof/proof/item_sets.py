"""Item sets: the items of a stage in a folder, independent of the blocks in which jobs made them.

The block index of a block lists its items. Another block size gives other block indexes of the same
products. Therefore a manifest does not list block indexes. It holds an item set for each folder and
stage: the union of its block indexes, with a digest of each item's facts. Block indexes in the
folder are checked against the files and item sets of the manifest.
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
from skyproof.core.formats.contents import Element, leaves
from skyproof.proof.forms import BlockIndexForm, WrongForm

KNOWN = ("size", "sha256", "content")  # of a file, in block indexes, receipts and manifests


def name_of(folder: str, stage: str) -> str:
    """Return the name of an item set in a manifest."""
    return f"{folder}/ ({stage})"


def read(path: Path) -> dict[str, Any] | None:
    """Return the content of a block index, or None for any other file.

    Raises InputError if the file states the format of a block index but is not valid.
    """
    try:
        return _read(path)
    except WrongForm as error:
        raise InputError(path, f"is not a valid block index: {error}") from None


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(content, dict) or content.get("format") != blocks.FORMAT:
        return None
    BlockIndexForm.check(content)
    return content


def files_of(index: str, entry: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the path, relative to the results, and the checksums of each file of an item."""
    home = posixpath.dirname(index)
    for made in entry["files"]:
        path = posixpath.normpath(posixpath.join(home, made["path"]))
        yield path, {key: made[key] for key in KNOWN if key in made}


def item_digest(entry: Mapping[str, Any]) -> str:
    """Return the SHA-256 of an item's facts and paths in a block index.

    The checksums of its files are excluded: the manifest holds them, and each file is compared
    separately.
    """
    stated = [entry["info"], sorted(made["path"] for made in entry["files"])]
    return hashlib.sha256(json.dumps(stated, sort_keys=True).encode()).hexdigest()


def check(
    folder: Path,
    candidates: Iterable[str],
    item_sets: Mapping[str, Mapping[str, Any]],
    files: Mapping[str, Mapping[str, Any]],
) -> tuple[list[str], dict[str, str]]:
    """Return the candidates that are valid block indexes of the item sets, and the problems.

    The problems are by path of a block index, or by name of an item set with an item that is in
    no valid block index. Candidates that are not block indexes of these item sets are in neither.
    """
    valid: list[str] = []
    wrong: dict[str, str] = {}
    covered: dict[str, set[str]] = {name: set() for name in item_sets}
    places = {item_set["folder"] for item_set in item_sets.values()}
    for path in candidates:
        if posixpath.dirname(path) not in places or not path.endswith(".json"):
            continue
        try:
            content = _read(folder / path)
        except WrongForm as error:
            wrong[path] = f"is not a valid block index: {error}"
            continue
        name = name_of(posixpath.dirname(path), content["stage"]) if content else ""
        if content is None or name not in item_sets:
            continue
        problem = _problem(path, content["items"], item_sets[name]["items"], files)
        if problem is None:
            valid.append(path)
            covered[name] |= content["items"].keys()
        else:
            wrong[path] = problem
    for name, item_set in item_sets.items():
        missing = sorted(item_set["items"].keys() - covered[name])
        if missing:
            more = f" and {len(missing) - 1} more items" if len(missing) > 1 else ""
            wrong[name] = f"is incomplete: no valid block index lists {missing[0]}{more}"
    return valid, wrong


def _problem(
    index: str,
    entries: Mapping[str, Mapping[str, Any]],
    items: Mapping[str, str],
    files: Mapping[str, Mapping[str, Any]],
) -> str | None:
    for item, entry in entries.items():
        if item not in items:
            return f"lists {item}, which is not in the manifest"
        for path, known in files_of(index, entry):
            stated = {key: files[path][key] for key in KNOWN if key in files.get(path, {})}
            if known != stated:
                return f"has other checksums of {path} (item {item}) than the manifest"
        if item_digest(entry) != items[item]:
            return f"has other facts of {item} than its stage wrote"
    return None


def recorded(folder: Path, item_set: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts and paths of an item set's items, from the block indexes in a folder.

    Items whose facts do not have the digest in the item set are left out.
    """
    found: dict[str, Any] = {}
    for path in sorted((folder / item_set["folder"]).glob("*.json")):
        content = None
        with suppress(WrongForm):
            content = _read(path)
        if content is not None and content["stage"] == item_set["stage"]:
            for item, entry in content["items"].items():
                if item_set["items"].get(item) == item_digest(entry):
                    found[item] = {
                        "info": entry["info"],
                        "files": sorted(made["path"] for made in entry["files"]),
                    }
    return found


def elements(items: Mapping[str, Any]) -> Iterator[Element]:
    """Yield facts and paths of items, value by value, for a comparison."""
    return leaves(items)
