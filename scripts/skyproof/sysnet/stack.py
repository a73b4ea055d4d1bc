"""Stage sysnet.stack: the selection function, a non-negative mix of out-of-fold predictions.

A network alone fits the sky's own structure where there is no contamination; a constant fits
nothing. The mix is decided by data that none of them has seen: for each fold, weights >= 0 of the
models, fitted by least squares to the rows that the *other* folds test (spec 1.11). The selection
function is then drawn towards 1 as far as chance would give it as well (`shrinkage`).

- `selection.fits`: partial HEALPix map (HDU 1: PIXEL, SELECTION, STD) of the selection function S,
  mean 1, held within the clipping, and its standard deviation over the networks
- `weights.fits`: hpix, weight = 1 / S, the weight of the galaxies in the pixel
- `stack.json`: use; models; weights by fold and their means; factor, spread, chance of the
  shrinkage; clip, and how many pixels it held
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
from skyproof.sysnet.weights.combination import Mix, Sample, fit_mix
from skyproof.sysnet.weights.predictions import Predictions, read_predictions
from skyproof.sysnet.weights.shrinkage import Shrinkage, shrinkage

if TYPE_CHECKING:
    from skyproof.core.stage import Context
    from skyproof.sysnet.options import Stack

STACKED = ("constant", "linear", "quadratic", "network")


def run(
    inputs: SimpleNamespace, outputs: SimpleNamespace, options: Stack, context: Context
) -> None:
    """Mix, normalise, clip, write."""
    table = read_table(inputs.table)
    folds = read_folds(inputs.folds, table)
    keep = read_kept(inputs.features, folds.n_folds, len(table.names))
    predictions = read_predictions(inputs.baselines, inputs.weights, table)
    mixed = mix(table, folds, keep, predictions, options, context.stream)
    selection = mixed.selection
    write(selection, table.hpix[predictions.rows], table, outputs)
    writers.json(outputs.stack, {
        "use": options.use, **mixed.mix.record(), **asdict(mixed.shrinkage),
        "clip": [options.clip_low, options.clip_high],
        "clipped_low": selection.clipped_low, "clipped_high": selection.clipped_high,
    })  # fmt: skip
    shares = ", ".join(f"{n} {v:.2f}" for n, v in mixed.mix.record()["mean_weights"].items())
    context.log.info("weights %s; S - 1 times %.2f", shares, mixed.shrinkage.factor)


@dataclass(frozen=True)
class Mixed:
    """The mix of out-of-fold predictions, how far it is drawn towards 1, and what comes out."""

    mix: Mix
    shrinkage: Shrinkage
    selection: Selection


def mix(
    table: Table,
    folds: Folds,
    keep: np.ndarray,
    predictions: Predictions,
    options: Stack,
    stream: Callable[..., np.random.Generator],
) -> Mixed:
    """Mix, normalise, draw towards 1, clip; `keep` [folds, F] says which features are in use."""
    sample = Sample.of(table, folds, predictions)
    found = fit_mix(sample, predictions.models, models_of(options))
    density = found.density(predictions.models)
    selection = density / density.mean()
    drawn = Shrinkage.none(selection)
    if options.use == "stack" and options.shrink:
        drawn = shrinkage(
            selection, sample, table, folds, keep, n_mocks=options.n_mocks, stream=stream
        )
    bounds = options.clip_low, options.clip_high
    return Mixed(found, drawn, select(found, predictions, drawn.factor, *bounds))


def models_of(options: Stack) -> tuple[str, ...]:
    """Return the models of the mix."""
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
    """Selection function of the tested rows: mean and std [m], pixels held by the clipping."""

    mean: np.ndarray
    std: np.ndarray
    clipped_low: int
    clipped_high: int


def select(mix: Mix, predictions: Predictions, factor: float, low: float, high: float) -> Selection:
    """Return the mix over its mean, drawn towards 1, clipped, and its spread over the networks."""
    density = mix.density(predictions.models)
    mean = density.mean()
    raw = 1 + factor * (density / mean - 1)
    total, squares = np.zeros(len(density)), np.zeros(len(density))
    for chain in predictions.chains.T:
        change = (mix.density({**predictions.models, "network": chain}) - density) / mean
        total += change
        squares += change**2
    n = predictions.chains.shape[1]
    variance = np.maximum(squares / n - (total / n) ** 2, 0)
    return Selection(
        np.clip(raw, low, high), factor * np.sqrt(variance),
        int((raw < low).sum()), int((raw > high).sum()),
    )  # fmt: skip
