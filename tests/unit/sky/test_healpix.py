"""Coarser HEALPix pixels that contain finer ones."""

from __future__ import annotations

import healpy
import numpy as np
import pytest

from skyproof.sky.healpix import coarse_pixels, superpixels


@pytest.mark.parametrize(("fine", "coarse"), [(32, 8), (64, 64), (16, 1)])
def test_a_pixel_belongs_to_the_coarser_one_that_holds_its_centre(fine, coarse):
    hpix = np.random.default_rng(1).permutation(12 * fine**2)[:500]
    centres = healpy.pix2ang(fine, hpix)
    np.testing.assert_array_equal(
        superpixels(hpix, fine, coarse), healpy.ang2pix(coarse, *centres, nest=True)
    )
    np.testing.assert_array_equal(
        coarse_pixels(hpix, fine, coarse), healpy.ang2pix(coarse, *centres)
    )
