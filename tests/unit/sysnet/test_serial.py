"""The serial stages of a region give the same bytes on one rank and on two."""

from __future__ import annotations

from pathlib import Path

import pytest

from skyproof.sysnet.table import write_table
from tests.conftest import skyproof, tree_bytes
from tests.unit.sysnet.build.sky import sky_table


def make_region(folder: Path, ranks: int) -> dict[str, bytes]:
    """Return the products of tabulate, split and select, each started on several ranks."""
    folder.mkdir()
    table = sky_table(nside=16)
    write_table(folder / "given.fits", table)
    for words in (
        ["sysnet.tabulate", "--in", "table=given.fits", "--out", "table=table.fits"],
        ["sysnet.split", "--in", "table=table.fits", "--out", "folds=folds.fits"],
        ["sysnet.select", "--in", "table=table.fits", "folds=folds.fits",
         "--out", "selection=selection.json", "--do-rfe", "true"],
    ):  # fmt: skip
        done = skyproof(*words, cwd=folder, ranks=ranks)
        assert done.returncode == 0, done.stderr
    return tree_bytes(folder)


@pytest.mark.mpi
def test_two_ranks_give_the_bytes_of_one(tmp_path):
    one = make_region(tmp_path / "one", 1)
    assert {"table.fits", "folds.fits", "selection.json"} <= one.keys()
    assert make_region(tmp_path / "two", 2) == one
