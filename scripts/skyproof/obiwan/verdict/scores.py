"""The inputs of the evaluation: the scored test part, training catalogues, training history."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from skyproof.assess.twosample import rows_by_group
from skyproof.core.blocks import Item
from skyproof.core.errors import InputError
from skyproof.core.formats import read
from skyproof.obiwan.dataset import SplitFiles, files_of, open_pixels
from skyproof.obiwan.groups import group_names

HISTORY = ("step", "epoch", "loss", "accuracy")

_NAMES = ("id", "brick", "rs", "label", "x", "y", "type")
_PLAIN = ("dx", "dy", "r_half")
_BY_BAND = ("mag", "psfsize", "ivar")


def columns_of(bands: str) -> tuple[str, ...]:
    """Return the names of the catalogue columns that the evaluation uses."""
    return (*_NAMES, *_PLAIN, *(f"{kind}_{band}" for kind in _BY_BAND for band in bands))


def read_scores(path: Path, bands: str) -> read.Columns:
    """Return the columns of `scores.parquet`, each [n], with text as str.

    Raise InputError for a file without rows or with one class only, a score outside [0, 1], a label
    other than 0 and 1, or a class without any magnitude in the first band.
    """
    wanted = ("score", *columns_of(bands))
    scores = read.parquet(path, wanted)
    _check_scores(path, scores, f"mag_{bands[0]}")
    return scores


def _check_scores(path: Path, scores: read.Columns, magnitude: str) -> None:
    score, label = scores["score"], scores["label"]
    if not len(score):
        raise InputError(path, "has no row", expected="scores of the test part")
    for name, good, expected in (
        ("score", (score >= 0) & (score <= 1), "a number from 0 to 1"),
        ("label", np.isin(label, (0, 1)), "0 (real) or 1 (fake)"),
    ):
        if not good.all():
            row = int(np.flatnonzero(~good)[0])
            raise InputError(
                path, f"is {scores[name][row]}", record=f"row {row}", field=name, expected=expected
            )
    for number, name in enumerate(("real", "fake")):
        if (label == number).any() and not np.isfinite(scores[magnitude][label == number]).any():
            raise InputError(path, f"is unknown in all {name} rows", field=magnitude)
    if len(np.unique(label)) == 1:
        raise InputError(
            path, f"all {len(label)} rows are {'fake' if label[0] else 'real'}",
            field="label", expected="rows of both classes",
        )  # fmt: skip


def read_training(
    files: Sequence[SplitFiles], bands: str, most: int, stream: np.random.Generator
) -> read.Columns:
    """Return catalogues [n] of training files, read in random order until there are `most` rows."""
    parts: list[read.Columns] = []
    rows = 0
    for index in stream.permutation(len(files)):
        if rows >= most:
            break
        parts.append(read.fits_table(files[index].catalog, columns_of(bands)))
        rows += len(parts[-1]["id"])
    names = columns_of(bands)
    if not parts:
        return {name: np.array([], dtype=np.str_ if name in ("brick", "type") else float)
                for name in names}  # fmt: skip
    return {name: np.concatenate([part[name] for part in parts]) for name in names}


def read_history(path: Path) -> read.Columns:
    """Return the columns step, epoch, loss and accuracy of `history.csv`."""
    history = read.csv(path, HISTORY)
    for name, values in history.items():
        if values.dtype.kind not in "if" or not np.isfinite(values).all():
            raise InputError(path, "has values that are not finite numbers", field=name)
    if not len(history["step"]):
        raise InputError(path, "has no step", expected="a row for each training step")
    return history


def groups_of(table: read.Columns, patch_pixels: int) -> np.ndarray:
    """Return the group of every row, a brick or a patch of a brick, str [n]."""
    groups = table["brick"].astype(object)
    if patch_pixels:
        for mine in rows_by_group(table["brick"]):
            brick = str(table["brick"][mine[0]])
            groups[mine] = group_names(brick, table["x"][mine], table["y"][mine], patch_pixels)
    return groups.astype(np.str_)


@dataclass(frozen=True)
class Features:
    """Columns [n, columns] of training and test part for a classifier that sees no image."""

    names: list[str]
    train: np.ndarray
    test: np.ndarray

    def only(self, names: Sequence[str]) -> Features:
        keep = [self.names.index(name) for name in names]
        return Features(list(names), self.train[:, keep], self.test[:, keep])


def features(train: read.Columns, test: read.Columns, bands: str) -> Features:
    """Return magnitudes, colours, sizes, depths, sub-pixel positions and types as numbers.

    Columns that only give the position of a source are excluded: brick, ra, dec, x, y.
    """
    types = sorted(set(train["type"]) | set(test["type"]))
    both = [_numbers(table, bands, types) for table in (train, test)]
    return Features(list(both[0]), *(_finite_or_nan(part) for part in both))


def _finite_or_nan(columns: read.Columns) -> np.ndarray:
    array = np.stack([column.astype(float) for column in columns.values()], axis=1)
    return np.where(np.isfinite(array), array, np.nan)


def _numbers(table: read.Columns, bands: str, types: Sequence[str]) -> read.Columns:
    columns = {name: table[name] for name in (*_PLAIN, *columns_of(bands)[len(_NAMES + _PLAIN) :])}
    columns |= {
        f"{blue}-{red}": table[f"mag_{blue}"] - table[f"mag_{red}"] for blue, red in pairwise(bands)
    }
    return columns | {f"type={name}": table["type"] == name for name in types}


def matched_columns(bands: str) -> list[str]:
    """Return the features that the weights balance: brightness, colours and size."""
    colours = [f"{blue}-{red}" for blue, red in pairwise(bands)]
    return [f"mag_{bands[0]}", *colours, "r_half"]


def read_pixels_of(
    rows: read.Columns, items: Sequence[Item], bands: str, scores: Path
) -> np.ndarray:
    """Return the pixels [n, 64, 64, 2 x bands], float32, of the given rows of the scores.

    A row is identified in the test files of its brick by (rs, label, id).
    """
    by_name = {item.name: item for item in items}
    pixels = []
    for brick, rs, label, number in zip(
        *(rows[name] for name in ("brick", "rs", "label", "id")), strict=True
    ):
        found = None
        for files in files_of(by_name[brick], "test") if brick in by_name else ():
            table = read.fits_table(files.catalog, ("id", "rs", "label"))
            mine = (table["id"] == number) & (table["rs"] == rs) & (table["label"] == label)
            if mine.any():
                found = open_pixels(files.x, bands)[int(np.flatnonzero(mine)[0])]
                break
        if found is None:
            raise InputError(
                scores, "is not in the test part of the split",
                record=f"brick {brick}, {'fake' if label else 'real'} {number}",
            )  # fmt: skip
        pixels.append(np.asarray(found, dtype=np.float32))
    return np.stack(pixels)
