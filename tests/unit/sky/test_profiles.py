"""Rendered galaxies against GalSim and against their own flux."""

from __future__ import annotations

import galsim
import numpy as np
import pytest

from skyproof.sky import profiles
from skyproof.sky.profiles import (
    MOFFAT,
    GaussianPsf,
    Shapes,
    clumpy,
    half_light_radius,
    merged,
    points,
    render,
)

ONE = np.ones(1)
PIXEL_SCALE = 0.262  # arcsec


def shapes_of(radius, ratio=0.7, angle=30.0, bulge=0.0, n=1):
    values = (radius, radius, bulge, ratio, angle)
    return Shapes(*(np.full(n, value, float) for value in values))


def smooth(shapes):
    return profiles.smooth(shapes, PIXEL_SCALE)


def random_shapes(n, rng):
    r = rng.uniform(0.3, 1.0, (2, n))
    share = rng.choice([0, 0.3, 1.0], n)
    return Shapes(r[0], r[1], share, rng.uniform(0.2, 1, n), rng.uniform(0, 180, n))


def picture(parts, size=129, x=None, y=None, flux=ONE, fwhm=1.2, floor=1e-9):
    middle = size // 2 + np.zeros(len(flux))
    x, y = middle if x is None else x, middle if y is None else y
    psf = GaussianPsf(MOFFAT, fwhm / PIXEL_SCALE)
    return render((size, size), x, y, flux, parts, psf, floor)


@pytest.mark.parametrize("bulge", [0.0, 1.0])
@pytest.mark.parametrize("radius", [0.3, 0.8, 1.5])
@pytest.mark.parametrize(("ratio", "angle"), [(0.3, 30.0), (0.9, 100.0)])
def test_profiles_agree_with_galsim(bulge, radius, ratio, angle):
    """Largest residual over peak, measured: 0.0017 exponential, 0.0025 de Vaucouleurs."""
    size, dx, dy = 129, 0.3, -0.2
    x, y = ONE * (size // 2 + dx), ONE * (size // 2 + dy)
    ours = picture(smooth(shapes_of(radius, ratio, angle, bulge)), size, x, y)
    kind = galsim.DeVaucouleurs if bulge else galsim.Exponential
    galaxy = kind(half_light_radius=radius * np.sqrt(ratio))
    # The position angle counts from north (up) towards east (left), GalSim's from the x axis.
    galaxy = galaxy.shear(q=ratio, beta=(angle + 90) * galsim.degrees)
    psf = galsim.Moffat(beta=profiles.MOFFAT_EXPONENT, fwhm=1.2)
    theirs = galsim.Convolve([galaxy, psf]).drawImage(
        nx=size, ny=size, scale=PIXEL_SCALE, offset=(dx, dy), method="no_pixel"
    )
    assert np.abs(ours - theirs.array).max() < 0.003 * theirs.array.max()


def test_the_point_spread_function_agrees_with_galsim():
    """Largest residual over peak, measured: 0.0044 at the centre."""
    ours = picture(points(1), fwhm=1.3)
    psf = galsim.Moffat(beta=profiles.MOFFAT_EXPONENT, fwhm=1.3)
    theirs = psf.drawImage(nx=129, ny=129, scale=PIXEL_SCALE, method="no_pixel").array
    assert np.abs(ours - theirs).max() < 0.006 * theirs.max()


@pytest.mark.parametrize("fraction", [0.0, 0.5, 0.9])
def test_magnitudes_are_recovered(fraction):
    """The sum in an aperture of 12 arcsec without noise gives the flux back (measured: to 1e-5)."""
    rng = np.random.default_rng(3)
    shapes = shapes_of(0.8, 0.6, 50.0)
    parts = clumpy(shapes, fraction, PIXEL_SCALE, rng) if fraction else smooth(shapes)
    image = picture(parts, flux=ONE * 2.5)
    y, x = np.indices(image.shape) - 64
    inside = np.hypot(x, y) * PIXEL_SCALE < 12
    assert image[inside].sum() == pytest.approx(2.5, rel=1e-4)


def test_clumps_change_the_picture_but_not_its_flux():
    """o15"""
    rng = np.random.default_rng(4)
    shapes = random_shapes(40, rng)
    plain, rough = smooth(shapes), clumpy(shapes, 0.5, PIXEL_SCALE, rng)
    for parts in (plain, rough):
        np.testing.assert_allclose(np.bincount(parts.source, parts.share), 1, rtol=1e-9)
        assert (parts.share > 0).all()
    flux = np.ones(40)
    where = np.full(40, 64.0)
    moved = []
    for i in range(40):
        chosen = np.arange(40) == i
        images = [picture(p, x=where, y=where, flux=flux * chosen) for p in (plain, rough)]
        moved.append(np.abs(images[0] - images[1]).sum() / images[0].sum())
    assert min(moved) > 0.03  # of the light; measured: 0.06 (small and edge on) to 0.42
    assert np.median(moved) > 0.15  # measured: 0.23


def test_boxes_are_not_visible_in_the_image():
    """Nothing is drawn outside a box: the omitted light is below a few times the floor."""
    rng = np.random.default_rng(5)
    n, floor = 30, 1e-5
    parts = smooth(random_shapes(n, rng))
    x, y = rng.uniform(0, 300, (2, n))
    flux = 10 ** rng.uniform(-1, 2, n)
    coarse = picture(parts, 300, x, y, flux, floor=floor)
    exact = picture(parts, 300, x, y, flux, floor=1e-12)
    assert 0 < np.abs(exact - coarse).max() < 40 * floor  # measured: 14, from 30 bright galaxies


def test_sources_at_and_beyond_the_border_are_cut_there():
    x, y = np.array([0.0, 63.4, -5.0, 200.0]), np.array([0.0, 20.0, 30.0, 200.0])
    parts = points(4)
    small = picture(parts, 64, x, y, np.ones(4))
    large = picture(parts, 464, x + 200, y + 200, np.ones(4))
    np.testing.assert_allclose(small, large[200:264, 200:264], atol=1e-7)
    assert small[0, 0] == small.max()


def test_the_sum_of_sources_does_not_depend_on_their_order():
    rng = np.random.default_rng(6)
    shapes = random_shapes(3, rng)
    x, y, flux = np.array([20.0, 30.0, 90.0, 95.0, 40.0]), np.full(5, 50.0), np.arange(1.0, 6.0)
    stars = points(2)
    parts = merged(smooth(shapes), stars._replace(source=stars.source + 3))
    together = picture(parts, x=x, y=y, flux=flux)
    singly = sum(picture(parts, x=x, y=y, flux=flux * (np.arange(5) == i)) for i in range(5))
    np.testing.assert_allclose(together, singly, atol=1e-6)


def test_half_light_radius():
    exponential = half_light_radius(shapes_of(0.7))
    bulge = half_light_radius(shapes_of(0.7, bulge=1.0))
    assert exponential == pytest.approx(0.7, rel=1e-3)  # measured: 7e-5
    assert bulge == pytest.approx(0.7, rel=3e-3)  # measured: 8e-4
    mixed = half_light_radius(Shapes(ONE * 1.0, ONE * 0.3, ONE * 0.5, ONE, ONE))
    assert 0.3 < mixed[0] < 1.0


def test_an_image_depends_on_sizes_in_pixels_only():
    """The same galaxy at half the pixel scale, under a point-spread function as wide in arcsec."""
    shapes, coarse, fine = shapes_of(0.8, 0.6, 50.0), 0.4, 0.2
    images = []
    for scale, size in ((coarse, 65), (fine, 129)):
        psf = GaussianPsf(MOFFAT, 1.2 / scale)
        middle = ONE * (size // 2)
        parts = profiles.smooth(shapes, scale)
        images.append(render((size, size), middle, middle, ONE, parts, psf, 1e-9))
    # Pixel i of the coarse image is at pixel 2i of the fine one and has four times its area.
    np.testing.assert_allclose(images[0], 4 * images[1][::2, ::2], rtol=1e-4, atol=1e-7)


def test_any_mixture_is_a_point_spread_function():
    """A double Gaussian, as of SDSS fields: peak and matched filter by their formulas."""
    share, sigma = np.array([0.9, 0.1]), np.array([1.4, 4.0])
    psf = GaussianPsf(np.stack([share, sigma], axis=1), 1.0)
    image = render((65, 65), ONE * 32, ONE * 32, ONE, points(1), psf, 1e-9)
    assert image[32, 32] == pytest.approx((share / (2 * np.pi * sigma**2)).sum(), rel=1e-5)
    assert image.sum() == pytest.approx(1, rel=1e-4)
    assert psf.effective_pixels() == pytest.approx(1 / (image.astype(float) ** 2).sum(), rel=1e-3)
