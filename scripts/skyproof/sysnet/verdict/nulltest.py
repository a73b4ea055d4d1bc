"""The null test: mean density against each template, judged by mock skies without contamination.

A template is cut into nine bins between its 2.5 and 97.5 percentiles. In each, sum(label x weight)
over sum(fracgood), over that of the footprint: 1 everywhere but for chance where nothing is left of
the template in the density. The mocks' covariance turns the nine numbers into chi^2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

BINS = 9
_PERCENTILES = (2.5, 97.5)
_LEAST_ROWS = 10  # of a bin; emptier ones are left out


@dataclass(frozen=True)
class Bins:
    """Bins of every template: which rows are in which, as a sparse matrix [bins, rows]."""

    member: Any  # scipy.sparse matrix
    template: np.ndarray  # [bins] the template that a bin is of
    low: np.ndarray  # [bins] its edges
    high: np.ndarray
    fracgood: np.ndarray  # [rows]

    @classmethod
    def of(cls, features: np.ndarray, fracgood: np.ndarray) -> Bins:
        """Cut features [n, F] into bins; a bin with fewer than ten rows is left out."""
        from scipy.sparse import csr_array

        member, template, lows, highs = [], [], [], []
        for number, values in enumerate(features.T):
            edges = _edges(values)
            for low, high, last in zip(edges, edges[1:], [False] * (BINS - 1) + [True],
                                       strict=False):  # fmt: skip
                inside = (values >= low) & ((values <= high) if last else (values < high))
                rows = np.flatnonzero(inside)
                if len(rows) >= _LEAST_ROWS:
                    member.append(rows)
                    template.append(number)
                    lows.append(low)
                    highs.append(high)
        starts = np.cumsum([0, *(len(rows) for rows in member)])
        rows = np.concatenate(member) if member else np.zeros(0, int)
        matrix = csr_array((np.ones(len(rows)), rows, starts), shape=(len(member), len(features)))
        return cls(matrix, np.array(template, int), np.array(lows), np.array(highs), fracgood)

    def contrast(self, label: np.ndarray) -> np.ndarray:
        """Return the mean density of (weighted) labels [rows] in each bin over that of all, - 1."""
        mean = label.sum() / self.fracgood.sum()
        return (self.member @ label) / (self.member @ self.fracgood) / mean - 1

    def centres(self, features: np.ndarray) -> np.ndarray:
        """Return the mean value of its template in each bin."""
        means = (self.member @ features) / np.asarray(self.member.sum(axis=1)).reshape(-1, 1)
        return means[np.arange(len(self.template)), self.template]


def _edges(values: np.ndarray) -> np.ndarray:
    low, high = np.percentile(values, _PERCENTILES)
    if low == high:
        low, high = values.min(), values.max()
    return np.linspace(low, high, BINS + 1)


@dataclass(frozen=True)
class NullTest:
    """What mock skies show in the bins: contrasts [mocks, bins]."""

    bins: Bins
    mocks: np.ndarray

    @property
    def error(self) -> np.ndarray:
        """Standard deviation of each bin [bins]."""
        return self.mocks.std(axis=0, ddof=1)

    def chi_square(self, contrast: np.ndarray, template: int) -> tuple[float, int, float]:
        """Return chi^2 of a template's bins, their number, and the p-value.

        The covariance is that of the mocks, which are few: chi^2 then follows Hotelling's T^2
        and not the chi^2 distribution, and the p-value is that of F (Sellentin & Heavens 2016
        treat the same). The mocks' mean is the expectation.
        """
        from scipy.stats import f

        chosen = self.bins.template == template
        mocks = self.mocks[:, chosen]
        n, k = mocks.shape
        if k == 0 or k > n - 2:
            return 0.0, 0, 1.0
        distance = _mahalanobis(mocks, contrast[chosen] - mocks.mean(axis=0))
        ratio = distance * n / (n + 1) * (n - k) / (k * (n - 1))
        return float(distance), k, float(f.sf(ratio, k, n - k))

    def of_all(self, contrast: np.ndarray) -> tuple[float, float]:
        """Return the sum of chi^2 over the templates, and its p-value by rank among the mocks.

        Templates are correlated, so that their chi^2 do not add up to one: the same sum is taken
        of every mock, against the covariance of the others.
        """
        numbers = np.unique(self.bins.template)
        total = sum(self.chi_square(contrast, number)[0] for number in numbers)
        others = sum((self._left_out(number) for number in numbers), np.zeros(len(self.mocks)))
        rank = 1 + int((others >= total).sum())
        return float(total), rank / (len(self.mocks) + 1)

    def _left_out(self, template: int) -> np.ndarray:
        """Return chi^2 [mocks] of each mock against mean and covariance of all the others."""
        mocks = self.mocks[:, self.bins.template == template]
        n, k = mocks.shape
        if k == 0 or k > n - 3:
            return np.zeros(n)
        deviation = mocks - mocks.mean(axis=0)
        scatter = deviation.T @ deviation
        leverage = np.einsum("ij,ij->i", deviation @ np.linalg.pinv(scatter), deviation)
        # Removing a row changes mean and scatter by its own deviation (Sherman & Morrison 1950).
        factor = n / (n - 1)
        return (n - 2) * factor**2 * leverage / np.maximum(1 - factor * leverage, 1e-12)


def _mahalanobis(mocks: np.ndarray, deviation: np.ndarray) -> float:
    covariance = np.cov(mocks, rowvar=False).reshape(len(deviation), -1)
    return float(deviation @ np.linalg.pinv(covariance, hermitian=True) @ deviation)
