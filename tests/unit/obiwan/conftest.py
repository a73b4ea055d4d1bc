"""Folders of the tests of cutouts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.obiwan.build.bricks import write_brick


@pytest.fixture
def root(tmp_path) -> Path:
    """A survey of one brick."""
    write_brick(tmp_path)
    return tmp_path


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "cutouts"
