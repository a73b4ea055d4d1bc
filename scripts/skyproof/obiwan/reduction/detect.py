"""Detection and measurement of sources in a stacked image, the same for real and injected ones.

The methods are those of Source Extractor (Bertin & Arnouts 1996, A&AS 117, 393) in the library sep
(Barbary 2016, JOSS 1, 58); the catalogue has the columns of a Tractor catalogue.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import sep
from scipy.ndimage import binary_dilation
from scipy.signal import fftconvolve

from skyproof.obiwan.bricks.grid import PIXEL_SCALE
from skyproof.obiwan.reduction.resample import Coadd
from skyproof.sky.tan import Tan

_LEAST_PIXELS = 5
# Buffer sizes of sep; the defaults overflow on a brick of a survey.
_PIXEL_STACK, _OBJECT_LIMIT = 10_000_000, 100_000
_KRON_FACTOR = 2.5  # of Bertin & Arnouts (1996)
_KRON_RADII = 6.0
# Exponent of the addition of half-light radii (2 for Gaussians) for exponential and Moffat
# profiles; measured for PSFs of 0.8-1.3 arcsec and galaxies of 0.25-0.9 arcsec.
_RADIUS_POWER = 1.5
_LEAST_GROWTH = 0.7  # minimum fraction of the light in an aperture; limits noisy corrections
_LEAST_APERTURE = 1.2  # radius in units of the FWHM of the point-spread function
_POINT_LIKE = 1.1  # half-light radius, in units of that of the point-spread function
_ROUND = 0.7  # axis ratio
# 90 % over 50 % radius, measured at high signal-to-noise ratio: exponential profiles 2.1-2.4, de
# Vaucouleurs 2.4-2.8. Fainter sources cannot be distinguished.
_CONCENTRATED, _CONCENTRATED_SNR = 2.45, 40.0
_SKY_MARGIN = 8  # pixels around sources that are not used as sky


@dataclass
class Detections:
    """Detected sources: the objects of sep and the map of their pixels."""

    objects: np.ndarray
    segments: np.ndarray  # [ny, nx] int32: number of the object, from 1; 0 is sky
    image: np.ndarray  # [ny, nx] float32: the mean of the bands, weighted by inverse variance
    ivar: np.ndarray


def detect(stacks: Mapping[str, Coadd], sigma: float) -> Detections:
    """Detect sources above `sigma` times the measured noise of the smoothed combined image.

    The kernel is a Gaussian with the width of the point-spread function, which is nearly the
    optimal filter for faint sources. Without detections the arrays are empty.
    """
    image, ivar = combine(stacks)
    kernel = gaussian_kernel(mean_fwhm(stacks) / PIXEL_SCALE)
    mask = ivar <= 0
    noise = 1 / np.sqrt(np.where(mask, 1, ivar))
    threshold = sigma * smoothed_noise(image, ivar, kernel)
    sep.set_extract_pixstack(_PIXEL_STACK)
    sep.set_sub_object_limit(_OBJECT_LIMIT)
    objects, segments = sep.extract(
        image, threshold, err=noise, mask=mask, minarea=_LEAST_PIXELS, filter_kernel=kernel,
        filter_type="matched", segmentation_map=True,
        clean=False,  # cleaning compares fluxes with thresholds in sigma, and removes faint sources
    )  # fmt: skip
    return Detections(objects, segments, image, ivar)


def combine(stacks: Mapping[str, Coadd]) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean of the bands, weighted by inverse variance, and its inverse variance."""
    first = next(iter(stacks.values()))
    weighted, ivar = np.zeros_like(first.image), np.zeros_like(first.ivar)
    for stack in stacks.values():
        weighted += stack.image * stack.ivar
        ivar += stack.ivar
    return weighted / np.where(ivar > 0, ivar, 1), ivar


def mean_fwhm(stacks: Mapping[str, Coadd]) -> float:
    """Return the mean FWHM [arcsec] of the combined image, weighted by inverse variance."""
    widths = sum(float((s.psfsize * s.ivar).sum(dtype=np.float64)) for s in stacks.values())
    total = sum(float(s.ivar.sum(dtype=np.float64)) for s in stacks.values())
    return widths / total


def gaussian_kernel(fwhm: float) -> np.ndarray:
    """Return a Gaussian [n, n] of the given FWHM in pixels, its sum 1."""
    width = fwhm / 2.3548
    half = max(int(np.ceil(3 * width)), 1)
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    kernel = np.exp(-0.5 * (x**2 + y**2) / width**2)
    return (kernel / kernel.sum()).astype(np.float32)


def smoothed_noise(image: np.ndarray, ivar: np.ndarray, kernel: np.ndarray) -> float:
    """Return the noise of the smoothed image over that expected for uncorrelated pixels.

    Resampled pixels are correlated, so that smoothing reduces the noise less.
    """
    signal = fftconvolve(image * ivar, kernel, mode="same")
    noise = np.sqrt(np.maximum(fftconvolve(ivar, kernel**2, mode="same"), 0))
    significance = signal[ivar > 0] / noise[ivar > 0]
    # Sources change the upper half of the distribution; the lower half is sky.
    median, low = np.percentile(significance, [50, 15.865])
    return float(max(median - low, 0.1))


def measure(found: Detections, stacks: Mapping[str, Coadd], tan: Tan) -> dict[str, np.ndarray]:
    """Measure the detections: name -> column [n] of a Tractor catalogue, without brick and objid.

    Positions are windowed centroids of the combined image. Fluxes [nanomaggies] are sums in one
    elliptical Kron aperture for all bands, without the pixels of neighbours; shape radii [arcsec]
    are half-light radii after correction for the point-spread function.
    """
    objects = found.objects
    mask = found.ivar <= 0
    fwhm = mean_fwhm(stacks) / PIXEL_SCALE
    ids = np.arange(1, len(objects) + 1)
    kron, _ = sep.kron_radius(
        found.image, objects["x"], objects["y"], objects["a"], objects["b"], objects["theta"],
        _KRON_RADII, mask=mask, segmap=found.segments, seg_id=ids,
    )  # fmt: skip
    ellipse = kron_ellipses(objects, kron, _LEAST_APERTURE * fwhm)
    aperture = (objects["x"], objects["y"], *ellipse)
    reach = np.sqrt(ellipse[0] * ellipse[1])
    radii, snr = light_radii(found, aperture, reach, mask, ids)
    intrinsic = deconvolved(radii[:, 0] * PIXEL_SCALE, mean_psf_radius(stacks))
    x, y = windowed_positions(found, objects, radii[:, 0], mask)
    columns: dict[str, np.ndarray] = {}
    columns["ra"], columns["dec"] = tan.sky(x, y)
    columns["bx"], columns["by"] = x.astype(np.float32), y.astype(np.float32)
    ix = np.clip(np.rint(x).astype(int), 0, tan.width - 1)
    iy = np.clip(np.rint(y).astype(int), 0, tan.height - 1)
    for band, stack in stacks.items():
        flux, ivar = aperture_flux(stack, aperture, found.segments, ids)
        share = growth(reach * PIXEL_SCALE / convolved(intrinsic, stack.psf_radius))
        columns[f"flux_{band}"] = (flux / share).astype(np.float32)
        columns[f"flux_ivar_{band}"] = (ivar * share**2).astype(np.float32)
        columns[f"mw_transmission_{band}"] = np.ones(len(objects), np.float32)
        columns[f"nobs_{band}"] = stack.nobs[iy, ix].astype(np.int16)
        columns[f"allmask_{band}"] = (stack.ivar[iy, ix] <= 0).astype(np.int16)
        columns[f"psfsize_{band}"] = stack.psfsize[iy, ix]
    axis_ratio = objects["b"] / np.maximum(objects["a"], 1e-6)
    return columns | classify(radii, intrinsic, snr, axis_ratio, mean_psf_radius(stacks))


def light_radii(
    found: Detections, aperture: tuple[np.ndarray, ...], reach: np.ndarray, mask: np.ndarray,
    ids: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Return radii [n, 2, pixel] with 50 % and 90 % of each object's light, and its S/N [n]."""
    pixels = {"mask": mask, "segmap": found.segments, "seg_id": ids, "subpix": 5}
    variance = 1 / np.where(mask, 1, found.ivar)
    inside, error, _ = sep.sum_ellipse(found.image, *aperture, 1.0, var=variance, **pixels)
    total = np.maximum(inside, 1e-12)
    for _ in range(2):  # the light outside the aperture depends on the radius, and vice versa
        radii, _ = sep.flux_radius(
            found.image, aperture[0], aperture[1], 2 * reach, [0.5, 0.9], normflux=total, **pixels
        )
        radii = np.nan_to_num(radii.reshape(len(total), 2), nan=1.0)
        total = np.maximum(inside, 1e-12) / growth(reach / np.maximum(radii[:, 0], 0.5))
    return radii, inside / np.maximum(error, 1e-12)


def convolved(radius: np.ndarray, psf_radius: float) -> np.ndarray:
    """Return the half-light radius of a galaxy of intrinsic `radius` convolved with a PSF."""
    return (radius**_RADIUS_POWER + psf_radius**_RADIUS_POWER) ** (1 / _RADIUS_POWER)


def deconvolved(radius: np.ndarray, psf_radius: float) -> np.ndarray:
    """Return the intrinsic half-light radius for an observed `radius`; 0 for points."""
    power = np.maximum(radius**_RADIUS_POWER - psf_radius**_RADIUS_POWER, 0)
    return power ** (1 / _RADIUS_POWER)


def growth(x: np.ndarray) -> np.ndarray:
    """Return the fraction of the light within x half-light radii, not below a minimum.

    It is that of an exponential profile, 1 - (1 + 1.678 x) exp(-1.678 x); a typical Moffat PSF
    differs by about 2 % at the radii used here.
    """
    return np.maximum(1 - (1 + 1.678 * x) * np.exp(-1.678 * x), _LEAST_GROWTH)


def kron_ellipses(
    objects: np.ndarray, kron: np.ndarray, least: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return semi-axes and angle of the apertures; circles of radius `least` for small objects."""
    factor = _KRON_FACTOR * np.nan_to_num(kron)
    a, b, theta = factor * objects["a"], factor * objects["b"], objects["theta"]
    small = np.sqrt(a * b) < least
    return np.where(small, least, a), np.where(small, least, b), np.where(small, 0.0, theta)


def windowed_positions(
    found: Detections, objects: np.ndarray, radii: np.ndarray, mask: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return windowed centroids (x, y) [pixel], or isophotal ones if the iteration diverges."""
    widths = np.clip(np.nan_to_num(radii, nan=1.0), 0.5, 20) * 2 / 2.3548
    x, y, _ = sep.winpos(found.image, objects["x"], objects["y"], widths, mask=mask)
    stays = np.hypot(x - objects["x"], y - objects["y"]) < 2.0
    return np.where(stays, x, objects["x"]), np.where(stays, y, objects["y"])


def aperture_flux(
    stack: Coadd, aperture: tuple[np.ndarray, ...], segments: np.ndarray, ids: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the sum in each aperture and its inverse variance; both are 0 without good pixels."""
    bad = stack.ivar <= 0
    variance = 1 / np.where(bad, 1, stack.ivar)
    flux, error, _ = sep.sum_ellipse(
        stack.image, *aperture, 1.0, var=variance, mask=bad, segmap=segments, seg_id=ids, subpix=5
    )
    known = np.isfinite(flux) & np.isfinite(error) & (error > 0)
    ivar = np.where(known, 1 / np.where(known, error, 1) ** 2, 0)
    return np.where(known, flux, 0), ivar


def mean_psf_radius(stacks: Mapping[str, Coadd]) -> float:
    """Return the half-light radius [arcsec] of a point source in the combined image."""
    totals = [float(s.ivar.sum(dtype=np.float64)) for s in stacks.values()]
    return float(np.average([s.psf_radius for s in stacks.values()], weights=totals))


def classify(
    radii: np.ndarray, intrinsic: np.ndarray, snr: np.ndarray, axis_ratio: np.ndarray,
    psf_radius: float,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Return type and shape radii [arcsec], by size and concentration.

    `radii`: 50 % and 90 % radius [n, 2, pixel]; `intrinsic`: half-light radius corrected for the
    point-spread function [arcsec].
    """
    concentration = radii[:, 1] / np.maximum(radii[:, 0], 1e-6)
    point = radii[:, 0] * PIXEL_SCALE < _POINT_LIKE * psf_radius
    bulge = ~point & (concentration > _CONCENTRATED) & (snr > _CONCENTRATED_SNR)
    kind = np.select([point, bulge, axis_ratio > _ROUND], [b"PSF", b"DEV", b"REX"], b"EXP")
    return {
        "type": kind.astype("S4"),
        "shapeexp_r": np.where(point | bulge, 0, intrinsic).astype(np.float32),
        "shapedev_r": np.where(bulge, intrinsic, 0).astype(np.float32),
    }


def sky_statistics(stack: Coadd, segments: np.ndarray) -> dict[str, float]:
    """Return median and robust standard deviation of pixel x sqrt(inverse variance) of the sky.

    Both are in sigma. With a correct sky and weights they are 0 and 1; the second one is smaller
    for correlated resampled pixels.
    """
    sky = (stack.ivar > 0) & ~binary_dilation(segments > 0, iterations=_SKY_MARGIN)
    if not sky.any():
        return {"median": 0.0, "sigma": 0.0}
    chi = (stack.image * np.sqrt(stack.ivar))[sky].astype(np.float64)
    low, median, high = np.percentile(chi, [15.865, 50, 84.135])
    return {"median": round(float(median), 4), "sigma": round(float(high - low) / 2, 4)}
