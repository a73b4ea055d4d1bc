"""SYSNet on mock skies: recovery and loss of power of each model, uniformity of p-values.

Environment: SYSNET_NSIDE (64), SYSNET_SKIES (3) and SYSNET_NULLS (200; 1000 is s24) set the size.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from scipy.stats import kstest

from benchmarks import Result, Row
from skyproof.core.seeds import stream
from skyproof.sysnet.api import Regression, regress
from skyproof.sysnet.baselines import POLYNOMIALS, out_of_fold
from skyproof.sysnet.mock import Survey, make_mock
from skyproof.sysnet.mocks import null
from skyproof.sysnet.options import Mock, Split, Train
from skyproof.sysnet.split import make_folds
from skyproof.sysnet.table import Table
from skyproof.sysnet.verdict import power
from skyproof.sysnet.verdict.merit import recovery
from skyproof.sysnet.verdict.nulltest import Bins, NullTest
from skyproof.sysnet.weights.combination import OutOfFoldRows, fit_combination
from skyproof.sysnet.weights.shrinkage import MOCKED, shrinkage


def _set_by(variable: str, default: int) -> Any:
    return field(default_factory=lambda: int(os.environ.get(variable, default)))


@dataclass(frozen=True)
class Size:
    """Skies and networks of the table; skies of the null test and mocks of its covariance."""

    nside: int = _set_by("SYSNET_NSIDE", 64)
    skies: int = _set_by("SYSNET_SKIES", 3)
    nulls: int = _set_by("SYSNET_NULLS", 200)
    n_chains: int = 4
    n_epochs: int = 40
    null_nside: int = 32  # of s24
    covariance: int = 200
    kinds: tuple[str, ...] = ("none", "linear", "nonlinear")


TINY = Size(
    nside=16,
    skies=1,
    nulls=2,
    n_chains=1,
    n_epochs=1,
    null_nside=16,
    covariance=70,
    kinds=("linear",),
)


def run(size: Size) -> Result:
    """Return the table of spec 1.11 for whole skies, and the null test's p-values."""
    rows = [row for kind in size.kinds for row in table_of(kind, size)]
    name = f"SYSNet on {size.skies} mock skies at nside {size.nside}, {size.n_chains} chains, "
    name += f"{size.n_epochs} epochs: mean over skies; {size.nulls} null skies at nside "
    return Result(f"{name}{size.null_nside}", [*rows, *p_values(size)])


def table_of(kind: str, size: Size) -> list[Row]:
    """Return power kept, correlation and error of each model on the skies of one contamination."""
    found: dict[str, list[list[float]]] = {}
    train = Train(n_chains=size.n_chains, n_epochs=size.n_epochs)
    for sky in range(size.skies):
        options = Mock(contamination=kind, realisation=sky, nside=size.nside)
        table, survey, _ = make_mock(options)
        for scheme in ("spatial", "rows85"):
            regression = regress(table, split=Split(fold_scheme=scheme), train=train)
            for name, values in judge(table, survey, regression).items():
                if scheme == "spatial" or name == "network":
                    label = name if scheme == "spatial" else "network, random rows"
                    found.setdefault(label, []).append(values)
    measures = ("power kept l < 30", "l >= 30", "correlation", "rms error")
    return [
        Row(f"{kind}, {name}: {measure}", float(np.mean(values)), "1", any_sign=True)
        for name, skies in found.items()
        for measure, values in zip(measures, np.transpose(skies), strict=True)
        if np.isfinite(values).all()
    ]


def judge(table: Table, survey: Survey, regression: Regression) -> dict[str, list[float]]:
    """Return the measures of each model's weights on one sky."""
    grid = power.Grid.of(table, np.arange(len(table)))
    before = power.spectrum(grid, table.label, 1.0)
    truth = power.spectrum(grid, table.label, 1.0, 1 / survey.contamination)
    models = regression.predictions.models
    densities = {
        "no weights": np.ones(len(table)),
        **{name: models[name] for name in ("linear", "quadratic", "network")},
        "stack, not shrunk": regression.stacked.combination.density(models),
        "stack": regression.selection,
    }
    measures = {}
    for name, density in densities.items():
        selection = np.clip(density / density.mean(), 0.5, 2)
        after = power.spectrum(grid, table.label, 1.0, 1 / selection)
        kept = power.compared(before, after, truth)
        found = recovery(selection, survey.contamination)
        correlation = found["correlation"]
        measures[name] = [
            kept["kept_low"], kept["kept_high"],
            np.nan if correlation is None else correlation, found["error"],
        ]  # fmt: skip
    return measures


def p_values(size: Size) -> list[Row]:
    """Return the uniformity of p-values of null skies (s24), raw and after weighting.

    The covariance is that of further skies. Weights come from the stack of constant, linear and
    quadratic fits with its shrinkage, made anew for every sky.
    """
    table, _, _ = make_mock(Mock(contamination="none", nside=size.null_nside))
    grid = power.Grid.of(table, np.arange(len(table)))
    clustering = clustering_of(table, grid)
    bins = Bins.of(table.features, table.fracgood)

    def label_of(*names: object) -> np.ndarray:
        return null.mock_labels(grid, clustering, stream(1, "s24", *names))

    covariance = [bins.density_contrast(label_of("covariance", i)) for i in range(size.covariance)]
    test = NullTest(bins, np.array(covariance))
    found: dict[str, list[float]] = {"raw": [], "weighted": []}
    of_one: list[float] = []
    for number in range(size.nulls):
        label = label_of("null", number)
        contrast = bins.density_contrast(label)
        found["raw"].append(test.of_all(contrast)[1])
        of_one.append(test.chi_square(contrast, number % len(table.names))[2])
        selection = polynomial_weights(table, label, number)
        found["weighted"].append(test.of_all(bins.density_contrast(label / selection))[1])
    found["raw, one template"] = of_one
    row = partial(Row, unit="1", any_sign=True)
    rows = []
    for name, values in found.items():
        small = float(np.mean(np.array(values) < 0.05))
        flat = float(kstest(values, "uniform").pvalue)
        rows += [
            row(f"{name}: mean of p", float(np.mean(values)), target="0.5"),
            row(f"{name}: share of p < 0.05", small, target="0.05"),
            row(f"{name}: Kolmogorov-Smirnov p of flatness", flat, target="> 0.01"),
        ]
    return rows


def clustering_of(table: Table, grid: power.Grid) -> null.Clustering:
    """Return the clustering of a null sky, as the null test fits it."""
    mean = float(table.label.sum() / table.fracgood.sum())
    measured = power.spectrum(grid, table.label, 1.0)
    return null.fit_clustering(
        grid, measured, mean, 1.0, lambda turn, mock: stream(1, "s24", "clustering", turn, mock)
    )


def polynomial_weights(table: Table, label: np.ndarray, number: int) -> np.ndarray:
    """Return the selection function that the stack without networks gives a sky."""
    own = Table(table.hpix, label, table.fracgood, table.features, table.names, table.nside)
    folds = make_folds("null", own, Split())
    keep = np.ones((folds.n_folds, len(table.names)), bool)
    fits = {name: POLYNOMIALS[name] for name in MOCKED}
    models = out_of_fold(own, folds, keep, fits)
    tested = OutOfFoldRows(np.arange(len(own)), label, table.fracgood, folds.tested_by())
    density = fit_combination(tested, models, MOCKED).density(models)
    selection = density / density.mean()
    shrunk = shrinkage(selection, tested, own, folds, keep, n_mocks=10,
                      stream=lambda i: stream(1, "s24", number, i))  # fmt: skip
    return 1 + shrunk.factor * (selection - 1)
