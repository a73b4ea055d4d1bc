"""Atomic files: under its final name, a file is either complete or absent."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from skyproof.core.errors import naming

TEMPORARY_PREFIX = ".tmp-"


def temporary_name(path: Path) -> Path:
    """Return a temporary path in the same folder, unique to this host and process.

    It keeps the suffix of `path`, because some writers require it.
    """
    return path.with_name(f"{TEMPORARY_PREFIX}{socket.gethostname()}-{os.getpid()}.{path.name}")


def remove_leftovers(path: Path) -> None:
    """Remove temporary files of `path` left by killed processes of this host."""
    prefix = f"{TEMPORARY_PREFIX}{socket.gethostname()}-"
    for leftover in path.parent.glob(f"{prefix}*.{path.name}"):
        pid = leftover.name[len(prefix) :].split(".", 1)[0]
        if pid.isdigit() and int(pid) != os.getpid() and not _alive(int(pid)):
            leftover.unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def move_into_place(temporary: Path, final: Path) -> None:
    """Flush `temporary` to disk and rename it to `final`, which is then complete."""
    with open(temporary, "rb+") as stream:
        os.fsync(stream.fileno())
    os.replace(temporary, final)
    folder = os.open(final.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path; rename it to `path` if the block raises nothing, else remove it."""
    final = Path(path)
    final.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(final)
    temporary = temporary_name(final)
    try:
        with naming(final):
            yield temporary
            move_into_place(temporary, final)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def sha256_of(path: str | Path) -> str:
    """Return the SHA-256 of a file. It is read in pieces: memory does not grow with its size."""
    with open(path, "rb", buffering=0) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
