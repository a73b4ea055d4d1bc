"""Runs and images that several files of unit tests share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.unit.proof.build import toy, write_manifest


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Path:
    """The results of a toy run with its manifest; tests work on copies."""
    folder = tmp_path_factory.mktemp("toy")
    toy(folder)
    write_manifest(folder / "results")
    return folder / "results"


@pytest.fixture
def plane() -> np.ndarray:
    """A plane [150, 170] whose values identify the pixel: 1000 y + x."""
    y, x = np.mgrid[:150, :170]
    return (1000 * y + x).astype("f4")
