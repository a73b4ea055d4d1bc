"""Maps at another resolution and in another frame: templates are averaged, counts are added."""

from __future__ import annotations

import numpy as np

from skyproof.core.errors import InputError
from skyproof.sysnet.maps.mapfile import Map


def intensive(source: Map, nside: int, frame: str, *, smooth: bool = False) -> np.ndarray:
    """Return a template (density, magnitude, fraction) as float64 [12 nside^2]; NaN: unseen.

    Coarser pixels hold the mean of the finer ones seen. Finer pixels hold the value of the pixel
    around them, or with `smooth` the interpolation between centres. In another frame: interpolated.
    """
    if source.frame != frame:
        coarse = _regraded(source.values, min(nside, source.nside))
        return _rotated(coarse, source.frame, nside, frame)
    if nside > source.nside and smooth:
        return _interpolated(source.values, nside)
    return _regraded(source.values, nside)


def fractions(source: Map, nside: int, frame: str) -> np.ndarray:
    """Return an observed fraction as `intensive` does; unseen pixels count as not observed."""
    known = Map(source.path, np.nan_to_num(source.values), source.nside, source.frame)
    return intensive(known, nside, frame)


def extensive(source: Map, nside: int, frame: str) -> np.ndarray:
    """Return counts as float64 [12 nside^2]: the sum over the finer pixels; NaN: all unseen.

    InputError for counts in another frame, or at a coarser resolution.
    """
    if source.frame != frame:
        raise InputError(
            source.path, f"are counts in frame {source.frame}, which cannot be turned to {frame}",
            expected=f"the table in frame {source.frame}",
        )  # fmt: skip
    if nside > source.nside:
        raise InputError(
            source.path, f"are counts at nside {source.nside}, which cannot be divided to {nside}",
            expected=f"nside {source.nside} or less",
        )  # fmt: skip
    if nside == source.nside:
        return source.values
    import healpy

    seen = np.isfinite(source.values)
    total = healpy.ud_grade(np.where(seen, source.values, 0), nside, power=-2)
    return np.where(healpy.ud_grade(seen.astype(float), nside) > 0, total, np.nan)


def _regraded(values: np.ndarray, nside: int) -> np.ndarray:
    """Return the mean of the pixels seen in each coarser one, or the value around a finer one."""
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
    """Interpolate at positions in degrees between the four nearest centres that are seen."""
    import healpy

    pixels, weights = healpy.get_interp_weights(healpy.get_nside(values), lon, lat, lonlat=True)
    near = values[pixels]
    weights = np.where(np.isfinite(near), weights, 0)
    whole = weights.sum(axis=0)
    found = (np.where(np.isfinite(near), near, 0) * weights).sum(axis=0)
    # With less than half of the weight the value would be that of a neighbour.
    return np.where(whole > 0.5, found / np.where(whole > 0, whole, 1), np.nan)
