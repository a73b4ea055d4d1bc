"""SYSNet on mock skies: what each model's weights recover and erase, and whether p-values are flat.

Environment: SYSNET_NSIDE (64), SYSNET_SKIES (3) and SYSNET_NULLS (200; 1000 is s24) set the size.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from scipy.stats import kstest

from skyproof.core.seeds import stream
from skyproof.sysnet.api.regress import Regression, regress
from skyproof.sysnet.baselines import POLYNOMIALS, out_of_fold
from skyproof.sysnet.mock import Survey, make_mock
from skyproof.sysnet.mocks import null
from skyproof.sysnet.options import Mock, Split, Train
from skyproof.sysnet.split import make_folds
from skyproof.sysnet.table import Table
from skyproof.sysnet.verdict import power
from skyproof.sysnet.verdict.nulltest import Bins, NullTest
from skyproof.sysnet.verdict.recovery import recovery
from skyproof.sysnet.weights.combination import Sample, fit_mix
from skyproof.sysnet.weights.shrinkage import MOCKED, shrinkage

NSIDE = int(os.environ.get("SYSNET_NSIDE", "64"))
SKIES = int(os.environ.get("SYSNET_SKIES", "3"))
NULLS = int(os.environ.get("SYSNET_NULLS", "200"))
TRAIN = Train(n_chains=4, n_epochs=40)
_NULL_NSIDE = 32  # of s24
_COVARIANCE = 200  # mocks


def run() -> dict[str, Any]:
    """Return the table of spec 1.11 for whole skies, and the null test's p-values."""
    rows = [row for kind in ("none", "linear", "nonlinear") for row in table_of(kind)]
    return {
        "name": f"SYSNet on {SKIES} mock skies at nside {NSIDE}, {TRAIN.n_chains} chains, "
        f"{TRAIN.n_epochs} epochs: mean over skies; {NULLS} null skies at nside {_NULL_NSIDE}",
        "rows": [*rows, *p_values()],
    }


def table_of(kind: str) -> list[dict[str, Any]]:
    """Return power kept, correlation and error of each model on the skies of one contamination."""
    found: dict[str, list[list[float]]] = {}
    for sky in range(SKIES):
        options = Mock(contamination=kind, realisation=sky, nside=NSIDE)
        table, survey, _ = make_mock(options)
        for scheme in ("spatial", "rows85"):
            regression = regress(table, split=Split(fold_scheme=scheme), train=TRAIN)
            for name, values in judge(table, survey, regression).items():
                if scheme == "spatial" or name == "network":
                    label = name if scheme == "spatial" else "network, random rows"
                    found.setdefault(label, []).append(values)
    measures = ("power kept l < 30", "l >= 30", "correlation", "rms error")
    return [
        {"what": f"{kind}, {name}: {measure}", "value": float(np.mean(values))}
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
        "stack, not shrunk": regression.mixed.mix.density(models),
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


def p_values() -> list[dict[str, Any]]:
    """Return how flat p-values of null skies are (s24): raw, and after their own weights.

    The covariance is that of 200 further skies. Weights come from the stack of constant, linear and
    quadratic fits with its shrinkage, made anew for every sky.
    """
    table, _, _ = make_mock(Mock(contamination="none", nside=_NULL_NSIDE))
    grid = power.Grid.of(table, np.arange(len(table)))
    clustering = clustering_of(table, grid)
    bins = Bins.of(table.features, table.fracgood)

    def label_of(*names: object) -> np.ndarray:
        return null.mock_labels(grid, clustering, stream(1, "s24", *names))

    covariance = [bins.contrast(label_of("covariance", i)) for i in range(_COVARIANCE)]
    test = NullTest(bins, np.array(covariance))
    found: dict[str, list[float]] = {"raw": [], "weighted": []}
    of_one: list[float] = []
    for number in range(NULLS):
        label = label_of("null", number)
        contrast = bins.contrast(label)
        found["raw"].append(test.of_all(contrast)[1])
        of_one.append(test.chi_square(contrast, number % len(table.names))[2])
        selection = polynomial_weights(table, label, number)
        found["weighted"].append(test.of_all(bins.contrast(label / selection))[1])
    found["raw, one template"] = of_one
    return [
        row
        for name, values in found.items()
        for row in (
            {"what": f"{name}: mean of p", "value": float(np.mean(values)), "target": "0.5"},
            {"what": f"{name}: share of p < 0.05", "value": float(np.mean(np.array(values) < 0.05)),
             "target": "0.05"},
            {"what": f"{name}: Kolmogorov-Smirnov p of flatness",
             "value": float(kstest(values, "uniform").pvalue), "target": "> 0.01"},
        )
    ]  # fmt: skip


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
    sample = Sample(np.arange(len(own)), label, table.fracgood, folds.tested_by())
    density = fit_mix(sample, models, MOCKED).density(models)
    selection = density / density.mean()
    drawn = shrinkage(selection, sample, own, folds, keep, n_mocks=10,
                      stream=lambda i: stream(1, "s24", number, i))  # fmt: skip
    return 1 + drawn.factor * (selection - 1)
