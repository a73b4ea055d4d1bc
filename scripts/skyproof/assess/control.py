"""Controls of a two-sample test: can columns of a table, without images, separate the classes?

Tables are float [n, columns], NaN where a value is unknown; labels 0 or 1 [n]. Models are fitted on
the training part only; they are deterministic and small compared with a network.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, QuantileTransformer, StandardScaler

from skyproof.assess.twosample import auc


def table_scores(train: np.ndarray, labels: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Return the probability of class 1 of every test row, by gradient boosting on the columns.

    Trees find interactions and handle unknown values (Friedman 2001; scikit-learn's histogram
    version). There is no early stopping, which would draw a random part. Columns without any known
    value are excluded; without any column all rows get the fraction of class 1.
    """
    known = np.isfinite(train).any(axis=0)
    if not known.any():
        return np.full(len(test), labels.mean())
    model = HistGradientBoostingClassifier(
        max_iter=100, max_leaf_nodes=8, l2_regularization=1.0, early_stopping=False, random_state=0
    )
    return model.fit(train[:, known], labels).predict_proba(test[:, known])[:, 1]


def overlap_weights(
    train: np.ndarray, labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray
) -> np.ndarray:
    """Return weights [n] that give both classes of the test rows equal distributions of columns.

    With e(x) the probability of class 1 given the columns (the propensity), class 1 gets 1 - e(x)
    and class 0 gets e(x): density-ratio weights whose target is the overlap of the classes. They
    are in [0, 1], so no clipping is needed (Li, Morgan & Zaslavsky 2018, JASA 113, 390). e is a
    logistic regression on the columns, transformed to normal by their ranks in the training part,
    with squares and products; a less smooth e would add differences. Its regularisation is weak,
    because shrinkage leaves a part of the difference. With some hundred training rows the noise of
    e increases the error of a matched AUC by about a half; with thousands it is negligible.
    """
    unit_normal = QuantileTransformer(
        n_quantiles=min(1000, len(train)), output_distribution="normal", random_state=0
    )
    model = make_pipeline(
        SimpleImputer(strategy="median", keep_empty_features=True),
        unit_normal,
        PolynomialFeatures(2, include_bias=False),
        StandardScaler(),
        LogisticRegression(C=1.0, max_iter=1000),
    )
    propensity = model.fit(train, labels).predict_proba(test)[:, 1]
    return np.where(test_labels == 1, 1 - propensity, propensity)


def effective_size(weights: np.ndarray) -> float:
    """Return the effective sample size of weighted rows, (sum w)^2 / sum w^2 (Kish)."""
    total = float((weights**2).sum())
    return float(weights.sum()) ** 2 / total if total > 0 else 0.0


def worst_imbalance(
    columns: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None
) -> float:
    """Return the largest difference of the classes' means over columns, in standard deviations."""
    weights = np.ones(len(labels)) if weights is None else weights
    worst = 0.0
    for column in columns.T:
        known = np.isfinite(column)
        sides = [known & (labels == k) & (weights > 0) for k in (0, 1)]
        spread = np.std(column[known]) if known.any() else 0.0
        if spread > 0 and all(side.any() for side in sides):
            means = [np.average(column[side], weights=weights[side]) for side in sides]
            worst = max(worst, abs(means[1] - means[0]) / float(spread))
    return float(worst)


def column_differences(
    names: Sequence[str], columns: np.ndarray, scores: np.ndarray, labels: np.ndarray
) -> list[dict[str, float | str]]:
    """Return for every column its AUC between the classes and its correlation with the score.

    Entries: column, auc (of the values), score_correlation (Spearman's), sorted by |AUC - 0.5|, the
    largest first. Constant columns are excluded, and rows in which the value is unknown.
    """
    rows: list[dict[str, float | str]] = []
    for name, column in zip(names, columns.T, strict=True):
        known = np.isfinite(column)
        if len(np.unique(column[known])) < 2 or len(np.unique(labels[known])) < 2:
            continue
        follows = 0.0
        if len(np.unique(scores[known])) > 1:
            follows = float(stats.spearmanr(column[known], scores[known]).statistic)
        area = auc(column[known], labels[known])
        rows.append({"column": name, "auc": area, "score_correlation": follows})
    return sorted(rows, key=lambda row: (-abs(float(row["auc"]) - 0.5), str(row["column"])))
