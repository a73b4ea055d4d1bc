"""A small split in which the classes differ, made by the stages themselves; shared by tests."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from skyproof.core.stage import Context
from skyproof.obiwan import assign, split
from skyproof.obiwan.options import Assign, Split
from tests.unit.obiwan.build.stamps import Brick, tan_at, write_block

SEED = 20180501


def write_split(folder: Path, n_bricks: int = 5, n: int = 12, bands: str = "g") -> Path:
    """Write stamps of bricks far apart, `n` of each class; split them; return the block index.

    The pixels of a stamp are equal and tell its class: anything that learns finds it.
    """
    bricks = [Brick(f"{i:02d}10p060", tan_at(20.0 * i, 6.0), n, n) for i in range(n_bricks)]
    cutouts = write_block(folder / "cutouts", "block-00000", bricks, bands)
    table, index = folder / "assign/membership.csv", folder / "split/block-00000.json"
    table.parent.mkdir(parents=True)
    assign.run(
        SimpleNamespace(cutouts=[cutouts]),
        SimpleNamespace(membership=table),
        Assign(),
        Context("obiwan.assign", seed=SEED),
    )
    split.run(
        SimpleNamespace(cutouts=cutouts, membership=table),
        SimpleNamespace(split=index),
        Split(bands=bands, rows_train=16, rows_test=8),
        Context("obiwan.split", seed=SEED),
    )
    return index
