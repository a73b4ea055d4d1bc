"""The arrays of a split: their names, their channels, reading them, and the check for leaks.

`testtrain/<bri>/<brick>/x<part>_<k>.npy` holds [n, 64, 64, 2 x bands] pixels, `y<part>_<k>.npy` the
labels (real 0, fake 1) and `catalog_<part>_<k>.fits` the same rows of the table of stamps; k counts
from 1 in each brick. The names and the order of the channels are those of Obiwan's dplearn.
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
from skyproof.core.split import check_no_leaks
from skyproof.obiwan.groups import group_names
from skyproof.obiwan.stamps.geometry import STAMP, stamp_boxes
from skyproof.obiwan.stamps.overlap import Neighbours, shared_pairs
from skyproof.obiwan.stamps.reader import CLASSES
from skyproof.obiwan.survey import brick_folder
from skyproof.sky.tan import Tan, tan_from_info

PIXEL_TYPES = ("float32", "float16")
_CATALOGUES_KEPT = 64  # of test bricks, while the leak check looks at their neighbours


class SplitFiles(NamedTuple):
    """The three files of one chunk of a brick: pixels, labels, catalogue."""

    x: Path
    y: Path
    catalog: Path


def channels(bands: str) -> list[str]:
    """Return the names of the channels in their order: g_img, g_ivar, r_img, ..."""
    return [f"{band}_{plane}" for band in bands for plane in ("img", "ivar")]


def split_names(brick: str, part: str, k: int) -> tuple[str, str, str]:
    """Return the names of pixels, labels and catalogue of chunk k, below the record's folder."""
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
    """Return the files of one brick's part, in the order of k (InputError if one is missing)."""
    found = item.matching(f"testtrain/*/{item.name}/x{part}_*.npy")
    numbers = sorted(int(path.stem.rpartition("_")[2]) for path in found)
    return [
        SplitFiles(*(item.path(name) for name in split_names(item.name, part, k))) for k in numbers
    ]


def open_pixels(path: Path, bands: str) -> np.ndarray:
    """Map a file of pixels [n, 64, 64, 2 x bands], float32 or float16, into memory, read-only."""
    shape = (None, STAMP, STAMP, 2 * len(bands))
    meaning = f"image and inverse variance of the bands {bands}"
    x = read.npy(path, shape=shape, dtypes=PIXEL_TYPES, meaning=meaning, mapped=True)
    if len(x) == 0:
        raise InputError(path, "holds no stamp", expected="one or more")
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

    `first_row` is the number in the file of the first row given.
    """
    fine = np.isfinite(x)
    if not fine.all():
        row, _, _, channel = np.argwhere(~fine)[0]
        raise InputError(
            path,
            "holds NaN or infinity",
            record=first_row + int(row),
            field=channels(bands)[channel],
            expected="finite pixels",
        )


def read_split(files: SplitFiles, bands: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the pixels [n, 64, 64, 2 x bands] and labels [n] of a chunk, in memory and checked."""
    x = np.array(open_pixels(files.x, bands))
    check_finite(x, files.x, bands)
    return x, read_labels(files.y, len(x))


class Side(NamedTuple):
    """What the leak check keeps of a brick: about 600 bytes."""

    brick: str
    root: Path
    tan: Tan
    patch_pixels: int
    n_files: dict[str, int]

    def catalogs(self, part: str) -> list[Path]:
        """Return the catalogues of a part."""
        numbers = range(1, self.n_files[part] + 1)
        return [self.root / split_names(self.brick, part, k)[2] for k in numbers]


class PlacedStamps(NamedTuple):
    """The stamps [n] of one brick and part: who they are and which pixels they cover."""

    sources: list[str]  # realisation, class and identifier: what names a source of a brick
    groups: list[str]
    boxes: np.ndarray
    origins: list[tuple[Path, int]]  # catalogue and row


def check_no_leak(items: Iterable[Item], log: logging.Logger | None = None) -> None:
    """Refuse (InputError) a split whose training and test stamps share anything.

    Looked for, brick by brick among neighbours: a group (brick or patch) in both parts, a source in
    both parts, and stamps of the two parts that cover the same sky. Reads catalogues, no pixels.
    A split by source shares sky by its nature: then only a warning is logged.
    """
    sides = []
    for item in items:
        if item.known("split_by", "obiwan.split") == "source":
            (log or logging.getLogger("skyproof")).warning(
                "leak check left out: split_by: source puts stamps of the same sky in both parts"
            )
            return
        n_files = {part: len(files_of(item, part)) for part in ("train", "test")}
        if any(n_files.values()):
            tan = tan_from_info(item.info, item.index)
            patch = item.known("patch_pixels", "obiwan.split")
            sides.append(Side(item.name, item.index.parent, tan, patch, n_files))
    neighbours = Neighbours([side.tan for side in sides])
    read_test = lru_cache(_CATALOGUES_KEPT)(lambda index: _rows(sides[index], "test"))
    for index, side in enumerate(sides):
        if not side.n_files["train"]:
            continue
        across = [i for i in [index, *neighbours.near(index)] if sides[i].n_files["test"]]
        if across:
            train = _rows(side, "train")
            for other in across:
                _refuse_shared(side, train, sides[other], read_test(other))


def _rows(side: Side, part: str) -> PlacedStamps:
    sources, groups, boxes, origins = [], [], [np.empty((0, 4))], []
    for path in side.catalogs(part):
        table = read.fits_table(path, ["rs", "label", "id", "x", "y"])
        x, y = table["x"], table["y"]
        names = zip(table["rs"], table["label"], table["id"], strict=True)
        sources += [f"{rs} {CLASSES[label]} {number}" for rs, label, number in names]
        groups += group_names(side.brick, x, y, side.patch_pixels).tolist()
        boxes.append(stamp_boxes(x, y))
        origins += [(path, row) for row in range(len(x))]
    return PlacedStamps(sources, groups, np.concatenate(boxes), origins)


def _refuse_shared(a: Side, train: PlacedStamps, b: Side, test: PlacedStamps) -> None:
    if a.brick == b.brick:
        file = train.origins[0][0]
        check_no_leaks(train.groups, test.groups, file=file, what="group")
        check_no_leaks(train.sources, test.sources, file=file, what="source")
    pairs = shared_pairs(train.boxes, a.tan, test.boxes, b.tan)
    if pairs:
        row, other = min(pairs)
        (path, number), (other_path, other_number) = train.origins[row], test.origins[other]
        raise InputError(
            path,
            f"shares sky with record {other_number} of {other_path.parent.name}/{other_path.name}",
            record=number,
            expected="training stamps off the sky of test stamps",
        )
