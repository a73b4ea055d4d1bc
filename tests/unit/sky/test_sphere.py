"""Positions on the sphere, and matching them."""

from __future__ import annotations

import numpy as np
import pytest

from skyproof.sky.matching import nearest_within
from skyproof.sky.sphere import chord, unit_vectors


def test_unit_vectors():
    found = unit_vectors([0, 90, 0], [0, 0, 90])
    np.testing.assert_allclose(found, np.eye(3), atol=1e-15)
    assert unit_vectors(10.0, 20.0).shape == (3,)


@pytest.mark.parametrize("angle", [1e-4, 1.0, 90.0, 180.0])
def test_chords_are_distances_of_unit_vectors(angle):
    distance = np.linalg.norm(unit_vectors(0.0, 0.0) - unit_vectors(angle, 0.0))
    assert distance == pytest.approx(chord(angle), rel=1e-9)


def test_matching_equals_brute_force():
    rng = np.random.default_rng(2)
    ra, dec = rng.uniform(10, 10.05, 300), rng.uniform(-60.05, -60, 300)
    others_ra, others_dec = rng.uniform(10, 10.05, 200), rng.uniform(-60.05, -60, 200)
    cosine = unit_vectors(ra, dec) @ unit_vectors(others_ra, others_dec).T
    cross = np.linalg.norm(
        np.cross(unit_vectors(ra, dec)[:, None], unit_vectors(others_ra, others_dec)), axis=-1
    )
    arcsec = np.degrees(np.arctan2(cross, cosine)) * 3600
    matched, nearest = nearest_within(ra, dec, others_ra, others_dec, 5.0)
    assert 20 < matched.sum() < 280
    np.testing.assert_array_equal(matched, arcsec.min(axis=1) < 5)
    np.testing.assert_array_equal(nearest[matched], arcsec.argmin(axis=1)[matched])


def test_matching_has_no_special_case_at_0_degrees_or_at_a_pole():
    matched, nearest = nearest_within(
        [359.9999, 0.0], [0.0, 89.9999], [0.0001, 180.0], [0.0, 89.9999], 1.0
    )
    assert matched.tolist() == [True, True]
    assert nearest.tolist() == [0, 1]


def test_without_others_nothing_matches():
    matched, _ = nearest_within([1.0, 2.0], [0.0, 0.0], [], [], 1.0)
    assert matched.tolist() == [False, False]
