"""Runs of the toy system that the tests of the proof share."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.unit.proof.build import toy, write_manifest


@pytest.fixture
def results(made, tmp_path) -> Path:
    """A copy of the toy run that a test may change."""
    return shutil.copytree(made, tmp_path / "results", symlinks=True)


@pytest.fixture(scope="session")
def scaled(tmp_path_factory) -> Path:
    """The results of the toy run with another option of its first stage."""
    folder = tmp_path_factory.mktemp("scaled")
    toy(folder, "--scale", "2")
    write_manifest(folder / "results")
    return folder / "results"
