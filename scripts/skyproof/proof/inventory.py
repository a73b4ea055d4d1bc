"""List the files below a folder of results, and hash them in parallel."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path, PurePosixPath

from skyproof.core.atomic import TEMPORARY_PREFIX, sha256_of
from skyproof.core.blocks import LOG_FOLDER
from skyproof.core.receipts import SUFFIX

# Class "log": checkpoints, TensorBoard files, traces and resume logs contain times and hosts, and
# are in no manifest.
LOG_FOLDERS = {"ckpts", "logs", "prof", LOG_FOLDER}

_BATCH = 4096  # number of files whose digests are held in memory


def products(folder: Path) -> Iterator[tuple[str, bool]]:
    """Yield (relative path, is it a regular file?) of all files outside the log folders.

    Symbolic links are not followed and, like devices and sockets, are not regular files.
    """
    for path, entry in _walk(folder, ""):
        if not LOG_FOLDERS & set(PurePosixPath(path).parts[:-1]):
            yield path, entry.is_file(follow_symlinks=False)


def receipts(folder: Path) -> Iterator[str]:
    """Yield the relative paths of the receipts below a folder."""
    for path, _ in _walk(folder, ""):
        if path.endswith(SUFFIX) and PurePosixPath(path).parts[-2:-1] == (LOG_FOLDER,):
            yield path


def resume_logs(folder: Path) -> Iterator[str]:
    """Yield the relative paths of the resume logs of items below a folder."""
    for path, _ in _walk(folder, ""):
        if path.endswith(".json") and PurePosixPath(path).parts[-3:-2] == (LOG_FOLDER,):
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
    """Return whether a file is a temporary file that a killed process left behind."""
    return PurePosixPath(path).name.startswith(TEMPORARY_PREFIX)


def cores() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


def hashes(folder: Path, paths: Iterable[str], workers: int) -> Iterator[tuple[str, str]]:
    """Yield (path, SHA-256) in the given order, with `workers` threads.

    hashlib releases the interpreter lock, so the threads run in parallel.
    """
    waiting = iter(paths)
    with ThreadPoolExecutor(workers) as pool:
        while batch := list(islice(waiting, _BATCH)):
            found = pool.map(lambda path: sha256_of(folder / path), batch)
            yield from zip(batch, found, strict=True)
