"""Stage sysnet.baselines: out-of-fold predictions of simple models with the networks' folds.

Each model is fitted on the training part of a fold and predicts its test part, as the networks do.
`predictions.fits` (HDU 1, rows as in the table):

- hpix, fold: the fold that tests the row; -1 if none does (n_folds 1); predictions are then NaN
- constant: sum y / sum w, the Poisson maximum likelihood; constant_original: mean y (A3)
- linear, quadratic: least squares of the density in the features, and in their products
- forest: random forest
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np

from skyproof.core.formats import write
from skyproof.sysnet.folds import TEST, TRAINING, Folds, read_folds, read_kept
from skyproof.sysnet.table import Table, read_table

if TYPE_CHECKING:
    from skyproof.core.progress import Progress
    from skyproof.core.stage import Context
    from skyproof.sysnet.options import Baselines

MODELS = ("constant", "constant_original", "linear", "quadratic", "forest")

# A density is positive, but an extrapolated polynomial may be negative: predictions are clipped to
# these multiples of the constant, far outside the clipping of the selection function.
_LEAST, _GREATEST = 0.1, 10.0

# Singular values below this fraction of the largest one are dominated by rounding: the fit ignores
# their directions in feature space. Those of nearly collinear dust maps are far above it.
_NARROWEST = 1e-9

Predictor = Callable[[np.ndarray], np.ndarray]


def run(
    inputs: SimpleNamespace, outputs: SimpleNamespace, options: Baselines, context: Context
) -> None:
    """Fit every model on every fold and write the out-of-fold predictions."""
    table = read_table(inputs.table)
    folds = read_folds(inputs.folds, table)
    keep = read_kept(inputs.selection, folds.n_folds, len(table.names))

    def forest(fold: int, part: TrainingRows) -> Predictor:
        return fit_forest(
            part, trees=options.n_trees, min_leaf=options.min_leaf, threads=context.threads,
            state=int(context.stream("forest", fold).integers(2**31)),
        )  # fmt: skip

    fits = {**POLYNOMIALS, "forest": forest}
    predictions = out_of_fold(table, folds, keep, fits, context.progress(folds.n_folds, "folds"))
    columns = {"hpix": table.hpix, "fold": folds.tested_by().astype("i2"), **predictions}
    write.fits_table(outputs.predictions, columns, extname="BASELINES")


class TrainingRows:
    """Rows on which a model is fitted: features [n, F], fracgood [n], label [n].

    For polynomials, labels may be [n, k], of k skies: their fits share one factorisation.
    """

    def __init__(self, features: np.ndarray, label: np.ndarray, fracgood: np.ndarray) -> None:
        self.features, self.label, self.fracgood = features, label, fracgood

    @property
    def density(self) -> np.ndarray:
        """Label / fracgood, the target of the models; its variance scales as 1 / fracgood."""
        return (self.label.T / self.fracgood).T

    @property
    def constant(self) -> np.ndarray:
        """Mean density, sum y / sum w, of each sky."""
        return self.label.sum(axis=0) / self.fracgood.sum()


Fit = Callable[[int, TrainingRows], Predictor]


def out_of_fold(
    table: Table,
    folds: Folds,
    keep: np.ndarray,
    fits: Mapping[str, Fit],
    progress: Progress | None = None,
) -> dict[str, np.ndarray]:
    """Return each model's out-of-fold prediction of the density, [n] or [n, k].

    `keep` [folds, F] is True for the columns in use; `fits` maps a name to fit(fold, rows), which
    returns a predictor.
    """
    predictions = {name: np.full(table.label.shape, np.nan) for name in fits}
    for fold in range(folds.n_folds):
        train, test = folds.rows(fold, TRAINING), folds.rows(fold, TEST)
        features = table.features[:, keep[fold]]
        part = TrainingRows(features[train], table.label[train], table.fracgood[train])
        for name, fit in fits.items():
            density = fit(fold, part)(features[test])
            bounds = _LEAST * part.constant, _GREATEST * part.constant
            predictions[name][test] = np.clip(density, *bounds)
        if progress is not None:
            progress.advance()
    return predictions


def fit_constant(_: int, part: TrainingRows) -> Predictor:
    """Return the constant of maximum Poisson likelihood, sum y / sum w (A3, c_mle)."""
    return lambda features: np.broadcast_to(part.constant, (len(features), *part.label.shape[1:]))


def fit_constant_original(_: int, part: TrainingRows) -> Predictor:
    """Return the mean label, the baseline of the original (A3, c_orig); biased if w < 1."""
    mean = part.label.mean(axis=0)
    return lambda features: np.broadcast_to(mean, (len(features), *part.label.shape[1:]))


def fit_linear(_: int, part: TrainingRows) -> Predictor:
    """Fit the density as a linear function of the features."""
    return _fit_polynomial(part, _linear_terms)


def fit_quadratic(_: int, part: TrainingRows) -> Predictor:
    """Fit the density as a quadratic function of the features, products included."""
    return _fit_polynomial(part, _quadratic_terms)


POLYNOMIALS: dict[str, Fit] = {
    "constant": fit_constant,
    "constant_original": fit_constant_original,
    "linear": fit_linear,
    "quadratic": fit_quadratic,
}


def _fit_polynomial(part: TrainingRows, terms: Callable[[np.ndarray], np.ndarray]) -> Predictor:
    """Minimise sum w (f - y/w)^2, the Poisson weighting of A2; terms have standard deviation 1."""
    raw = _Scaling.of(part.features)
    scaled = _Scaling.of(terms(raw(part.features)))
    root = np.sqrt(part.fracgood)
    density, constant = part.density, part.constant
    design = root[:, None] * _with_bias(scaled(terms(raw(part.features))))
    solution = np.linalg.lstsq(design, (root * (density - constant).T).T, rcond=_NARROWEST)[0]
    return lambda features: constant + _with_bias(scaled(terms(raw(features)))) @ solution


class _Scaling:
    """Standardise columns to mean 0 and standard deviation 1; a constant column becomes 0."""

    def __init__(self, mean: np.ndarray, spread: np.ndarray) -> None:
        self.mean, self.spread = mean, spread

    @classmethod
    def of(cls, columns: np.ndarray) -> _Scaling:
        spread = columns.std(axis=0)
        return cls(columns.mean(axis=0), np.where(spread > 0, spread, np.inf))

    def __call__(self, columns: np.ndarray) -> np.ndarray:
        return (columns - self.mean) / self.spread


def _linear_terms(features: np.ndarray) -> np.ndarray:
    return features


def _quadratic_terms(features: np.ndarray) -> np.ndarray:
    first, second = np.triu_indices(features.shape[1])
    return np.concatenate([features, features[:, first] * features[:, second]], axis=1)


def _with_bias(terms: np.ndarray) -> np.ndarray:
    return np.concatenate([np.ones((len(terms), 1)), terms], axis=1)


def fit_forest(
    part: TrainingRows, *, trees: int, min_leaf: int, threads: int, state: int
) -> Predictor:
    """Fit a random forest to the density, weighted by fracgood (regressis: 200 trees, leaf 20).

    Each split considers a third of the features, as Breiman proposes for regression.
    """
    from sklearn.ensemble import RandomForestRegressor

    forest = RandomForestRegressor(
        n_estimators=trees, min_samples_leaf=min_leaf, max_features=1 / 3, n_jobs=threads,
        random_state=state,
    )  # fmt: skip
    forest.fit(part.features, part.density, sample_weight=part.fracgood)
    forest.n_jobs = 1  # with several threads the order of the sum over trees would vary
    return forest.predict
