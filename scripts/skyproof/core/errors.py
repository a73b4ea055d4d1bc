"""Errors that a user can cause or fix, each with an exit code and a one-line message."""

from __future__ import annotations

import difflib
import errno
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self, TypeGuard


class SkyproofError(Exception):
    """Base of the errors that end a command with a one-line message and a documented exit code.

    `collective` is true if all ranks of the world raise the same error at the same place.
    """

    exit_code = 1

    def __init__(self, message: str, *, collective: bool = False) -> None:
        super().__init__(message)
        self.collective = collective

    @classmethod
    def again(cls, message: str, *, collective: bool = False) -> Self:
        """Return an error of this class with a complete message."""
        error = cls.__new__(cls)  # a subclass may compose its message from other arguments
        SkyproofError.__init__(error, message, collective=collective)
        return error

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle as class, message and `collective`, for any signature of the constructor."""
        return _again, (type(self), str(self), self.collective)


def _again(kind: type[SkyproofError], message: str, collective: bool) -> SkyproofError:
    return kind.again(message, collective=collective)


class UsageError(SkyproofError):
    """The command line or the configuration is wrong (exit 2)."""

    exit_code = 2


class InputError(SkyproofError):
    """A file, record or field does not have the form or value that the stage requires (exit 3).

    `record` names a row or an item of the file.
    """

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
    """The machine lacks something that was requested (exit 4).

    Examples: the number of ranks, the launcher, a GPU, disk space, permissions.
    """

    exit_code = 4


_SPACE = "free disk space and start again; finished work is kept"
_OTHER_FOLDER = "use a folder on another file system"
_OPEN_FILES = "raise the limit of open files (ulimit -n)"
_MORE_MEMORY = "request more memory (mem_mb) or use smaller blocks"
_NFS_NO_LOCKS = 524  # ENOTSUPP of Linux, which errno does not name: flock on some NFS servers

# The errors of the machine, with what a user can do; the empty text where the reason says it.
_MACHINE_ERRNOS = {
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: _SPACE,
    errno.EFBIG: "raise the limit of a file's size (ulimit -f) or " + _OTHER_FOLDER,
    errno.EROFS: "",
    errno.EACCES: "",
    errno.EPERM: "",
    errno.EIO: "the disk or its connection may be damaged",
    errno.ESTALE: "the file server replaced the file; start again",
    errno.EMFILE: _OPEN_FILES,
    errno.ENFILE: _OPEN_FILES,
    errno.ENOMEM: _MORE_MEMORY,
    errno.ENOLCK: _OTHER_FOLDER,
    errno.EOPNOTSUPP: _OTHER_FOLDER,
    _NFS_NO_LOCKS: _OTHER_FOLDER,
}


def is_machine_problem(error: BaseException) -> TypeGuard[OSError]:
    """Return whether the cause is the machine: disk, permissions, I/O, locks, memory, limits."""
    return isinstance(error, OSError) and error.errno in _MACHINE_ERRNOS


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Add `path` to machine errors without a file name, as those of failed writes."""
    try:
        yield
    except OSError as error:
        if error.filename is None and is_machine_problem(error):
            error.filename = str(path)
        raise


def from_os_error(error: OSError) -> EnvironmentProblem:
    """Return the error of a failed read or write, with file, reason and remedy."""
    name = f"{error.filename}: " if error.filename else ""
    remedy = _MACHINE_ERRNOS.get(error.errno or 0, "")
    return EnvironmentProblem(
        f"{name}{error.strerror or error}" + (f"; {remedy}" if remedy else "")
    )


class Fault(SkyproofError):
    """An unexpected exception: an error in the code, not of the user (exit 1)."""

    def __init__(self, error: BaseException) -> None:
        where = "a fault of skyproof; --debug shows where"
        super().__init__(f"{type(error).__name__}: {error} ({where})")


def as_skyproof_error(error: Exception) -> SkyproofError:
    """Return any exception as a SkyproofError, with its message and exit code."""
    if isinstance(error, SkyproofError):
        return error
    if is_machine_problem(error):
        return from_os_error(error)
    if isinstance(error, MemoryError):
        what = f" ({error})" if str(error) else ""
        return EnvironmentProblem(f"not enough memory{what}; {_MORE_MEMORY}")
    return Fault(error)


def report(error: Exception, command: str, *, debug: bool = False) -> int:
    """Print an error on stderr (with `debug` also the traceback) and return its exit code."""
    problem = as_skyproof_error(error)
    if debug:
        traceback.print_exception(error)
    # Messages of libraries may have several lines.
    lines = (line.strip() for line in str(problem).splitlines())
    message = " ".join(line for line in lines if line)
    print(f"{command}: error: {message}", file=sys.stderr, flush=True)
    return problem.exit_code


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return '; did you mean X?' for the closest known name, or the list of names."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    if near:
        return f"; did you mean {near[0]}?"
    return f"; known: {', '.join(names)}" if names else ""
