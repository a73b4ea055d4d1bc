"""Magnitudes, fluxes and dust."""

from __future__ import annotations

import numpy as np
import pytest

from skyproof.sky.photometry import DECAM_EXTINCTION, flux, magnitude, transmission


def test_magnitudes_of_nanomaggies():
    assert magnitude(np.array([1.0, 100.0])).tolist() == [22.5, 17.5]
    assert np.isnan(magnitude(np.array([0.0, -1.0, np.nan, np.inf]))).all()


def test_dust_is_corrected_for():
    dimmed = magnitude(np.array([0.4]), 0.4)
    assert dimmed[0] == pytest.approx(22.5)
    assert np.isnan(magnitude(np.array([1.0]), np.array([0.0]))).all()


def test_fluxes_invert_magnitudes_at_any_zero_point():
    wanted = np.array([16.0, 22.5, 26.1])
    for zero_point in (22.5, 30.0):
        found = magnitude(flux(wanted, zero_point), zero_point=zero_point)
        np.testing.assert_allclose(found, wanted, rtol=1e-14)
    assert flux(22.5) == 1
    assert flux(27.5, 30.0) == pytest.approx(10)


def test_dust_dims_by_its_coefficient():
    found = transmission(0.1, DECAM_EXTINCTION)
    assert list(found) == ["g", "r", "i", "z"]
    for band, share in found.items():
        assert -2.5 * np.log10(share) == pytest.approx(0.1 * DECAM_EXTINCTION[band])
