"""The files below a folder of results, and their hashes in parallel."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path, PurePosixPath

from skyproof.core.atomic import TEMPORARY_PREFIX, sha256_of
from skyproof.core.blocks import JOURNAL_FOLDER
from skyproof.core.receipts import SUFFIX

# Class "log": checkpoints, TensorBoard, traces, journals hold times and hosts, and no manifest.
LOG_FOLDERS = {"ckpts", "logs", "prof", JOURNAL_FOLDER}

_BATCH = 4096  # files whose results wait in memory at once


def products(folder: Path) -> Iterator[tuple[str, bool]]:
    """Yield (relative path, is it a regular file?) of all outside the log folders.

    Symbolic links are not followed: they, like devices and sockets, are no regular files.
    """
    for path, entry in _walk(folder, ""):
        if not LOG_FOLDERS & set(PurePosixPath(path).parts[:-1]):
            yield path, entry.is_file(follow_symlinks=False)


def receipts(folder: Path) -> Iterator[str]:
    """Yield the relative paths of the receipts below a folder."""
    for path, _ in _walk(folder, ""):
        if path.endswith(SUFFIX) and PurePosixPath(path).parts[-2:-1] == (JOURNAL_FOLDER,):
            yield path


def journals(folder: Path) -> Iterator[str]:
    """Yield the relative paths of the journals of items below a folder."""
    for path, _ in _walk(folder, ""):
        if path.endswith(".json") and PurePosixPath(path).parts[-3:-2] == (JOURNAL_FOLDER,):
            yield path


def _walk(folder: Path, prefix: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    with os.scandir(folder / prefix) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        path = f"{prefix}{entry.name}"
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(folder, f"{path}/")
        else:
            yield path, entry


def is_unfinished(path: str) -> bool:
    """Say whether a file is what a killed process left of its writing."""
    return PurePosixPath(path).name.startswith(TEMPORARY_PREFIX)


def cores() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


def hashes(folder: Path, paths: Iterable[str], workers: int) -> Iterator[tuple[str, str]]:
    """Yield (path, SHA-256) in the order given; hashlib lets the threads run side by side."""
    waiting = iter(paths)
    with ThreadPoolExecutor(workers) as pool:
        while batch := list(islice(waiting, _BATCH)):
            found = pool.map(lambda path: sha256_of(folder / path), batch)
            yield from zip(batch, found, strict=True)
