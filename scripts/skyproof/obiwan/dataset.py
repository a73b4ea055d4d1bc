"""The arrays of a split: names, channels, readers, and the check for leaks.

`testtrain/<bri>/<brick>/x<part>_<k>.npy` has pixels [n, 64, 64, 2 x bands], `y<part>_<k>.npy` the
labels (real 0, fake 1) and `catalog_<part>_<k>.fits` the same rows of the table of stamps; k counts
from 1 in each brick. Names and order of channels are those of Obiwan's dplearn.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from skyproof.core.blocks import Item
from skyproof.core.errors import InputError
from skyproof.core.formats import read
from skyproof.core.split import check_disjoint
from skyproof.obiwan.groups import group_names
from skyproof.obiwan.stamps.geometry import STAMP, stamp_boxes
from skyproof.obiwan.stamps.overlap import Neighbours, shared_pairs
from skyproof.obiwan.stamps.reader import CLASSES
from skyproof.obiwan.survey import brick_folder
from skyproof.sky.tan import Tan, tan_from_info

PIXEL_TYPES = ("float32", "float16")
_CATALOGUES_KEPT = 64  # catalogues of test bricks that the leak check keeps in memory


class SplitFiles(NamedTuple):
    """The three files of one chunk of a brick: pixels, labels, catalogue."""

    x: Path
    y: Path
    catalog: Path


def channels(bands: str) -> list[str]:
    """Return the names of the channels in order: g_img, g_ivar, r_img, ..."""
    return [f"{band}_{plane}" for band in bands for plane in ("img", "ivar")]


def split_names(brick: str, part: str, k: int) -> tuple[str, str, str]:
    """Return the paths of pixels, labels and catalogue of chunk k, relative to the block index."""
    folder = f"testtrain/{brick_folder(brick)}/{brick}"
    return (
        f"{folder}/x{part}_{k}.npy",
        f"{folder}/y{part}_{k}.npy",
        f"{folder}/catalog_{part}_{k}.fits",
    )


def training_files(items: Iterable[Item]) -> list[SplitFiles]:
    """Return the files of the training part of a split's items, by (brick, k)."""
    return _sorted_files(items, "train")


def test_files(items: Iterable[Item]) -> list[SplitFiles]:
    """Return the files of the test part of a split's items, by (brick, k)."""
    return _sorted_files(items, "test")


def _sorted_files(items: Iterable[Item], part: str) -> list[SplitFiles]:
    return [files for item in sorted(items, key=lambda i: i.name) for files in files_of(item, part)]


def files_of(item: Item, part: str) -> list[SplitFiles]:
    """Return the files of a part of one brick, by k. Raise InputError if one is missing."""
    found = item.matching(f"testtrain/*/{item.name}/x{part}_*.npy")
    numbers = sorted(int(path.stem.rpartition("_")[2]) for path in found)
    return [
        SplitFiles(*(item.path(name) for name in split_names(item.name, part, k))) for k in numbers
    ]


def open_pixels(path: Path, bands: str) -> np.ndarray:
    """Return pixels [n, 64, 64, 2 x bands], float32 or float16, as a read-only memory map."""
    shape = (None, STAMP, STAMP, 2 * len(bands))
    meaning = f"image and inverse variance of the bands {bands}"
    x = read.npy(path, shape=shape, dtypes=PIXEL_TYPES, meaning=meaning, mapped=True)
    if len(x) == 0:
        raise InputError(path, "has no stamps", expected="one or more")
    return x


def read_labels(path: Path, n_rows: int) -> np.ndarray:
    """Return the labels, f8 [n_rows], each 0 (real) or 1 (fake)."""
    y = read.npy(path, shape=(n_rows,), dtypes=("float64",))
    wrong = np.flatnonzero((y != 0) & (y != 1))
    if len(wrong):
        raise InputError(
            path, f"is {y[wrong[0]]}", record=int(wrong[0]), field="label", expected="0 or 1"
        )
    return y


def check_finite(x: np.ndarray, path: Path, bands: str, first_row: int = 0) -> None:
    """Raise InputError for NaN or infinite pixels in rows [n, 64, 64, 2 x bands] of a file.

    `first_row` is the number of the first given row in the file.
    """
    fine = np.isfinite(x)
    if not fine.all():
        row, _, _, channel = np.argwhere(~fine)[0]
        raise InputError(
            path,
            "has NaN or infinity",
            record=first_row + int(row),
            field=channels(bands)[channel],
            expected="finite pixels",
        )


class SplitBrick(NamedTuple):
    """A brick of a split, as the leak check needs it; about 600 bytes."""

    name: str
    root: Path
    tan: Tan
    patch_pixels: int
    n_files: dict[str, int]

    def catalogs(self, part: str) -> list[Path]:
        """Return the paths of the catalogues of a part."""
        numbers = range(1, self.n_files[part] + 1)
        return [self.root / split_names(self.name, part, k)[2] for k in numbers]


class PlacedStamps(NamedTuple):
    """The stamps [n] of one brick and part: their sources, groups and pixel boxes."""

    sources: list[str]  # realisation, class and identifier, unique in a brick
    groups: list[str]
    boxes: np.ndarray
    origins: list[tuple[Path, int]]  # catalogue and row


def check_no_leak(items: Iterable[Item], log: logging.Logger | None = None) -> None:
    """Raise InputError if training and test stamps share a group, a source or sky.

    For each brick and its neighbours the check compares groups (bricks or patches), sources, and
    the sky covered by the stamps of both parts. It reads catalogues but no pixels. A split by
    source shares sky by construction: then only a warning is logged.
    """
    bricks = []
    for item in items:
        if item.known("split_by", "obiwan.split") == "source":
            (log or logging.getLogger("skyproof")).warning(
                "no leak check: split_by: source puts stamps of the same sky in both parts"
            )
            return
        n_files = {part: len(files_of(item, part)) for part in ("train", "test")}
        if any(n_files.values()):
            tan = tan_from_info(item.info, item.index)
            patch = item.known("patch_pixels", "obiwan.split")
            bricks.append(SplitBrick(item.name, item.index.parent, tan, patch, n_files))
    neighbours = Neighbours([brick.tan for brick in bricks])
    read_test = lru_cache(_CATALOGUES_KEPT)(lambda index: _rows(bricks[index], "test"))
    for index, brick in enumerate(bricks):
        if not brick.n_files["train"]:
            continue
        across = [i for i in [index, *neighbours.near(index)] if bricks[i].n_files["test"]]
        if across:
            train = _rows(brick, "train")
            for other in across:
                _check_nothing_shared(brick, train, bricks[other], read_test(other))


def _rows(brick: SplitBrick, part: str) -> PlacedStamps:
    sources, groups, boxes, origins = [], [], [np.empty((0, 4))], []
    for path in brick.catalogs(part):
        table = read.fits_table(path, ["rs", "label", "id", "x", "y"])
        x, y = table["x"], table["y"]
        names = zip(table["rs"], table["label"], table["id"], strict=True)
        sources += [f"{rs} {CLASSES[label]} {number}" for rs, label, number in names]
        groups += group_names(brick.name, x, y, brick.patch_pixels).tolist()
        boxes.append(stamp_boxes(x, y))
        origins += [(path, row) for row in range(len(x))]
    return PlacedStamps(sources, groups, np.concatenate(boxes), origins)


def _check_nothing_shared(
    a: SplitBrick, train: PlacedStamps, b: SplitBrick, test: PlacedStamps
) -> None:
    if a.name == b.name:
        file = train.origins[0][0]
        check_disjoint(train.groups, test.groups, file=file, what="group")
        check_disjoint(train.sources, test.sources, file=file, what="source")
    pairs = shared_pairs(train.boxes, a.tan, test.boxes, b.tan)
    if pairs:
        row, other = min(pairs)
        (path, number), (other_path, other_number) = train.origins[row], test.origins[other]
        raise InputError(
            path,
            f"shares sky with record {other_number} of {other_path.parent.name}/{other_path.name}",
            record=number,
            expected="training stamps that do not cover the sky of test stamps",
        )
