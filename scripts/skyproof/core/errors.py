"""The errors that a user can cause or mend, each with its exit code and one line to read."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


class SkyproofError(Exception):
    """Base of the errors that end a command with one clear line and a documented exit code."""

    exit_code = 1
    collective = False  # raised alike on all ranks of the world

    def __reduce__(self) -> tuple[object, ...]:
        """Travel between ranks as class and message, whatever the constructor takes."""
        return _rebuilt, (type(self), str(self))


def _rebuilt(kind: type[SkyproofError], message: str) -> SkyproofError:
    error = kind.__new__(kind)
    Exception.__init__(error, message)
    return error


class UsageError(SkyproofError):
    """The command line or the configuration is wrong (exit 2)."""

    exit_code = 2


class InputError(SkyproofError):
    """A file, record or field is not what the stage needs (exit 3)."""

    exit_code = 3

    def __init__(
        self,
        file: str | Path,
        problem: str,
        *,
        record: object = None,
        field: str | None = None,
        expected: str | None = None,
    ) -> None:
        where = [str(file)]
        if record is not None:
            where.append(f"record {record}")
        if field is not None:
            where.append(f"field {field}")
        super().__init__(
            f"{', '.join(where)}: {problem}" + (f"; expected {expected}" if expected else "")
        )


class EnvironmentProblem(SkyproofError):
    """The machine is not what was asked for: ranks, launcher, GPU, disk, permissions (exit 4)."""

    exit_code = 4


_MACHINE_ERRNOS = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
    errno.EMFILE,
}


def is_machine_problem(error: OSError) -> bool:
    """Say whether the operating system refused for a reason outside the data: disk, rights, I/O."""
    return error.errno in _MACHINE_ERRNOS


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Name `path` in the machine's errors that name no file, as a refused write does not."""
    try:
        yield
    except OSError as error:
        if error.filename is None and is_machine_problem(error):
            error.filename = str(path)
        raise


def from_os_error(error: OSError) -> EnvironmentProblem:
    """Turn a refused write or read into one line: the file, the reason, and what mends it."""
    name = f"{error.filename}: " if error.filename else ""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    mend = "; make room and start again, what is finished is kept" if full else ""
    return EnvironmentProblem(f"{name}{error.strerror or error}{mend}")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return '; did you mean X?' for the nearest known name, or the list of names."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    if near:
        return f"; did you mean {near[0]}?"
    return f"; known: {', '.join(names)}" if names else ""
