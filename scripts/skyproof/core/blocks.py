"""Products that are trees of files, one item (a brick, a tile) after the other, with a record.

A block of work writes many files into a shared tree. Its declared output is one small JSON file,
the record: for every item what it holds and size, SHA-256 and content digest of each of its files,
which lie below the record's folder. A journal beside it remembers finished items, so that a block
that was killed continues where it stopped: an item is kept only if it was made by the same recipe
(stage, code, options, inputs) and its files still have their checksums. How the items are cut into
blocks is bookkeeping: neither recipe nor journal know it, and a manifest holds the items of all
blocks together (`proof/trees.py`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from skyproof.core import atomic
from skyproof.core.errors import InputError
from skyproof.core.formats import contents
from skyproof.core.formats import write as writers

FORMAT = "skyproof-record-1"
JOURNAL_FOLDER = ".journal"


class ItemFiles:
    """The files of one item while it is being made."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.entries: list[dict[str, Any]] = []

    @contextmanager
    def write(self, relative: str) -> Iterator[Path]:
        """Give a temporary path; when the block ends well, the file is renamed and recorded."""
        final = self.root / relative
        with atomic.replacing(final) as temporary:
            yield temporary
            entry = {"path": relative, **contents.fingerprint(temporary)}
        self.entries.append(entry)


@dataclass(frozen=True)
class Journal:
    """What a stage finished in a folder: a small file an item, whichever block and rank made it."""

    root: Path  # the folder of the records
    stage: str
    recipe: str

    def path_of(self, item: str) -> Path:
        return self.root / JOURNAL_FOLDER / self.stage / f"{quote(item, safe='')}.json"

    def read(self, item: str) -> dict[str, Any] | None:
        """Return the entry with which the item was last finished, by any recipe."""
        try:
            entry = json.loads(self.path_of(item).read_text(encoding="utf-8"))
            return entry if {"recipe", "info", "files"} <= entry.keys() else None
        except (OSError, ValueError, AttributeError):
            return None

    def is_intact(self, entry: Mapping[str, Any]) -> bool:
        """Say whether this recipe made an entry's files, and they still have their checksums."""
        return entry["recipe"] == self.recipe and all(
            (path := self.root / made["path"]).is_file()
            and path.stat().st_size == made["size"]
            and atomic.sha256_of(path) == made["sha256"]
            for made in entry["files"]
        )

    def add(self, item: str, entry: Mapping[str, Any]) -> None:
        """Remember a finished item. (`files.replacing` would list a folder of all items.)"""
        path = self.path_of(item)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = atomic.temporary_name(path)
        try:
            text = json.dumps({"recipe": self.recipe, **entry}, sort_keys=True)
            temporary.write_text(text + "\n", encoding="utf-8")
            atomic.move_into_place(temporary, path)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def make_item(
    item: str,
    work: Callable[[str, ItemFiles], Mapping[str, Any] | None],
    journal: Journal,
) -> dict[str, Any]:
    """Make one item, or return its entry where an earlier try finished it."""
    before = journal.read(item)
    if before is not None and journal.is_intact(before):
        return {"info": before["info"], "files": before["files"]}
    made = ItemFiles(journal.root)
    info = work(item, made)
    written = sorted(made.entries, key=lambda e: e["path"])
    entry: dict[str, Any] = {"info": dict(info or {}), "files": written}
    # Files of an earlier recipe that this one does not write (a realisation fewer, another layout)
    # would be taken for products by who looks into the tree.
    paths = {file["path"] for file in before["files"]} if before else set()
    for path in paths - {file["path"] for file in written}:
        (journal.root / path).unlink(missing_ok=True)
    journal.add(item, entry)
    return entry


def write_record(path: Path, stage: str, entries: Mapping[str, Any]) -> None:
    """Write the record of a block of items that a stage made."""
    writers.json(path, {"format": FORMAT, "stage": stage, "items": dict(entries)})


@dataclass(frozen=True)
class Item:
    """An item as a later stage sees it."""

    name: str
    info: dict[str, Any]
    paths: tuple[Path, ...]
    record: Path

    def path(self, relative: str) -> Path:
        """Return the file at `relative` below the record's folder (InputError if not listed)."""
        wanted = self.record.parent / relative
        if wanted not in self.paths:
            raise InputError(self.record, f"names no file {relative}", record=self.name)
        return wanted

    def known(self, name: str, maker: str) -> Any:
        """Return a value of the item's `info`, which records of the stage `maker` hold."""
        if name not in self.info:
            raise InputError(
                self.record, "is missing", record=self.name, field=name,
                expected=f"a record of {maker}",
            )  # fmt: skip
        return self.info[name]

    def matching(self, pattern: str) -> list[Path]:
        """Return this item's files whose name matches a glob pattern, sorted."""
        return sorted(path for path in self.paths if path.match(pattern))


def read_record(path: str | Path) -> list[Item]:
    """Return the items of a record, sorted by name; every file must be there with its size."""
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise KeyError("format")
        items = content["items"]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError):
        raise InputError(path, "not a record of a stage", expected=f"JSON of {FORMAT}") from None
    return [_item(path, name, items[name]) for name in sorted(items)]


def _item(record: Path, name: str, entry: Mapping[str, Any]) -> Item:
    paths = []
    for made in entry["files"]:
        path = record.parent / made["path"]
        if not path.is_file():
            raise InputError(path, "is missing", record=name, expected=f"a file named by {record}")
        if path.stat().st_size != made["size"]:
            raise InputError(
                path, f"has {path.stat().st_size} bytes", record=name, expected=f"{made['size']}"
            )
        paths.append(path)
    return Item(name, dict(entry["info"]), tuple(paths), record)


def read_records(paths: Sequence[str | Path]) -> Iterator[Item]:
    """Yield the items of several records, record by record: memory holds one block's names."""
    for path in paths:
        yield from read_record(path)
