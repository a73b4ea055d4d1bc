"""Stage sysnet.stack: the selection function, a non-negative combination of the models.

Without contamination a network fits the structure of the galaxies; a constant fits nothing. Hence
the models are stacked: the weights (>= 0) of each fold are fitted by least squares to out-of-fold
predictions of the rows that the *other* folds test (spec 1.11). The selection function is then
shrunk towards 1 by the variance that uncontaminated skies would give (`shrinkage`).

- `selection.fits`: partial HEALPix map (HDU 1: PIXEL, SELECTION, STD) of the selection function S,
  mean 1, clipped, and its standard deviation over the networks
- `weights.fits`: hpix, weight = 1 / S, the weight of the galaxies in the pixel
- `stack.json`: use; models; weights by fold and their means; factor, spread, chance of the
  shrinkage; clip, and the number of pixels that were clipped
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np

from skyproof.core.formats import write as writers
from skyproof.sysnet.folds import Folds, read_folds, read_kept
from skyproof.sysnet.table import Table, read_table
from skyproof.sysnet.weights.combination import Combination, OutOfFoldRows, fit_combination
from skyproof.sysnet.weights.predictions import Predictions, read_predictions
from skyproof.sysnet.weights.shrinkage import Shrinkage, shrinkage

if TYPE_CHECKING:
    from skyproof.core.stage import Context
    from skyproof.sysnet.options import Stack

STACKED = ("constant", "linear", "quadratic", "network")


def run(
    inputs: SimpleNamespace, outputs: SimpleNamespace, options: Stack, context: Context
) -> None:
    """Stack, normalise, clip, write."""
    table = read_table(inputs.table)
    folds = read_folds(inputs.folds, table)
    keep = read_kept(inputs.features, folds.n_folds, len(table.names))
    predictions = read_predictions(inputs.baselines, inputs.weights, table)
    stacked = stack_models(table, folds, keep, predictions, options, context.stream)
    selection, weights = stacked.selection, stacked.combination.weights_by_model()
    write(selection, table.hpix[predictions.rows], table, outputs)
    writers.json(outputs.stack, {
        "use": options.use, **weights, **asdict(stacked.shrinkage),
        "clip": [options.clip_low, options.clip_high],
        "clipped_low": selection.clipped_low, "clipped_high": selection.clipped_high,
    })  # fmt: skip
    shares = ", ".join(f"{name} {value:.2f}" for name, value in weights["mean_weights"].items())
    context.log.info("weights %s; S - 1 times %.2f", shares, stacked.shrinkage.factor)


@dataclass(frozen=True)
class StackResult:
    """The combination of the models, its shrinkage, and the resulting selection function."""

    combination: Combination
    shrinkage: Shrinkage
    selection: Selection


def stack_models(
    table: Table,
    folds: Folds,
    keep: np.ndarray,
    predictions: Predictions,
    options: Stack,
    stream: Callable[..., np.random.Generator],
) -> StackResult:
    """Stack, normalise, shrink and clip; `keep` [folds, F] is True for the features in use."""
    tested = OutOfFoldRows.of(table, folds, predictions)
    found = fit_combination(tested, predictions.models, models_of(options))
    density = found.density(predictions.models)
    selection = density / density.mean()
    shrunk = Shrinkage.none(selection)
    if options.use == "stack" and options.shrink:
        shrunk = shrinkage(
            selection, tested, table, folds, keep, n_mocks=options.n_mocks, stream=stream
        )
    bounds = options.clip_low, options.clip_high
    return StackResult(found, shrunk, select(found, predictions, shrunk.factor, *bounds))


def models_of(options: Stack) -> tuple[str, ...]:
    """Return the names of the stacked models."""
    if options.use != "stack":
        return (options.use,)
    return (*STACKED, "forest") if options.forest else STACKED


def write(selection: Selection, hpix: np.ndarray, table: Table, outputs: SimpleNamespace) -> None:
    """Write selection.fits and weights.fits, by pixel."""
    order = np.argsort(hpix, kind="stable")
    header = {"NSIDE": table.nside, "ORDERING": table.ordering, "COORDSYS": table.frame}
    writers.fits_table(
        outputs.selection,
        {"PIXEL": hpix[order], "SELECTION": selection.mean[order], "STD": selection.std[order]},
        extname="SELECTION",
        header={"PIXTYPE": "HEALPIX", **header, "INDXSCHM": "EXPLICIT", "OBJECT": "PARTIAL"},
    )
    writers.fits_table(
        outputs.weights,
        {"hpix": hpix[order], "weight": 1 / selection.mean[order]},
        extname="WEIGHTS",
        header=header,
    )


@dataclass(frozen=True)
class Selection:
    """Selection function of the tested rows: mean and std [m], numbers of clipped pixels."""

    mean: np.ndarray
    std: np.ndarray
    clipped_low: int
    clipped_high: int


def select(
    combination: Combination, predictions: Predictions, factor: float, low: float, high: float
) -> Selection:
    """Return 1 + factor (density / mean - 1), clipped, and its standard deviation over networks."""
    density = combination.density(predictions.models)
    mean = density.mean()
    raw = 1 + factor * (density / mean - 1)
    total, squares = np.zeros(len(density)), np.zeros(len(density))
    for chain in predictions.chains.T:
        alone = combination.density({**predictions.models, "network": chain})
        change = (alone - density) / mean
        total += change
        squares += change**2
    n = predictions.chains.shape[1]
    variance = np.maximum(squares / n - (total / n) ** 2, 0)
    return Selection(
        np.clip(raw, low, high), factor * np.sqrt(variance),
        int((raw < low).sum()), int((raw > high).sum()),
    )  # fmt: skip
