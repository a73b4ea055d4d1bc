"""Folds: the training, validation and test rows of each network; and the check for leaks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from skyproof.core.errors import InputError
from skyproof.core.formats import read, write
from skyproof.sysnet.table import Table

TRAINING, VALIDATION, TEST = 0, 1, 2
PART_NAMES = ("training", "validation", "test")
SCHEMES = ("spatial", "rows85")
ORIGINAL_SEED = 85  # seed of the original's random folds and chains


@dataclass(frozen=True)
class Folds:
    """The part of every row in every fold. Rows are those of the table, in its order.

    `group` is the superpixel (NESTED index at `nside_group`) that contains the pixel. `place` is
    the position of a row within its part, if that is not the order of the table.
    """

    hpix: np.ndarray  # int64 [n]
    group: np.ndarray  # int64 [n]
    part: np.ndarray  # uint8 [n, n_folds]: TRAINING, VALIDATION or TEST
    scheme: str = "spatial"
    nside_group: int = 8
    place: np.ndarray | None = None  # int64 [n, n_folds]

    @property
    def n_folds(self) -> int:
        return int(self.part.shape[1])

    def rows(self, fold: int, part: int) -> np.ndarray:
        """Return the rows of a part, int64, ordered as in the table or by `place`."""
        rows = np.flatnonzero(self.part[:, fold] == part)
        if self.place is None:
            return rows
        return rows[np.argsort(self.place[rows, fold], kind="stable")]

    def tested_by(self) -> np.ndarray:
        """Return the fold that tests each row, int64 [n]; -1 if none does (a single fold)."""
        tests = self.part == TEST
        return np.where(tests.any(axis=1), tests.argmax(axis=1), -1)


def read_folds(path: str | Path, table: Table) -> Folds:
    """Read the folds of a table. Raise InputError if they leak or belong to another table."""
    columns, header = read.fits_table_and_header(
        path, ("hpix", "group", "part"), optional=("place",)
    )
    n = len(columns["hpix"])
    place = columns.get("place")
    folds = Folds(
        hpix=columns["hpix"].astype("i8"),
        group=columns["group"].astype("i8"),
        part=columns["part"].astype("u1").reshape(n, -1),
        scheme=str(header.get("SCHEME", "")).strip(),
        nside_group=int(header.get("NSIDEGRP", 0)),
        place=None if place is None else place.astype("i8").reshape(n, -1),
    )
    check_folds(path, folds)
    if not np.array_equal(folds.hpix, table.hpix):
        raise InputError(path, "has other pixels than the table", field="hpix")
    return folds


def write_folds(path: str | Path, folds: Folds) -> None:
    """Write folds that have been checked; equal folds give equal bytes."""
    columns = {
        "hpix": folds.hpix.astype("i8"),
        "group": folds.group.astype("i8"),
        "part": folds.part.astype("u1"),
    }
    if folds.place is not None:
        columns["place"] = folds.place.astype("i8")
    header = {"SCHEME": folds.scheme, "NFOLDS": folds.n_folds, "NSIDEGRP": folds.nside_group}
    write.fits_table(path, columns, extname="FOLDS", header=header)


def check_folds(path: str | Path, folds: Folds) -> None:
    """Raise InputError for a leak, an empty part, or rows that are not tested exactly once.

    Every training calls this function through `read_folds`. In the spatial scheme a superpixel in
    two parts of a fold is a leak, because its pixels share large-scale structure. The original's
    random rows (`rows85`) leak by construction and are for comparison only.
    """
    if folds.scheme not in SCHEMES:
        raise InputError(path, f"is {folds.scheme!r}", field="SCHEME", expected="spatial, rows85")
    if folds.part.size == 0 or folds.part.max() > TEST:
        raise InputError(path, "has unknown parts", field="part", expected="0, 1 or 2")
    if len(np.unique(folds.hpix)) < len(folds.hpix):
        raise InputError(path, "holds a pixel twice", field="hpix")
    for fold in range(folds.n_folds):
        for part, name in enumerate(PART_NAMES):
            if not (folds.part[:, fold] == part).any():
                raise InputError(path, f"the {name} part of fold {fold} is empty", field="part")
    tested = (folds.part == TEST).sum(axis=1)
    if folds.n_folds > 1 and (tested != 1).any():
        row = int(np.argmax(tested != 1))
        raise InputError(
            path, f"is tested by {tested[row]} folds", record=row, field="part",
            expected="every row tested once",
        )  # fmt: skip
    if folds.scheme == "spatial":
        _check_groups_in_one_part(path, folds)


def _check_groups_in_one_part(path: str | Path, folds: Folds) -> None:
    groups, member = np.unique(folds.group, return_inverse=True)
    for fold in range(folds.n_folds):
        present = np.zeros((len(groups), len(PART_NAMES)), bool)
        present[member, folds.part[:, fold]] = True
        straddling = np.flatnonzero(present.sum(axis=1) > 1)
        if len(straddling):
            names = [name for name, here in zip(PART_NAMES, present[straddling[0]], strict=True)
                     if here]  # fmt: skip
            more = f", and {len(straddling) - 1} more" if len(straddling) > 1 else ""
            raise InputError(
                path, f"superpixel {groups[straddling[0]]} is in the {' and '.join(names)} parts "
                f"of fold {fold}{more}", field="part", expected="every group in one part only",
            )  # fmt: skip


@dataclass(frozen=True)
class SelectionForm:
    """What is read of selection.json: the columns that each fold keeps."""

    keep: dict[str, list[int]]


def read_kept(path: Path, n_folds: int, n_features: int) -> np.ndarray:
    """Return the features that each fold keeps, bool [n_folds, F], from selection.json.

    Raise InputError if the file does not give, for each fold, at least one column in 0 to F - 1.
    """
    keep = np.zeros((n_folds, n_features), bool)
    columns = read.form(path, SelectionForm, expected="selection.json of sysnet.select").keep
    for fold in range(n_folds):
        kept = columns.get(str(fold), [])
        if not kept or not set(kept) <= set(range(n_features)):
            raise InputError(
                path, f"fold {fold} keeps {kept}", field="keep",
                expected=f"columns from 0 to {n_features - 1} for the folds 0 to {n_folds - 1}",
            )  # fmt: skip
        keep[fold, kept] = True
    return keep
