"""A small table with its folds and members, in files, for tests of stages after training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from skyproof.sysnet.folds import TEST, TRAINING, VALIDATION, Folds, write_folds
from skyproof.sysnet.members.member import SavedNetwork
from skyproof.sysnet.table import Table, write_table
from tests.unit.sysnet.build.members import make_member, write_groups

FEATURES = ("a", "b", "c")


def make_table(n: int = 60, seed: int = 3) -> Table:
    """Return a table of `n` pixels at nside 16 with three features and counts."""
    rng = np.random.default_rng(seed)
    return Table(
        hpix=np.sort(rng.choice(12 * 16**2, n, replace=False)).astype(np.int64),
        label=rng.poisson(5.0, n).astype(float),
        fracgood=rng.uniform(0.3, 1.0, n),
        features=rng.normal(size=(n, len(FEATURES))),
        names=FEATURES,
        nside=16,
        ordering="RING",
        frame="C",
    )


def make_folds(table: Table, n_folds: int = 3) -> Folds:
    """Return folds in which row i belongs to group i % n_folds, tested by the fold of its group."""
    group = np.arange(len(table.hpix)) % n_folds
    part = np.full((len(group), n_folds), TRAINING, np.uint8)
    for fold in range(n_folds):
        part[group == (fold + 1) % n_folds, fold] = VALIDATION
        part[group == fold, fold] = TEST
    return Folds(table.hpix, group.astype(np.int64), part, scheme="spatial", nside_group=8)


@dataclass(frozen=True)
class TableFiles:
    """The files of a table, its folds, and the block index of its members."""

    table: Path
    folds: Path
    members: Path

    def words(self) -> list[str]:
        return [f"table={self.table}", f"folds={self.folds}", f"members={self.members}"]


def write_files(
    folder: Path, *, n_folds: int = 3, n_chains: int = 2, group_size: int = 2, **about: object
) -> tuple[TableFiles, list[SavedNetwork]]:
    """Write table, folds and members with random weights; return their paths and the members."""
    folder.mkdir(parents=True, exist_ok=True)
    table = make_table()
    write_table(folder / "table.fits", table)
    write_folds(folder / "folds.fits", make_folds(table, n_folds))
    members = [
        make_member(fold, chain, features=FEATURES, **about)  # type: ignore[arg-type]
        for fold in range(n_folds)
        for chain in range(n_chains)
    ]
    index = write_groups(folder / "train", members, group_size)
    return TableFiles(folder / "table.fits", folder / "folds.fits", index), members
