"""Stage sysnet.select: the features of each fold: all, those of `axes`, or a selected subset.

Recursive feature elimination with a linear model: at each step, remove the feature whose removal
increases the validation loss least. Then keep the smallest set whose loss equals the minimum within
its standard error between superpixels. The set of all features is a candidate, the empty set is
not.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from skyproof.core.errors import UsageError
from skyproof.core.formats import write
from skyproof.core.split import assign_parts
from skyproof.sysnet.folds import TEST, Folds, read_folds
from skyproof.sysnet.table import Table, read_table

if TYPE_CHECKING:
    from skyproof.core.stage import Context
    from skyproof.sysnet.options import Select

# Directions in feature space with singular values below this fraction of the largest are ignored.
_NARROWEST = 1e-12
_QUARTERS = 4


@dataclass(frozen=True)
class Elimination:
    """Elimination of F features in one fold.

    Sets are in order of the elimination: all features, then one fewer at each step, down to one.
    """

    kept: list[int]  # columns, ascending
    order: list[int]  # columns in order of removal, without the last remaining one [F - 1]
    path: list[float]  # validation loss of each set [F]
    excess: list[float]  # loss of each set minus that of the best set [F]
    error: list[float]  # standard error of `excess` between superpixels [F]
    losses: list[list[float | None]]  # [F - 1, F]: loss after removing a column, by step


def run(
    inputs: SimpleNamespace, outputs: SimpleNamespace, options: Select, context: Context
) -> None:
    """Write the columns that each fold keeps, and the losses of the elimination."""
    table = read_table(inputs.table)
    folds = read_folds(inputs.folds, table)
    columns = chosen_columns(options.axes, table.names)
    keep = {str(fold): columns for fold in range(folds.n_folds)}
    scans: dict[str, Any] = {}
    if options.do_rfe:
        for fold in range(folds.n_folds):
            found = eliminate(table, folds, fold, columns, options.rfe_tolerance)
            keep[str(fold)] = found.kept
            scans[str(fold)] = {
                "order": found.order,
                "path": found.path,
                "excess": found.excess,
                "error": found.error,
                "losses": found.losses,
            }
            context.log.info(
                "fold %d keeps %s", fold, ", ".join(table.names[column] for column in found.kept)
            )
    write.json(outputs.selection, {"features": list(table.names), "keep": keep, "scans": scans})


def chosen_columns(axes: list[int] | str, names: tuple[str, ...]) -> list[int]:
    """Return the columns of `axes`, ascending. Raise UsageError if a column does not exist."""
    if axes == "all":
        return list(range(len(names)))
    columns = [int(axis) for axis in axes]
    if not columns:
        raise UsageError("axes: is empty; expected 'all' or at least one column")
    for column in columns:
        if not 0 <= column < len(names):
            listed = ", ".join(f"{i} {name}" for i, name in enumerate(names))
            raise UsageError(f"axes: {column} is no column of the table, which has {listed}")
        if columns.count(column) > 1:
            raise UsageError(f"axes: {column} ({names[column]}) is listed twice")
    return sorted(columns)


def eliminate(
    table: Table, folds: Folds, fold: int, columns: list[int], tolerance: float
) -> Elimination:
    """Eliminate features of one fold; sets within `tolerance` standard errors count as equal.

    The loss of a set is cross-validated: the training and validation rows are divided into four
    quarters, and each quarter is predicted by models fitted on the other three. This uses four
    times the sky of the validation part alone; the test part is not used.
    """
    pairs = _fit_and_validation(table, folds, fold, columns)

    def losses(features: list[int]) -> np.ndarray:
        return np.concatenate([validation.losses(fit.solution(features), features)
                               for fit, validation in pairs])  # fmt: skip

    left = list(range(len(columns)))
    by_group = [losses(left)]
    order, matrix = [], []
    while len(left) > 1:
        row: list[float | None] = [None] * len(table.names)
        trials = {}
        for feature in left:
            trials[feature] = losses([other for other in left if other != feature])
            row[columns[feature]] = float(trials[feature].sum())
        cheapest = min(left, key=lambda feature: float(trials[feature].sum()))
        left.remove(cheapest)
        order.append(cheapest)
        matrix.append(row)
        by_group.append(trials[cheapest])
    excess, error = _against_best(np.array(by_group))
    n_dropped = int(np.flatnonzero(excess <= tolerance * error)[-1])
    kept = sorted(set(range(len(columns))) - set(order[:n_dropped]))
    return Elimination(
        kept=[columns[feature] for feature in kept],
        order=[columns[feature] for feature in order],
        path=[float(losses.sum()) for losses in by_group],
        excess=excess.tolist(),
        error=error.tolist(),
        losses=matrix,
    )


def _fit_and_validation(
    table: Table, folds: Folds, fold: int, columns: list[int]
) -> list[tuple[_Moments, _Moments]]:
    """Return the moments (of the rows to fit, of the rows to predict) of each quarter."""
    rows = np.flatnonzero(folds.part[:, fold] != TEST)
    groups, member = np.unique(folds.group[rows], return_inverse=True)
    share = np.bincount(member) / len(rows)
    quarter = assign_parts(groups, share, _QUARTERS, f"elimination {fold}")[member]
    pairs = []
    for number in np.unique(quarter):
        fit, held_out = rows[quarter != number], rows[quarter == number]
        _, group = np.unique(member[quarter == number], return_inverse=True)
        pairs.append((
            _Moments.of(table, fit, fit, columns, np.zeros(len(fit), int), len(rows)),
            _Moments.of(table, fit, held_out, columns, group, len(rows)),
        ))  # fmt: skip
    return pairs


def _against_best(losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each set's loss minus the minimum, and its standard error; losses [sets, groups].

    The error is that of a sum of paired differences over independent superpixels: both sets are
    evaluated on the same sky.
    """
    total = losses.sum(axis=1)
    difference = losses - losses[np.argmin(total)]
    return difference.sum(axis=1), np.sqrt(losses.shape[1]) * difference.std(axis=1, ddof=0)


@dataclass(frozen=True)
class _Moments:
    """Sums over rows from which the loss of any linear model follows, by superpixel.

    The loss is sum w (y / w - b - x.a)^2 over the number of rows, with w = fracgood and features
    standardised on the rows of the fit. The first axis is superpixels; column 0 is the constant.
    """

    squares: np.ndarray  # [groups, 1 + F, 1 + F]
    products: np.ndarray  # [groups, 1 + F]
    label: np.ndarray  # [groups]

    @classmethod
    def of(
        cls,
        table: Table,
        train: np.ndarray,
        rows: np.ndarray,
        columns: list[int],
        group: np.ndarray,
        n_judged: int,
    ) -> _Moments:
        features = table.features[:, columns]
        known = features[train]
        scale = known.std(axis=0)
        features = (features[rows] - known.mean(axis=0)) / np.where(scale > 0, scale, 1)
        design = np.column_stack([np.ones(len(rows)), features])
        weight = table.fracgood[rows] / n_judged
        density = table.label[rows] / table.fracgood[rows]
        order = np.argsort(group, kind="stable")
        in_groups = np.split(order, np.cumsum(np.bincount(group))[:-1])
        return cls(
            np.array([(design[g].T * weight[g]) @ design[g] for g in in_groups]),
            np.array([design[g].T @ (weight[g] * density[g]) for g in in_groups]),
            np.array([weight[g] @ density[g] ** 2 for g in in_groups]),
        )

    def solution(self, features: list[int]) -> np.ndarray:
        """Return the least-squares coefficients [1 + k] of a linear model of the features [k]."""
        used = [0, *(feature + 1 for feature in features)]
        squares = self.squares.sum(axis=0)[np.ix_(used, used)]
        return np.linalg.lstsq(squares, self.products.sum(axis=0)[used], rcond=_NARROWEST)[0]

    def losses(self, coefficients: np.ndarray, features: list[int]) -> np.ndarray:
        """Return the contribution of each superpixel to the loss of a model, [groups]."""
        used = [0, *(feature + 1 for feature in features)]
        squares = self.squares[:, used][:, :, used]
        return (
            squares @ coefficients @ coefficients
            - 2 * self.products[:, used] @ coefficients
            + self.label
        )
