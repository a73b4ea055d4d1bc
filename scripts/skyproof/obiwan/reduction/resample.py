"""Resampling of CCD pixels to the pixels of a brick, and stacking of the exposures of a band."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from astropy.wcs import WCS
from reproject import reproject_interp
from scipy.interpolate import RectBivariateSpline
from scipy.ndimage import distance_transform_edt

from skyproof.obiwan.bricks.grid import PIXEL_SCALE
from skyproof.obiwan.reduction.ccds import Exposure
from skyproof.sky.tan import Tan

Box = tuple[slice, slice]
_BORDER_STEPS = 33  # points along each side of a CCD, to follow its distortions
_AREA_STEPS = 9


@dataclass
class Coadd:
    """The exposures of one band on the brick's pixels, [ny, nx] each."""

    image: np.ndarray  # float32, nanomaggies; 0 where no exposure has a good pixel
    ivar: np.ndarray  # float32, nanomaggies^-2
    nobs: np.ndarray  # uint8, number of good exposures
    psfsize: np.ndarray  # float32, arcsec: mean FWHM, weighted by inverse variance; 0 where none
    psf_radius: float  # arcsec: mean half-light radius of the point-spread functions


def stack(exposures: Iterable[Exposure], tan: Tan) -> Coadd:
    """Resample exposures to a brick and average them with inverse-variance weights.

    One exposure is in memory at a time. A brick pixel is good if the CCD pixels around it are good.
    """
    shape = tan.height, tan.width
    weighted, ivar, widths = (np.zeros(shape, np.float32) for _ in range(3))
    nobs = np.zeros(shape, np.uint8)
    radii, totals = 0.0, 0.0
    for exposure in exposures:
        placed = resample(exposure, tan)
        if placed is None:
            continue
        box, image, weight = placed
        weighted[box] += weight * image
        ivar[box] += weight
        fwhm, radius = psf_size(exposure)
        widths[box] += weight * np.float32(fwhm)
        nobs[box] += weight > 0
        total = float(weight.sum(dtype=np.float64))
        radii, totals = radii + total * radius, totals + total
    known = np.where(ivar > 0, ivar, 1)
    return Coadd(weighted / known, ivar, nobs, widths / known, radii / totals if totals else 0.0)


def resample(exposure: Exposure, tan: Tan) -> tuple[Box, np.ndarray, np.ndarray] | None:
    """Return the box of the brick that a CCD covers, and its image and inverse variance there.

    The image is interpolated with cubic splines as surface brightness, so that the flux of a source
    is conserved for any pixel scale; inverse variances are interpolated linearly. Interpolated
    pixels are correlated; the effect on the noise is measured on the stack. Return None if the CCD
    does not cover the brick.
    """
    box = footprint_box(exposure.wcs, exposure.image.shape, tan)
    if box is None:
        return None
    good = exposure.ivar > 0
    area = pixel_area(exposure.wcs, exposure.image.shape)
    surface = fill_masked(exposure.image, good) / area
    target = box_wcs(tan, box)
    shape = box[0].stop - box[0].start, box[1].stop - box[1].start
    image = _reproject(surface, exposure.wcs, target, shape, "bicubic") * PIXEL_SCALE**2
    weight = fill_masked(exposure.ivar, good) * (area / PIXEL_SCALE**2) ** 2
    weight, clean = _reproject(np.stack([weight, good]), exposure.wcs, target, shape, "bilinear")
    # Less than 1 if the interpolation uses a masked pixel.
    usable = np.isfinite(image) & np.isfinite(weight) & (clean > 0.999)
    return (
        box,
        np.where(usable, image, 0).astype(np.float32),
        np.where(usable, weight, 0).astype(np.float32),
    )


def _reproject(
    array: np.ndarray, source: WCS, target: WCS, shape: tuple[int, int], order: str
) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return reproject_interp(
            (array, source), target, shape_out=shape, order=order,
            roundtrip_coords=False, return_footprint=False,
        )  # fmt: skip


def fill_masked(image: np.ndarray, good: np.ndarray) -> np.ndarray:
    """Return the image with masked pixels set to the nearest good one, against spline ringing."""
    if good.all():
        return image
    nearest = distance_transform_edt(~good, return_distances=False, return_indices=True)
    return image[tuple(nearest)]


def pixel_area(wcs: WCS, shape: tuple[int, int]) -> np.ndarray:
    """Return the area [arcsec^2] of each pixel of an image of `shape`, distortions included."""
    ny, nx = shape
    y, x = np.linspace(0, ny - 1, _AREA_STEPS), np.linspace(0, nx - 1, _AREA_STEPS)
    gx, gy = np.meshgrid(x, y)
    ra, dec = wcs.pixel_to_world_values(
        np.stack([gx - 0.5, gx + 0.5, gx, gx]), np.stack([gy, gy, gy - 0.5, gy + 0.5])
    )
    east = ((ra - ra[0] + 180) % 360 - 180) * np.cos(np.radians(dec.mean(axis=0)))
    determinant = (east[1] - east[0]) * (dec[3] - dec[2]) - (east[3] - east[2]) * (dec[1] - dec[0])
    spline = RectBivariateSpline(y, x, np.abs(determinant) * 3600**2, kx=3, ky=3)
    return spline(np.arange(ny), np.arange(nx))


def footprint_box(wcs: WCS, shape: tuple[int, int], tan: Tan) -> Box | None:
    """Return the box of brick pixels that an image of `shape` covers, or None."""
    ny, nx = shape
    t = np.linspace(-0.5, 0.5, _BORDER_STEPS)
    side = np.full_like(t, 0.5)
    x = nx * np.concatenate([t, t, -side, side]) + (nx - 1) / 2
    y = ny * np.concatenate([-side, side, t, t]) + (ny - 1) / 2
    bx, by = tan.pixel(*wcs.pixel_to_world_values(x, y))
    if not (np.isfinite(bx).all() and np.isfinite(by).all()):
        return None
    x0, x1 = max(int(np.floor(bx.min())), 0), min(int(np.ceil(bx.max())) + 1, tan.width)
    y0, y1 = max(int(np.floor(by.min())), 0), min(int(np.ceil(by.max())) + 1, tan.height)
    return (slice(y0, y1), slice(x0, x1)) if x0 < x1 and y0 < y1 else None


def box_wcs(tan: Tan, box: Box) -> WCS:
    """Return the world coordinates of a box of a brick image."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [tan.ra, tan.dec]
    wcs.wcs.crpix = [tan.crpix[0] - box[1].start, tan.crpix[1] - box[0].start]
    wcs.wcs.cd = tan.cd
    wcs.wcs.radesys = "ICRS"
    wcs.wcs.set()
    return wcs


def psf_size(exposure: Exposure) -> tuple[float, float]:
    """Return FWHM and half-light radius [arcsec] of the PSF at the centre of a CCD."""
    ny, nx = exposure.image.shape
    scale = np.sqrt(pixel_area(exposure.wcs, exposure.image.shape)[ny // 2, nx // 2])
    psf = exposure.psf.at((nx - 1) / 2, (ny - 1) / 2)
    return float(psf.calculateFWHM() * scale), float(psf.calculateHLR() * scale)
