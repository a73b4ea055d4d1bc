"""The null test: mean density against each template, compared with mocks without contamination.

The range of a template between its 2.5 and 97.5 percentiles is divided into nine bins. The density
of a bin is sum(label x weight) / sum(fracgood), divided by that of the footprint. If the density
does not depend on the template, it is 1 up to chance. chi^2 uses the covariance of the mocks.
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
    """Bins of all templates, with the rows of each as a sparse 0/1 matrix [bins, rows]."""

    membership: Any  # scipy.sparse matrix
    template: np.ndarray  # [bins] index of the bin's template
    low: np.ndarray  # [bins] edges
    high: np.ndarray
    fracgood: np.ndarray  # [rows]

    @classmethod
    def of(cls, features: np.ndarray, fracgood: np.ndarray) -> Bins:
        """Divide features [n, F] into bins; bins with fewer than ten rows are left out."""
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

    def density_contrast(self, label: np.ndarray) -> np.ndarray:
        """Return the density of (weighted) labels [rows] in each bin over the mean density, - 1."""
        mean = label.sum() / self.fracgood.sum()
        return (self.membership @ label) / (self.membership @ self.fracgood) / mean - 1

    def centres(self, features: np.ndarray) -> np.ndarray:
        """Return the mean of the template in each bin [bins], from features [rows, F]."""
        means = (self.membership @ features) / np.asarray(self.membership.sum(axis=1)).reshape(
            -1, 1
        )
        return means[np.arange(len(self.template)), self.template]


def _edges(values: np.ndarray) -> np.ndarray:
    low, high = np.percentile(values, _PERCENTILES)
    if low == high:
        low, high = values.min(), values.max()
    return np.linspace(low, high, BINS + 1)


@dataclass(frozen=True)
class NullTest:
    """Density contrasts of mock skies in the bins, [mocks, bins]."""

    bins: Bins
    mocks: np.ndarray

    @property
    def error(self) -> np.ndarray:
        """Standard deviation of each bin [bins]."""
        return self.mocks.std(axis=0, ddof=1)

    def chi_square(self, contrast: np.ndarray, template: int) -> tuple[float, int, float]:
        """Return chi^2 of a template's bins, the number of bins, and the p-value.

        Mean and covariance are estimated from a limited number of mocks. chi^2 then follows
        Hotelling's T^2 distribution, and the p-value is that of F (see also Sellentin & Heavens
        2016).
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

        Templates are correlated, so the sum does not follow a chi^2 distribution. It is compared
        with the same sum of every mock, computed with the covariance of the other mocks.
        """
        numbers = np.unique(self.bins.template)
        total = sum(self.chi_square(contrast, number)[0] for number in numbers)
        others = sum((self._left_out(number) for number in numbers), np.zeros(len(self.mocks)))
        rank = 1 + int((others >= total).sum())
        return float(total), rank / (len(self.mocks) + 1)

    def _left_out(self, template: int) -> np.ndarray:
        """Return chi^2 [mocks] of each mock with the mean and covariance of the other mocks."""
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
