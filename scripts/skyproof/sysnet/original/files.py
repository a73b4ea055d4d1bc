"""The original's files of predictions and losses: `nn-weights.fits` and `metrics.npz`.

metrics.npz contains pickled dictionaries, as in the original, whose readers call
`numpy.load(path, allow_pickle=True)`. The reader here (`core.formats.pickles`) executes no code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from skyproof.core.errors import InputError
from skyproof.core.formats import pickles, write

PARTS = ("train", "valid", "test")


@dataclass
class FoldMetrics:
    """Results of one fold: losses [chain][epoch] (test: [chain], or [chain][snapshot]).

    `constants`: loss of a constant, by kind (base: mean label, mle: counts / fracgood) and part;
    `shift`, `scale` [F] of the features and `label` (mean, standard deviation) are those of the
    training rows.
    """

    train: list[list[float]]
    valid: list[list[float]]
    test: list[Any]
    constants: dict[tuple[str, str], float]
    shift: np.ndarray
    scale: np.ndarray
    label: tuple[float, float]


def write_weights(path: Path, hpix: np.ndarray, density: np.ndarray) -> None:
    """Write pixels [n] and predicted densities [n, columns] in the order they are given."""
    columns = {"hpix": hpix.astype("i8"), "weight": density.astype("f8")}
    write.fits_table(path, columns)


def write_metrics(path: Path, folds: Sequence[FoldMetrics], seeds: Sequence[int]) -> None:
    """Write the losses of all folds.

    The arrays are `base_losses` and `losses` of the original; `stats` of its first version, read by
    the first `TrainedModel`; `mle_losses`, as base_losses for the constant of maximum likelihood;
    and `seeds` of the chains. Equal content gives equal bytes: all objects are new, because a
    pickle stores whether two equal values are the same object.
    """
    losses = {
        part: [_copied(getattr(fold, part)) for fold in folds] for part in PARTS
    }  # in the order of the original's keys
    stats = {
        number: {
            "x": (np.array(_copied(fold.shift)), np.array(_copied(fold.scale))),
            "y": (float(fold.label[0]), float(fold.label[1])),
        }
        for number, fold in enumerate(folds)
    }
    arrays = {
        "base_losses": np.array([_constant(fold, "base") for fold in folds], object),
        "losses": _wrapped(losses),
        "mle_losses": np.array([_constant(fold, "mle") for fold in folds], object),
        "stats": _wrapped(stats),
        "seeds": np.array(seeds, np.int64),
    }
    write.npz(path, arrays)


def read_stats(path: Path, fold: int) -> dict[str, Any]:
    """Return mean and standard deviation of features ('x') and label ('y') from a metrics.npz."""
    found = pickles.read_npz(path)
    stats = found.get("stats")
    if not isinstance(stats, dict) or fold not in stats or "x" not in stats[fold]:
        raise InputError(
            path, "has no mean and standard deviation of the features", field=f"stats[{fold}]",
            expected="metrics.npz of a training with this fold",
        )  # fmt: skip
    return dict(stats[fold])


def _constant(fold: FoldMetrics, kind: str) -> dict[str, float]:
    return {
        name: float(fold.constants[kind, part])
        for name, part in zip(
            ("base_train_loss", "base_valid_loss", "base_test_loss"), PARTS, strict=True
        )
    }


def _copied(values: Any) -> Any:
    """Return nested lists of plain floats, each a new object."""
    return [_copied(v) for v in values] if isinstance(values, (list, np.ndarray)) else float(values)


def _wrapped(value: Any) -> np.ndarray:
    array = np.empty((), object)
    array[()] = value
    return array
