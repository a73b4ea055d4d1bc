"""Classifier two-sample test: test whether two classes differ, by the scores of a classifier.

A classifier that was trained on other data scores n objects; high scores indicate label 1. If both
classes have the same distribution, no score can rank them: the area under the ROC curve (AUC) is
0.5 in expectation (Lopez-Paz & Oquab 2017, "Revisiting classifier two-sample tests"). Objects of
one group (a brick of sky) share noise, seeing and background, so they are not independent:
intervals resample whole groups, and the p-value shuffles labels only within groups.

In all functions `scores` are float [n], `labels` 0 or 1 [n], `groups` names [n], `weights` float
[n].
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy import stats

# With normally distributed differences between groups the interval has its coverage for two groups
# or more, but with fewer groups than this an outlier is not detectable.
TRUSTED_GROUPS = 5

_CHUNK = 2_000_000


class Ranking:
    """Scores, sorted once, so that AUC and ROC curve cost O(n) for every set of weights."""

    def __init__(self, scores: np.ndarray, labels: np.ndarray) -> None:
        self._order = np.argsort(scores, kind="stable")
        ranked = scores[self._order]
        self._positive = labels[self._order] == 1
        self._starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])

    def _counts(self, weights: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Return the weight of each class in every block of tied scores, from low to high."""
        weight = np.ones(len(self._order)) if weights is None else weights[self._order]
        positive = np.add.reduceat(np.where(self._positive, weight, 0.0), self._starts)
        negative = np.add.reduceat(np.where(self._positive, 0.0, weight), self._starts)
        return positive, negative

    def auc(self, weights: np.ndarray | None = None) -> float:
        """Return P(score of a 1 > score of a 0) + P(equal)/2; NaN if a class has no weight."""
        positive, negative = self._counts(weights)
        pairs = positive.sum() * negative.sum()
        if pairs <= 0:
            return float("nan")
        below = np.cumsum(negative) - negative
        return float((positive * (below + 0.5 * negative)).sum() / pairs)

    def roc(self, weights: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return false and true positive rates [blocks + 1], from (0, 0) to (1, 1)."""
        positive, negative = self._counts(weights)
        with np.errstate(invalid="ignore"):
            true = np.r_[0.0, np.cumsum(positive[::-1])] / positive.sum()
            false = np.r_[0.0, np.cumsum(negative[::-1])] / negative.sum()
        return false, true


def auc(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Return the (weighted) area under the ROC curve; ties count half."""
    return Ranking(scores, labels).auc(weights)


def accuracy(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Return the fraction of correct predictions at threshold 0.5 (0.5 predicts class 1)."""
    return float(np.average((scores >= 0.5) == (labels == 1), weights=weights))


def balanced_accuracy(scores: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean accuracy of both classes; chance is 0.5 for any class ratio."""
    return 0.5 * sum(accuracy(scores[labels == k], labels[labels == k]) for k in (0, 1))


@dataclass(frozen=True)
class Interval:
    """A two-sided confidence interval with the units that were resampled."""

    low: float
    high: float
    standard_error: float
    units: int  # resampled units
    unit: str  # "group" or "row"
    trusted: bool  # False: rows instead of groups, too few groups, or no spread


def bootstrap_interval(
    statistic: Callable[[np.ndarray], float],
    groups: np.ndarray,
    *,
    draws: int,
    confidence: float,
    stream: np.random.Generator,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Interval:
    """Return estimate +- t * standard error, the error from a bootstrap over whole groups.

    `statistic(weights)` maps row weights to a number. A draw takes G of the G groups with
    replacement. The standard deviation of the draws is too small by sqrt((G - 1) / G) and is
    corrected, and t is Student's with G - 1 degrees of freedom. Percentile intervals have neither
    correction and are too narrow for few groups (Hesterberg 2015, The American Statistician 69,
    371): with 5 groups their nominal 95 % intervals have a coverage of 84 %, these 96 % (measured
    for an AUC). With a single group, rows are drawn as if independent, and `trusted` is False.
    """
    weights = bootstrap_weights(groups, draws, stream)
    values = np.array([statistic(weight) for weight in weights])
    values = values[np.isfinite(values)]
    estimate = statistic(np.ones(len(groups)))
    units, unit = _units(groups)
    if len(values) < 2:  # nearly all draws contained one class only
        return Interval(*bounds, standard_error=bounds[1] - bounds[0], units=units, unit=unit,
                        trusted=False)  # fmt: skip
    error, half_width = _errors(values, units, confidence)
    trusted = unit == "group" and units >= TRUSTED_GROUPS and bool(error > 0)
    low, high = np.clip([estimate - half_width, estimate + half_width], *bounds)
    return Interval(float(low), float(high), float(error), units, unit, trusted)


def bootstrap_weights(
    groups: np.ndarray, draws: int, stream: np.random.Generator
) -> Iterator[np.ndarray]:
    """Yield for every draw the number of times that each row was drawn, float [n]."""
    units, unit = _units(groups)
    index = np.unique(groups, return_inverse=True)[1] if unit == "group" else np.arange(units)
    for _ in range(draws):
        yield np.bincount(stream.integers(units, size=units), minlength=units)[index].astype(float)


def _units(groups: np.ndarray) -> tuple[int, str]:
    count = len(np.unique(groups))
    return (count, "group") if count > 1 else (len(groups), "row")


def _errors(values: np.ndarray, units: int, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """Return standard error and half width of the interval from draws [draws, ...]."""
    error = values.std(axis=0, ddof=1) * np.sqrt(units / (units - 1))
    return error, error * stats.t.ppf(0.5 + confidence / 2, units - 1)


def roc_band(
    ranking: Ranking,
    groups: np.ndarray,
    grid: np.ndarray,
    *,
    draws: int,
    confidence: float,
    stream: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the pointwise interval (low, high) of the true positive rate at rates `grid` [m]."""
    weightings = bootstrap_weights(groups, draws, stream)
    curves = [np.interp(grid, *ranking.roc(weights)) for weights in weightings]
    finite = np.array([curve for curve in curves if np.isfinite(curve).all()])
    centre = np.interp(grid, *ranking.roc())
    if len(finite) < 2:
        return np.zeros_like(grid), np.ones_like(grid)
    half_width = _errors(finite, _units(groups)[0], confidence)[1]
    return np.clip(centre - half_width, 0, 1), np.clip(centre + half_width, 0, 1)


@dataclass(frozen=True)
class Permutation:
    """The AUC under the null hypothesis, and the p-value of the observed one."""

    p_value: float
    mean: float
    standard_deviation: float


def permutation_test(
    scores: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    *,
    draws: int,
    stream: np.random.Generator,
) -> Permutation:
    """Test that labels are exchangeable within each group, by the AUC; two-sided.

    Labels are shuffled within groups, so that the level, spread and class ratio of a group do not
    change: the test is exact for any differences between groups. The statistic is |AUC - m| with
    the mean AUC m of all shuffles (0.5 if all groups have the same class ratio), known in closed
    form. The test is two-sided, because an AUC far below 0.5 (a difference whose sign changed
    between training and test) also shows that the classes differ.
    p = (1 + number of shuffles at least as extreme) / (1 + draws) (Phipson & Smyth 2010).
    """
    ranks = stats.rankdata(scores)
    positives = int(labels.sum())
    pairs = positives * (len(labels) - positives)
    lowest = positives * (positives + 1) / 2
    sums = np.zeros(draws)
    centre = 0.0
    for mine in rows_by_group(groups):
        share = int(labels[mine].sum())
        centre += share * ranks[mine].mean()
        sums += _shuffled_sums(ranks[mine], share, draws, stream)
    observed = abs(ranks[labels == 1].sum() - centre)
    extreme = int((np.abs(sums - centre) >= observed - 1e-9 * pairs).sum())
    return Permutation(
        p_value=(1 + extreme) / (1 + draws),
        mean=float((centre - lowest) / pairs),
        standard_deviation=float(sums.std(ddof=1) / pairs),
    )


def rows_by_group(groups: np.ndarray) -> list[np.ndarray]:
    """Return the row numbers of each group, in order of the group names."""
    if not len(groups):
        return []
    index = np.unique(groups, return_inverse=True)[1]
    return np.split(np.argsort(index, kind="stable"), np.cumsum(np.bincount(index))[:-1])


def _shuffled_sums(
    ranks: np.ndarray, share: int, draws: int, stream: np.random.Generator
) -> np.ndarray:
    """Return for every draw the sum of `share` randomly chosen ranks."""
    at_once = max(1, _CHUNK // len(ranks))
    sums = np.empty(draws)
    for start in range(0, draws, at_once):
        count = min(at_once, draws - start)
        shuffled = stream.permuted(np.tile(ranks, (count, 1)), axis=1)
        sums[start : start + count] = shuffled[:, :share].sum(axis=1)
    return sums


def detectable_auc(standard_deviation: float, confidence: float, power: float = 0.8) -> float:
    """Return the smallest AUC that the test detects with probability `power`.

    `standard_deviation` is that of the AUC under the null hypothesis; normal approximation.
    """
    reach = stats.norm.ppf(0.5 + confidence / 2) + stats.norm.ppf(power)
    return min(1.0, 0.5 + float(reach * standard_deviation))


def wilson_interval(right: int, total: int, confidence: float) -> tuple[float, float]:
    """Return Wilson's score interval of a fraction (Wilson 1927); (0, 1) for no trials."""
    if total == 0:
        return 0.0, 1.0
    interval = stats.binomtest(right, total).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def accuracy_by(
    values: np.ndarray, scores: np.ndarray, labels: np.ndarray, *, bins: int, confidence: float
) -> list[dict[str, float | int | None]]:
    """Return accuracy and AUC in bins of `values` with equal numbers of rows, ascending.

    Equal values are in one bin; rows without a finite value are in none. The interval of the
    accuracy is Wilson's: within a bin a group has few rows, which are assumed to be independent.
    """
    known = np.isfinite(values)
    values, scores, labels = values[known], scores[known], labels[known]
    if not len(values):
        return []
    edges = np.unique(np.quantile(values, np.linspace(0, 1, bins + 1)))
    index = np.searchsorted(edges[1:-1], values, side="right")
    rows: list[dict[str, float | int | None]] = []
    for k in range(max(1, len(edges) - 1)):
        mine = index == k
        if not mine.any():
            continue
        right = int(((scores[mine] >= 0.5) == (labels[mine] == 1)).sum())
        low, high = wilson_interval(right, int(mine.sum()), confidence)
        area = auc(scores[mine], labels[mine])
        rows.append({
            "from": float(values[mine].min()),
            "to": float(values[mine].max()),
            "median": float(np.median(values[mine])),
            "n": int(mine.sum()),
            "n_positive": int(labels[mine].sum()),
            "accuracy": right / int(mine.sum()),
            "low": low,
            "high": high,
            "auc": area if np.isfinite(area) else None,
        })  # fmt: skip
    return rows


def calibration(
    scores: np.ndarray, labels: np.ndarray, bins: int = 10
) -> dict[str, float | list[dict[str, float | int]]]:
    """Return the calibration of scores as probabilities of class 1.

    `expected_error` is the mean over bins of equal width of |fraction of class 1 - mean score|,
    weighted by rows (Naeini et al. 2015); `brier` the mean of (score - label)^2; `bins` the
    non-empty bins.
    """
    index = np.minimum((scores * bins).astype(int), bins - 1)
    rows: list[dict[str, float | int]] = []
    for k in range(bins):
        mine = index == k
        if mine.any():
            rows.append({
                "score": float(scores[mine].mean()),
                "share": float(labels[mine].mean()),
                "n": int(mine.sum()),
            })  # fmt: skip
    error = sum(abs(row["share"] - row["score"]) * row["n"] for row in rows) / len(scores)
    return {
        "expected_error": float(error),
        "brier": float(((scores - labels) ** 2).mean()),
        "bins": rows,
    }
