"""Stage sysnet.split: folds of separate sky.

Neighbouring pixels share large-scale structure. A network trained on a pixel predicts its
neighbours too well, and its weights then remove real clustering. Hence whole superpixels are
assigned to folds, in the order of a hash and balanced by rows and galaxies. `rows85` draws single
rows exactly as the original does, for comparison.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np

from skyproof.core.errors import InputError, UsageError
from skyproof.core.split import assign_parts
from skyproof.sky import healpix
from skyproof.sysnet.folds import (
    ORIGINAL_SEED,
    TEST,
    TRAINING,
    VALIDATION,
    Folds,
    check_folds,
    write_folds,
)
from skyproof.sysnet.table import Table, read_table

if TYPE_CHECKING:
    from pathlib import Path

    from skyproof.core.stage import Context
    from skyproof.sysnet.options import Split

# The original's proportions: 60 % training, 20 % validation, 20 % test.
_TEST_SHARES = 5
_VALIDATION_SHARES = 4  # of the rows that are not tested


def run(
    inputs: SimpleNamespace, outputs: SimpleNamespace, options: Split, context: Context
) -> None:
    """Write the folds of a table."""
    table = read_table(inputs.table)
    folds = make_folds(inputs.table, table, options)
    write_folds(outputs.folds, folds)
    sizes = np.bincount(folds.part[:, 0], minlength=3)
    context.log.info(
        "%d rows in %d superpixels; %d folds (%s), the first with %d training, %d validation, "
        "%d test rows", len(table), len(np.unique(folds.group)), folds.n_folds, folds.scheme,
        *sizes,
    )  # fmt: skip


def make_folds(path: str | Path, table: Table, options: Split) -> Folds:
    """Return the folds of a table. Raise InputError if it has too few rows or superpixels."""
    group = superpixels(table, options.nside_group)
    place = None
    if options.fold_scheme == "rows85":
        part, place = random_rows(path, len(table), options.n_folds)
    else:
        part = spatial(path, table, group, options.n_folds, options.seed)
    folds = Folds(table.hpix, group, part, options.fold_scheme, options.nside_group, place)
    check_folds(path, folds)
    return folds


def superpixels(table: Table, nside_group: int) -> np.ndarray:
    """Return the NESTED index [n] of the superpixel of each row.

    Raise UsageError if the superpixels are finer than the pixels.
    """
    if nside_group > table.nside or nside_group & (nside_group - 1):
        raise UsageError(
            f"nside_group: is {nside_group}; expected a power of 2 up to {table.nside}, the nside "
            "of the table"
        )
    return healpix.superpixels(table.hpix, table.nside, nside_group)


def spatial(
    path: str | Path, table: Table, group: np.ndarray, n_folds: int, seed: int
) -> np.ndarray:
    """Return the part [n, n_folds] of every row; all rows of a superpixel have the same part."""
    groups, member = np.unique(group, return_inverse=True)
    least = max(n_folds, 3)
    if len(groups) < least:
        raise InputError(
            path, f"covers {len(groups)} superpixels", field="hpix",
            expected=f"at least {least} for {n_folds} folds; a finer nside_group has more",
        )  # fmt: skip
    load = _load(table, member)
    test = assign_parts(groups, load, _TEST_SHARES if n_folds == 1 else n_folds, f"{seed}|test")
    part = np.full((len(groups), n_folds), TRAINING, np.uint8)
    for fold in range(n_folds):
        rest = np.flatnonzero(test != fold)
        share = assign_parts(
            groups[rest], load[rest], _VALIDATION_SHARES, f"{seed}|validation {fold}"
        )
        part[rest[share == 0], fold] = VALIDATION
        part[test == fold, fold] = TEST
    return part[member]


def _load(table: Table, member: np.ndarray) -> np.ndarray:
    """Return each superpixel's share of the rows plus its share of the galaxies."""
    galaxies = np.bincount(member, table.label)
    return np.bincount(member) / len(member) + galaxies / galaxies.sum()


def random_rows(path: str | Path, n: int, n_folds: int) -> tuple[np.ndarray, np.ndarray]:
    """Return part and place [n, n_folds] of the original's folds, or of its 60/20/20 division.

    Rows and their order equal those of the original (sysnet/sources/io.py): the same functions of
    scikit-learn and numpy are called in the same order with the same seed.
    """
    if n < max(n_folds, 5):
        raise InputError(path, f"has {n} rows", expected=f"at least {max(n_folds, 5)}")
    part = np.full((n, n_folds), TRAINING, np.uint8)
    place = np.empty((n, n_folds), np.int64)
    divisions = [_one_division(n)] if n_folds == 1 else _k_divisions(n, n_folds)
    for fold, division in enumerate(divisions):
        for name, rows in enumerate(division):
            part[rows, fold] = name
            place[rows, fold] = np.arange(len(rows))
    return part, place


def _k_divisions(n: int, n_folds: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Return the rows of the training, validation and test parts of each fold."""
    from sklearn.model_selection import KFold

    draw = np.random.RandomState(ORIGINAL_SEED)  # the original seeds numpy's global generator
    divisions = []
    for rest, test in KFold(n_folds, shuffle=True, random_state=ORIGINAL_SEED).split(np.arange(n)):
        validation = draw.choice(rest, size=min(len(test), len(rest) - 1), replace=False)
        divisions.append((np.setdiff1d(rest, validation), validation, test))
    return divisions


def _one_division(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    from sklearn.model_selection import train_test_split

    rest, test = train_test_split(np.arange(n), test_size=0.2, random_state=ORIGINAL_SEED)
    training, validation = train_test_split(rest, test_size=0.25, random_state=ORIGINAL_SEED)
    return training, validation, test
