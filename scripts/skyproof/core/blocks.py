"""Products of many files: the items (bricks, tiles) of a block and the block index.

A block of work writes many files into a folder that all blocks share. Its declared output is one
small JSON file, the block index. For each item it lists a few values (`info`) and the size, the
SHA-256 and the content digest of each file; the files lie below the folder of the index.

A resume log beside the index lists finished items, so that a killed block continues where it
stopped. An item is kept only if it was made with the same cache key (stage, code, options, inputs)
and its files still have their checksums. The partition of the items into blocks is in neither the
cache key nor the resume log; a manifest holds the items of all blocks together
(`proof/item_sets.py`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from skyproof.core import atomic
from skyproof.core.errors import InputError
from skyproof.core.formats import contents, read
from skyproof.core.formats import write as writers

FORMAT = "skyproof-record-1"  # as in IndexForm
LOG_FOLDER = ".journal"


class ItemFiles:
    """Writes the files of one item and lists them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.entries: list[dict[str, Any]] = []

    @contextmanager
    def write(self, relative: str) -> Iterator[Path]:
        """Yield a temporary path; if the block raises nothing, rename and list the file."""
        final = self.root / relative
        with atomic.replacing(final) as temporary:
            yield temporary
            entry = {"path": relative, **contents.fingerprint(temporary)}
        self.entries.append(entry)


@dataclass(frozen=True)
class ResumeLog:
    """The finished items of a stage in a folder: one small file per item, for all blocks."""

    root: Path  # the folder of the block indexes
    stage: str
    cache_key: str

    def path_of(self, item: str) -> Path:
        return self.root / LOG_FOLDER / self.stage / f"{quote(item, safe='')}.json"

    def read(self, item: str) -> dict[str, Any] | None:
        """Return the last entry of a finished item, whatever its cache key."""
        try:
            entry = json.loads(self.path_of(item).read_text(encoding="utf-8"))
            return entry if {"recipe", "info", "files"} <= entry.keys() else None
        except (OSError, ValueError, AttributeError):
            return None

    def is_intact(self, entry: Mapping[str, Any]) -> bool:
        """Return whether an entry has this cache key and its files still have their checksums."""
        return entry["recipe"] == self.cache_key and all(
            (path := self.root / made["path"]).is_file()
            and path.stat().st_size == made["size"]
            and atomic.sha256_of(path) == made["sha256"]
            for made in entry["files"]
        )

    def add(self, item: str, entry: Mapping[str, Any]) -> None:
        """Add a finished item. (`atomic.replacing` would list the folder of all items.)"""
        path = self.path_of(item)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = atomic.temporary_name(path)
        try:
            text = json.dumps({"recipe": self.cache_key, **entry}, sort_keys=True)
            temporary.write_text(text + "\n", encoding="utf-8")
            atomic.move_into_place(temporary, path)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def make_item(
    item: str,
    work: Callable[[str, ItemFiles], Mapping[str, Any] | None],
    log: ResumeLog,
) -> dict[str, Any]:
    """Make one item, or return its entry if an earlier attempt finished it."""
    before = log.read(item)
    if before is not None and log.is_intact(before):
        return {"info": before["info"], "files": before["files"]}
    made = ItemFiles(log.root)
    info = work(item, made)
    written = sorted(made.entries, key=lambda e: e["path"])
    entry: dict[str, Any] = {"info": dict(info or {}), "files": written}
    # Remove files of an earlier call that this one does not write (fewer realisations, another
    # layout). They would be mistaken for products.
    paths = {file["path"] for file in before["files"]} if before else set()
    for path in paths - {file["path"] for file in written}:
        (log.root / path).unlink(missing_ok=True)
    log.add(item, entry)
    return entry


def write_index(path: Path, stage: str, entries: Mapping[str, Any]) -> None:
    """Write the index of a block of items that a stage made."""
    writers.json(path, {"format": FORMAT, "stage": stage, "items": dict(entries)})


@dataclass(frozen=True)
class Item:
    """An item of a block, as a later stage reads it."""

    name: str
    info: dict[str, Any]
    paths: tuple[Path, ...]
    index: Path  # the block index that lists it

    def path(self, relative: str) -> Path:
        """Return the file at `relative` below the index (InputError if it is not listed)."""
        wanted = self.index.parent / relative
        if wanted not in self.paths:
            raise InputError(self.index, f"lists no file {relative}", record=self.name)
        return wanted

    def known(self, name: str, maker: str) -> Any:
        """Return a value of `info` that the stage `maker` sets (InputError if it is missing)."""
        if name not in self.info:
            raise InputError(
                self.index, "is missing", record=self.name, field=name,
                expected=f"a block index of {maker}",
            )  # fmt: skip
        return self.info[name]

    def matching(self, pattern: str) -> list[Path]:
        """Return the files of this item whose names match a glob pattern, sorted."""
        return sorted(path for path in self.paths if path.match(pattern))


@dataclass(frozen=True)
class IndexedFileForm:
    """A file, relative to the folder of the block index."""

    path: str
    size: int


@dataclass(frozen=True)
class IndexedItemForm:
    """What stages read of an item."""

    info: dict[str, Any]
    files: list[IndexedFileForm]


@dataclass(frozen=True)
class IndexForm:
    """What stages read of a block index."""

    format: Literal["skyproof-record-1"]
    items: dict[str, IndexedItemForm]


def read_index(path: str | Path) -> list[Item]:
    """Return the items of a block index, sorted by name.

    Raise InputError if the index has another format, or a file is missing or has another size.
    """
    path = Path(path)
    items = read.form(path, IndexForm, expected=f"a block index ({FORMAT})").items
    return [_item(path, name, items[name]) for name in sorted(items)]


def _item(index: Path, name: str, entry: IndexedItemForm) -> Item:
    paths = []
    for made in entry.files:
        path = index.parent / made.path
        if not path.is_file():
            raise InputError(path, "is missing", record=name, expected=f"a file listed in {index}")
        if path.stat().st_size != made.size:
            raise InputError(
                path, f"has {path.stat().st_size} bytes", record=name, expected=f"{made.size}"
            )
        paths.append(path)
    return Item(name, entry.info, tuple(paths), index)


def read_indexes(paths: Sequence[str | Path]) -> Iterator[Item]:
    """Yield the items of several block indexes in turn; memory holds the names of one block."""
    for path in paths:
        yield from read_index(path)
