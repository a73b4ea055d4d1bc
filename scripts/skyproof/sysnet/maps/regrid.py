"""Maps at another resolution and in another frame: templates are averaged, counts are added."""

from __future__ import annotations

import numpy as np

from skyproof.core.errors import InputError
from skyproof.sysnet.maps.mapfile import Map


def intensive(source: Map, nside: int, frame: str, *, smooth: bool = False) -> np.ndarray:
    """Return a template (density, magnitude, fraction) as float64 [12 nside^2]; NaN: unseen.

    To coarser pixels: the mean of those seen. To finer ones: the value of the pixel around, or
    with `smooth` the interpolation between the centres. To another frame: interpolated.
    """
    if source.frame != frame:
        return _rotated(_coarser(source.values, source.nside, nside), source.frame, nside, frame)
    if nside < source.nside:
        return _coarser(source.values, source.nside, nside)
    if nside > source.nside:
        return _interpolated(source.values, nside) if smooth else _finer(source.values, nside)
    return source.values


def fractions(source: Map, nside: int, frame: str) -> np.ndarray:
    """Return an observed fraction: as a template, but what is unseen counts as not observed."""
    known = Map(source.path, np.nan_to_num(source.values), source.nside, source.frame)
    return intensive(known, nside, frame)


def extensive(source: Map, nside: int, frame: str) -> np.ndarray:
    """Return counts as float64 [12 nside^2]: those of the finer pixels added; NaN: all unseen."""
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
    children = _children(source.values, source.nside, nside)
    seen = np.isfinite(children)
    return _ring(np.where(seen.any(axis=1), np.nansum(children, axis=1), np.nan), nside)


def _children(values: np.ndarray, fine: int, coarse: int) -> np.ndarray:
    """Return the values of the finer pixels in each coarser one (NESTED), [12 coarse^2, k]."""
    import healpy

    nested = values[healpy.nest2ring(fine, np.arange(len(values)))]
    return nested.reshape(12 * coarse**2, -1)


def _ring(nested: np.ndarray, nside: int) -> np.ndarray:
    import healpy

    return nested[healpy.ring2nest(nside, np.arange(len(nested)))]


def _coarser(values: np.ndarray, fine: int, nside: int) -> np.ndarray:
    if nside >= fine:
        return values
    children = _children(values, fine, nside)
    seen = np.isfinite(children)
    total = np.where(seen, children, 0).sum(axis=1)
    mean = np.where(seen.any(axis=1), total / np.maximum(seen.sum(axis=1), 1), np.nan)
    return _ring(mean, nside)


def _finer(values: np.ndarray, nside: int) -> np.ndarray:
    import healpy

    coarse = healpy.get_nside(values)
    nested = healpy.ring2nest(nside, np.arange(12 * nside**2))
    return values[healpy.nest2ring(coarse, nested // (nside // coarse) ** 2)]


def _rotated(values: np.ndarray, frame: str, nside: int, wanted: str) -> np.ndarray:
    import healpy

    lon, lat = healpy.pix2ang(nside, np.arange(12 * nside**2), lonlat=True)
    return _at(values, *healpy.Rotator(coord=wanted + frame)(lon, lat, lonlat=True))


def _interpolated(values: np.ndarray, nside: int) -> np.ndarray:
    import healpy

    return _at(values, *healpy.pix2ang(nside, np.arange(12 * nside**2), lonlat=True))


def _at(values: np.ndarray, lon: np.ndarray, lat: np.ndarray) -> np.ndarray:
    """Interpolate between the four nearest centres [deg]; what is unseen has no part in it."""
    import healpy

    pixels, weights = healpy.get_interp_weights(healpy.get_nside(values), lon, lat, lonlat=True)
    near = values[pixels]
    weights = np.where(np.isfinite(near), weights, 0)
    whole = weights.sum(axis=0)
    found = (np.where(np.isfinite(near), near, 0) * weights).sum(axis=0)
    # Beyond half of the weight the value would be that of a neighbour.
    return np.where(whole > 0.5, found / np.where(whole > 0, whole, 1), np.nan)
