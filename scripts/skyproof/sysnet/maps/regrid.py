"""Maps at another resolution and in another frame: templates are averaged, counts are summed."""

from __future__ import annotations

import numpy as np

from skyproof.core.errors import InputError
from skyproof.sysnet.maps.mapfile import HealpixMap


def intensive(source: HealpixMap, nside: int, frame: str, *, smooth: bool = False) -> np.ndarray:
    """Return a template (density, magnitude, fraction) as float64 [12 nside^2]; NaN: unseen.

    A coarser pixel has the mean of its finer pixels that are defined. A finer pixel has the value
    of the pixel that contains it, or with `smooth` the value interpolated between pixel centres.
    Values in another frame are interpolated.
    """
    if source.frame != frame:
        coarse = _regraded(source.values, min(nside, source.nside))
        return _rotated(coarse, source.frame, nside, frame)
    if nside > source.nside and smooth:
        return _interpolated(source.values, nside)
    return _regraded(source.values, nside)


def fractions(source: HealpixMap, nside: int, frame: str) -> np.ndarray:
    """Return an observed fraction as `intensive` does; undefined pixels have fraction 0."""
    known = HealpixMap(source.path, np.nan_to_num(source.values), source.nside, source.frame)
    return intensive(known, nside, frame)


def extensive(source: HealpixMap, nside: int, frame: str) -> np.ndarray:
    """Return counts as float64 [12 nside^2]: the sum over finer pixels; NaN if all are undefined.

    Raise InputError for counts in another frame or at a coarser resolution.
    """
    if source.frame != frame:
        raise InputError(
            source.path, f"has counts in frame {source.frame}, which cannot be rotated to {frame}",
            expected=f"the table in frame {source.frame}",
        )  # fmt: skip
    if nside > source.nside:
        raise InputError(
            source.path, f"has counts at nside {source.nside}, which cannot be refined to {nside}",
            expected=f"nside {source.nside} or less",
        )  # fmt: skip
    if nside == source.nside:
        return source.values
    import healpy

    seen = np.isfinite(source.values)
    total = healpy.ud_grade(np.where(seen, source.values, 0), nside, power=-2)
    return np.where(healpy.ud_grade(seen.astype(float), nside) > 0, total, np.nan)


def _regraded(values: np.ndarray, nside: int) -> np.ndarray:
    """Return the mean of defined pixels in coarser ones, or the enclosing value in finer ones."""
    import healpy

    if nside == healpy.get_nside(values):
        return values
    known = np.where(np.isfinite(values), values, healpy.UNSEEN)
    found = healpy.ud_grade(known, nside)
    return np.where(found == healpy.UNSEEN, np.nan, found)


def _rotated(values: np.ndarray, frame: str, nside: int, wanted: str) -> np.ndarray:
    import healpy

    lon, lat = healpy.pix2ang(nside, np.arange(12 * nside**2), lonlat=True)
    return _at(values, *healpy.Rotator(coord=wanted + frame)(lon, lat, lonlat=True))


def _interpolated(values: np.ndarray, nside: int) -> np.ndarray:
    import healpy

    return _at(values, *healpy.pix2ang(nside, np.arange(12 * nside**2), lonlat=True))


def _at(values: np.ndarray, lon: np.ndarray, lat: np.ndarray) -> np.ndarray:
    """Interpolate at positions [deg] between the defined ones of the four nearest pixel centres."""
    import healpy

    pixels, weights = healpy.get_interp_weights(healpy.get_nside(values), lon, lat, lonlat=True)
    near = values[pixels]
    weights = np.where(np.isfinite(near), weights, 0)
    whole = weights.sum(axis=0)
    found = (np.where(np.isfinite(near), near, 0) * weights).sum(axis=0)
    # With less than half of the weight the value is mostly that of a neighbouring pixel.
    return np.where(whole > 0.5, found / np.where(whole > 0, whole, 1), np.nan)
