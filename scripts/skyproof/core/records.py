"""Products that are trees of files, one item (a brick, a tile) after the other, with a record.

A block of work writes many files into a shared tree. Its declared output is one small JSON file,
the record: for every item what it holds and size, SHA-256 and content digest of each of its files,
which lie below the record's folder. A journal beside it remembers finished items, so that a block
that was killed continues where it stopped: an item is kept only if it was made by the same recipe
(stage, code, options, inputs) and its files still have their checksums.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from skyproof.core import content, files
from skyproof.core.errors import InputError

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
        with files.replacing(final) as temporary:
            yield temporary
            entry = {"path": relative, **content.fingerprint(temporary)}
        self.entries.append(entry)


@dataclass
class Journal:
    """The finished items of one block; each rank appends to a file of its own."""

    record: Path
    recipe: str
    rank: int = 0
    finished: dict[str, dict[str, Any]] = field(default_factory=dict)
    ever_made: dict[str, set[str]] = field(default_factory=dict)  # item -> paths, by any recipe

    @property
    def folder(self) -> Path:
        return self.record.parent / JOURNAL_FOLDER

    def load(self) -> None:
        """Read what earlier tries finished, by whatever number of ranks."""
        for path in sorted(self.folder.glob(f"{self.record.stem}.*.jsonl")):
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    entry = json.loads(line)
                except json.JSONDecodeError:
                    continue  # the last line of a killed rank
                paths = {made["path"] for made in entry["files"]}
                self.ever_made.setdefault(entry["item"], set()).update(paths)
                if entry["recipe"] == self.recipe:
                    self.finished[entry["item"]] = entry

    def intact(self, item: str) -> dict[str, Any] | None:
        """Return the entry of a finished item whose files have their checksums, else None."""
        entry = self.finished.get(item)
        if entry is None:
            return None
        for made in entry["files"]:
            path = self.record.parent / made["path"]
            if not path.is_file() or path.stat().st_size != made["size"]:
                return None
            if files.sha256_of(path) != made["sha256"]:
                return None
        return {"info": entry["info"], "files": entry["files"]}

    def add(self, item: str, entry: Mapping[str, Any]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        line = json.dumps({"recipe": self.recipe, "item": item, **entry}, sort_keys=True)
        path = self.folder / f"{self.record.stem}.{self.rank}.jsonl"
        with open(path, "a", encoding="utf-8") as stream:
            stream.write(line + "\n")
            stream.flush()
            os.fsync(stream.fileno())


def make_item(
    item: str,
    work: Callable[[str, ItemFiles], Mapping[str, Any] | None],
    journal: Journal,
) -> dict[str, Any]:
    """Make one item, or return its entry where an earlier try finished it."""
    kept = journal.intact(item)
    if kept is not None:
        return kept
    made = ItemFiles(journal.record.parent)
    info = work(item, made)
    written = sorted(made.entries, key=lambda e: e["path"])
    entry: dict[str, Any] = {"info": dict(info or {}), "files": written}
    # Files of an earlier recipe that this one does not write (a realisation fewer, another layout)
    # would be taken for products by who looks into the tree.
    for path in journal.ever_made.get(item, set()) - {file["path"] for file in written}:
        (journal.record.parent / path).unlink(missing_ok=True)
    journal.add(item, entry)
    return entry


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
