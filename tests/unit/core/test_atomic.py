"""Files are complete under their final name, or absent, also after SIGKILL."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time

import pytest

from skyproof.core import atomic
from tests.conftest import clean_environment

SLOW_WRITER = """
import sys, time
from pathlib import Path
from skyproof.core.atomic import replacing
for number in range(10_000):
    with replacing(sys.argv[1]) as path:
        with open(path, "wb") as stream:
            for part in range(64):
                stream.write(bytes([number % 256]) * 4096)
                stream.flush()
"""


@pytest.mark.parametrize("delay", [0.31, 0.37, 0.43])
def test_sigkill_leaves_a_complete_file_or_none(tmp_path, delay):
    target = tmp_path / "file.bin"
    process = subprocess.Popen([sys.executable, "-c", SLOW_WRITER, target], env=clean_environment())
    deadline = time.monotonic() + 60
    while not target.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=30)
    content = target.read_bytes()
    assert len(content) == 64 * 4096
    assert len(set(content)) == 1


def test_failure_keeps_the_old_file(tmp_path):
    target = tmp_path / "file.txt"
    target.write_text("old")
    with pytest.raises(ZeroDivisionError):
        write_half(target)
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["file.txt"]


def write_half(target):
    with atomic.replacing(target) as path:
        path.write_text("new")
        raise ZeroDivisionError


def test_suffix_and_folder_are_kept(tmp_path):
    with atomic.replacing(tmp_path / "deep/er/map.fits.gz") as path:
        assert path.name.endswith(".map.fits.gz")
        assert path.parent == tmp_path / "deep/er"
        path.write_bytes(b"x")


def test_sha256(tmp_path):
    content = os.urandom(3 << 20)
    (tmp_path / "a").write_bytes(content)
    assert atomic.sha256_of(tmp_path / "a") == hashlib.sha256(content).hexdigest()
