"""Splits for tests: stamps of bricks, assigned and split."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from skyproof.core.blocks import Item, read_index
from skyproof.core.stage import Context
from skyproof.obiwan import assign, dataset, split
from skyproof.obiwan.options import Assign, Split
from tests.unit.obiwan.build.stamps import Brick, tan_at, write_block

SEED = 20180501


def made(
    folder: Path, blocks: list[list[Brick]], *, bands: str = "g", test_fraction: float = 0.2,
    patch_pixels: int = 0, **options: object,
) -> list[Item]:  # fmt: skip
    """Write stamps of blocks, assign and split them; return the items of all blocks."""
    indexes = [
        write_block(folder / "cutouts", f"block-{i:05d}", block, bands)
        for i, block in enumerate(blocks)
    ]
    return split_of(
        folder,
        indexes,
        bands=bands,
        test_fraction=test_fraction,
        patch_pixels=patch_pixels,
        **options,
    )


def split_of(
    folder: Path, indexes: list[Path], *, test_fraction: float = 0.2, patch_pixels: int = 0,
    **options: object,
) -> list[Item]:  # fmt: skip
    """Assign and split the stamps of some block indexes."""
    table = folder / "assign/membership.csv"
    table.parent.mkdir(parents=True, exist_ok=True)
    assign.run(
        SimpleNamespace(cutouts=indexes),
        SimpleNamespace(membership=table),
        Assign(test_fraction=test_fraction, patch_pixels=patch_pixels),
        Context("obiwan.assign", seed=SEED),
    )
    items = []
    for index in indexes:
        output = folder / "split" / index.name
        split.run(
            SimpleNamespace(cutouts=index, membership=table),
            SimpleNamespace(split=output),
            Split(patch_pixels=patch_pixels, **options),
            Context("obiwan.split", seed=SEED),
        )
        items += read_index(output)
    return items


def rows_of(files: list[dataset.SplitFiles]) -> list[int]:
    """Return the number of rows of each file of labels."""
    return [len(np.load(one.y)) for one in files]


def part_of(folder: Path) -> dict[str, str]:
    """Return brick -> part of a table of bricks."""
    with open(folder / "assign/membership.csv", encoding="utf-8", newline="") as stream:
        return {row["brick"]: row["part"] for row in csv.DictReader(stream)}


def apart(n: int, n_real: int, n_fake: int) -> list[Brick]:
    """Return bricks far from each other."""
    return [Brick(f"{i:02d}10p060", tan_at(20.0 * i, 6.0), n_real, n_fake) for i in range(n)]


def read_split(files: dataset.SplitFiles, bands: str) -> tuple[np.ndarray, np.ndarray]:
    """Return pixels [n, 64, 64, 2 x bands] and labels [n] of a chunk, in memory and checked."""
    x = np.array(dataset.open_pixels(files.x, bands))
    dataset.check_finite(x, files.x, bands)
    return x, dataset.read_labels(files.y, len(x))
