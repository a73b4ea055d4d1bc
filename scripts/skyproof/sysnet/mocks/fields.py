"""Gaussian random fields on the sphere."""

from __future__ import annotations

import numpy as np


def gaussian_field(power: np.ndarray, nside: int, rng: np.random.Generator) -> np.ndarray:
    """Return a Gaussian field of the given C_l [lmax + 1] as a RING map [12 nside^2].

    Coefficients are drawn in order of l, so that large scales do not depend on the resolution.
    """
    import healpy

    lmax = len(power) - 1
    l = np.repeat(np.arange(lmax + 1), np.arange(lmax + 1) + 1)  # noqa: E741
    m = np.arange(len(l)) - l * (l + 1) // 2
    parts = rng.standard_normal((len(l), 2))
    drawn = np.where(m == 0, parts[:, 0], (parts[:, 0] + 1j * parts[:, 1]) / np.sqrt(2))
    alm = np.empty(len(l), complex)
    alm[healpy.Alm.getidx(lmax, l, m)] = drawn * np.sqrt(power[l])
    return healpy.alm2map(alm, nside, lmax=lmax)
