"""The numerics profile is set before any library starts, with every launcher."""

from __future__ import annotations

import subprocess
import sys

import pytest

from skyproof.core.numerics import environment, threads_of
from tests.conftest import clean_environment

SHOW = """
import os, sys
from skyproof.core.numerics import enforce
enforce(sys.argv[1], int(sys.argv[2]))
import numpy
features = numpy._core._multiarray_umath.__cpu_features__
print(os.environ["OMP_NUM_THREADS"], os.environ["TZ"], features.get("X86_V4", False), os.getpid())
"""


def show(profile: str, threads: int) -> list[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", SHOW, profile, str(threads)],
        env=clean_environment(TZ="Asia/Tokyo", OMP_NUM_THREADS="7"),
        stdout=subprocess.PIPE,
        text=True,
    )
    words = process.communicate(timeout=60)[0].split()
    assert int(words.pop()) == process.pid  # launchers watch this process
    return words


def test_portable_means_one_thread_and_no_avx512():
    assert show("portable", 4) == ["1", "UTC", "False"]


def test_native_means_all_threads():
    assert show("native", 4)[:2] == ["4", "UTC"]


def test_threads():
    assert threads_of("portable", 68) == 1
    assert threads_of("native", 68) == 68
    assert "ATEN_CPU_CAPABILITY" not in environment("native", 1)


def test_many_core_settings_of_a_site_survive():
    """OMP placement (KMP_*) is the site's: the profile sets it, this must not override it."""
    assert not [name for name in environment("native", 68) if name.startswith("KMP_")]


@pytest.mark.parametrize("profile", ["portable", "native"])
def test_variables_are_text(profile):
    assert all(isinstance(value, str) for value in environment(profile, 2).values())
