"""Inputs of search and training: the scaled rows of each fold, and the settings of an ensemble."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from skyproof.core.errors import InputError
from skyproof.core.formats import read
from skyproof.learn import ensemble
from skyproof.learn.ensemble.rows import EnsembleRows
from skyproof.sysnet.folds import ORIGINAL_SEED, TRAINING, VALIDATION, Folds, read_folds, read_kept
from skyproof.sysnet.members.member import CYCLE_GROWTH, FIRST_CYCLE
from skyproof.sysnet.members.predict import scaled
from skyproof.sysnet.network import check_model, row_loss, row_slope, shape_of
from skyproof.sysnet.table import Table, read_table

if TYPE_CHECKING:
    from skyproof.sysnet.options import Network


@dataclass(frozen=True)
class FoldRows:
    """The rows of a fold, scaled by its training part; 0 for features that it does not keep."""

    fold: int
    rows: EnsembleRows
    train: np.ndarray  # positions in `rows`
    valid: np.ndarray
    shift: np.ndarray  # f8 [F]
    scale: np.ndarray  # f8 [F]
    keep: np.ndarray  # bool [F]
    label: tuple[float, float]  # of training labels: mean, standard deviation, or minimum, range

    def member(self, seed: int, learning_rate: float, **more: Any) -> ensemble.EnsembleMember:
        """Return a network of this fold, for the ensemble."""
        return ensemble.EnsembleMember(
            seed, self.rows, self.train, self.valid, learning_rate, keep=self.keep, **more
        )


def read_rows(inputs: SimpleNamespace, options: Network) -> tuple[Table, list[FoldRows]]:
    """Return the table, and its rows by fold.

    Raise InputError for invalid files or folds that leak, UsageError for an invalid model.
    """
    check_model(options.model, options.loss)
    table = read_table(inputs.table)
    folds = read_folds(inputs.folds, table)
    keep = read_kept(inputs.selection, folds.n_folds, len(table.names))
    return table, [
        fold_rows(inputs.table, table, folds, fold, keep[fold], options.normalisation)
        for fold in range(folds.n_folds)
    ]


def fold_rows(
    path: Path, table: Table, folds: Folds, fold: int, keep: np.ndarray, normalisation: str
) -> FoldRows:
    """Return the rows of a fold, scaled by its training part.

    Raise InputError if a feature is constant there.
    """
    train, valid = folds.rows(fold, TRAINING), folds.rows(fold, VALIDATION)
    if len(train) < 2:
        raise InputError(
            path, f"gives fold {fold} {len(train)} training rows", expected="2 or more"
        )
    features, label = table.features[train], table.label[train]
    shift, scale = spread(features, normalisation)
    for column in np.flatnonzero(keep & ~(scale > 0)):
        raise InputError(
            path, f"has one value ({features[0, column]:g}) in all training rows of fold {fold}",
            field=f"feature {table.names[column]}", expected="a feature that varies, or axes "
            "without it",
        )  # fmt: skip
    scale = np.where(scale > 0, scale, 1.0)
    middle, width = spread(label[:, None], normalisation)
    rows = EnsembleRows(
        scaled(table.features, shift, scale, keep),
        table.label.astype(np.float32),
        table.fracgood.astype(np.float32),
    )
    return FoldRows(
        fold, rows, train, valid, shift, scale, keep, (float(middle[0]), float(width[0]))
    )


def spread(values: np.ndarray, normalisation: str) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and population standard deviation of each column, or minimum and range."""
    if normalisation == "minmax":
        return values.min(axis=0), np.ptp(values, axis=0)
    # The standard deviation of a constant column is a rounding error, not 0.
    constant = np.ptp(values, axis=0) == 0
    return values.mean(axis=0), np.where(constant, 0.0, values.std(axis=0))


def chain_seeds(n_chains: int) -> list[int]:
    """Return the seeds of the chains, which are the same in every fold, as in the original."""
    draws = np.random.RandomState(ORIGINAL_SEED).randint(0, 2**32 - 1, n_chains, np.int64)
    return [int(draw) + 1000 for draw in draws]


def settings(
    options: Network, structure: tuple[int, int], n_features: int, n_epochs: int, **more: Any
) -> ensemble.EnsembleSettings:
    """Return the settings of an ensemble of the configured networks.

    With weighting `original` a step minimises the sum of the row losses of a batch, as in the
    original, otherwise their weighted mean. With the mean, the step of SGD and the effect of the L1
    weight do not depend on the batch size, including that of a smaller last batch.
    """
    given: dict[str, Any] = {
        "slope": row_slope(options.model, options.loss, options.weighting),
        "group_size": options.group_size,
        "mean": options.weighting != "original",
        "optimiser": options.optimiser,
        "schedule": "cosine" if options.scheduler == "cosann" else "constant",
        "least_rate": options.eta_min,
        "first_cycle": FIRST_CYCLE,
        "cycle_growth": CYCLE_GROWTH,
        "compile": options.compile,
    }
    return ensemble.EnsembleSettings(
        shape_of(options.model, structure, n_features),
        row_loss(options.model, options.loss, options.weighting),
        options.batch,
        n_epochs,
        **(given | more),
    )


@dataclass(frozen=True)
class TuningForm:
    """What is read of tuning.json."""

    learning_rate: float
    structure: tuple[int, int]
    l1_alpha: float


def read_tuning(path: Path) -> tuple[float, tuple[int, int], float]:
    """Return learning rate, structure and L1 weight from tuning.json. Raise InputError."""
    found = read.form(path, TuningForm, expected="tuning.json of sysnet.tune")
    return found.learning_rate, found.structure, found.l1_alpha


def groups(n_members: int, size: int) -> list[Sequence[int]]:
    """Return the members of each group, by number."""
    return [range(start, min(start + size, n_members)) for start in range(0, n_members, size)]
