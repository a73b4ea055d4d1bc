"""Errors of the machine: exit 4, one line with the path, the reason and a remedy."""

from __future__ import annotations

import errno
import os

import numpy as np
import pytest

from skyproof import __main__
from skyproof.core.errors import EnvironmentProblem, InputError, report
from skyproof.proof import verify as verification

REMEDIES = {
    errno.ENOSPC: "free disk space",
    errno.EDQUOT: "free disk space",
    errno.EFBIG: "ulimit -f",
    errno.EROFS: "",
    errno.EACCES: "",
    errno.EPERM: "",
    errno.EIO: "may be damaged",
    errno.ESTALE: "start again",
    errno.EMFILE: "ulimit -n",
    errno.ENFILE: "ulimit -n",
    errno.ENOMEM: "mem_mb",
    errno.ENOLCK: "another file system",
    errno.EOPNOTSUPP: "another file system",
    524: "another file system",
}


@pytest.mark.parametrize("number", REMEDIES, ids=lambda n: errno.errorcode.get(n, str(n)))
def test_an_error_of_the_machine_is_one_line_with_a_remedy(number, capsys):
    reason = os.strerror(number)
    assert report(OSError(number, reason, "a/b.fits"), "skyproof toy.noise") == 4
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"skyproof toy.noise: error: a/b.fits: {reason}")
    assert REMEDIES[number] in line


def test_no_memory(capsys):
    with pytest.raises(MemoryError) as caught:
        np.empty(1 << 62, np.uint8)
    assert report(caught.value, "skyproof toy.noise") == 4
    (line,) = capsys.readouterr().err.splitlines()
    assert "not enough memory (Unable to allocate 4.00 EiB" in line
    assert "mem_mb" in line


def test_another_exception_is_a_fault(capsys):
    assert report(FileNotFoundError(errno.ENOENT, "No such file", "x"), "skyproof") == 1
    assert "a fault of skyproof" in capsys.readouterr().err


@pytest.mark.parametrize("kind", [InputError, EnvironmentProblem])
def test_a_message_of_several_lines_is_printed_as_one(kind, capsys):
    words = ("x.fits", "bad\nheader\r\n END") if kind is InputError else ("bad\n\x0bheader END",)
    report(kind(*words), "skyproof toy.noise")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("bad header END")


@pytest.mark.parametrize("error", [OSError(errno.EIO, "I/O error", "x.fits"), MemoryError("x")])
def test_verify_ends_with_the_code_of_the_machine(error, monkeypatch, capsys):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(verification, "verify", fail)
    assert __main__.main(["verify", "results"]) == 4
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_verify_without_a_folder_is_not_the_machine(tmp_path, capsys):
    assert __main__.main(["verify", str(tmp_path / "none")]) == 3
    assert "cannot be read" in capsys.readouterr().err
