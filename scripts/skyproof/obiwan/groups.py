"""The table of groups: the part of each patch of sky, and the bricks that overlap it.

`membership.csv` has one row per group: `group` (a brick, or `<brick>/<i>_<j>` for a patch),
`brick`, `part` (train, test), `n_real`, `n_fake`, `overlaps` (other bricks that have groups of the
other part and whose images cover sky of this brick; separated by spaces), then the WCS and the size
of the brick: a job that splits one block must exclude training stamps on the test sky of bricks of
other blocks.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from skyproof.core.errors import InputError
from skyproof.core.formats import read, write
from skyproof.sky.stamps import centre_pixel
from skyproof.sky.tan import Tan

TRAIN, TEST = "train", "test"
_CARDS = (
    "CRVAL1", "CRVAL2", "CRPIX1", "CRPIX2", "CD1_1", "CD1_2", "CD2_1", "CD2_2", "IMAGEW", "IMAGEH",
)  # fmt: skip
COLUMNS = ("group", "brick", "part", "n_real", "n_fake", "overlaps", *map(str.lower, _CARDS))


@dataclass(frozen=True)
class Group:
    """One row of the table."""

    name: str
    brick: str
    part: str
    n_real: int
    n_fake: int
    overlaps: tuple[str, ...]
    tan: Tan


def group_names(brick: str, x: np.ndarray, y: np.ndarray, patch_pixels: int) -> np.ndarray:
    """Return the group of each stamp at x, y [n] (pixels of the brick image), as str [n].

    A stamp belongs to the patch that contains its centre pixel.
    """
    if patch_pixels == 0:
        return np.full(len(x), brick)
    cx, cy = centre_pixel(x, y)
    patches = zip(cx // patch_pixels, cy // patch_pixels, strict=True)
    return np.array([f"{brick}/{i}_{j}" for i, j in patches], dtype=np.str_)


def patch_index(group: str) -> tuple[int, int] | None:
    """Return (i, j) from the name of a patch, or None for a whole brick."""
    _, slash, patch = group.partition("/")
    if not slash:
        return None
    i, j = patch.split("_")
    return int(i), int(j)


def write_table(path: Path, groups: Sequence[Group]) -> None:
    """Write the table, rows in the given order."""
    columns: dict[str, list[Any]] = {
        "group": [group.name for group in groups],
        "brick": [group.brick for group in groups],
        "part": [group.part for group in groups],
        "n_real": [group.n_real for group in groups],
        "n_fake": [group.n_fake for group in groups],
        "overlaps": [" ".join(group.overlaps) for group in groups],
    }
    for card in _CARDS:
        columns[card.lower()] = []
    for group in groups:
        cards = group.tan.cards()
        for card in _CARDS:
            columns[card.lower()].append(cards[card])
    write.csv(path, columns)


def read_table(path: Path, bricks: Collection[str]) -> dict[str, list[Group]]:
    """Return the groups of the given bricks and of the bricks that overlap them, by brick.

    The table is read twice, row by row, so that memory contains one block and its neighbours and
    not the whole survey.
    """
    groups: dict[str, list[Group]] = {}
    _collect(path, set(bricks), groups)
    others = {name for rows in groups.values() for group in rows for name in group.overlaps}
    _collect(path, others - set(groups), groups)
    for missing in sorted(others - set(groups)):
        raise InputError(path, "has no row of a brick listed in overlaps", record=missing)
    return groups


def _collect(path: Path, wanted: Collection[str], groups: dict[str, list[Group]]) -> None:
    for group in _rows(path, wanted):
        groups.setdefault(group.brick, []).append(group)


def _rows(path: Path, wanted: Collection[str]) -> Iterator[Group]:
    for number, row in enumerate(read.csv_rows(path, COLUMNS), start=1):
        if row["brick"] in wanted:
            yield _group(path, number, row)


def _group(path: Path, number: int, row: Mapping[str, str]) -> Group:
    if row["part"] not in (TRAIN, TEST):
        raise InputError(
            path, f"is {row['part']!r}", record=number, field="part", expected="train or test"
        )
    try:
        cards = {card: float(row[card.lower()]) for card in _CARDS}
        patch_index(row["group"])
        return Group(
            name=row["group"],
            brick=row["brick"],
            part=row["part"],
            n_real=int(row["n_real"]),
            n_fake=int(row["n_fake"]),
            overlaps=tuple(row["overlaps"].split()),
            tan=Tan.from_header({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", **cards}, path),
        )
    except ValueError:
        raise InputError(
            path, "cannot be read", record=number, expected="a row written by obiwan.assign"
        ) from None
