"""Selection of catalogued sources for stamps: padded emission-line-galaxy box and quality cuts.

The box is that of the DESI emission-line galaxies (DESI Collaboration 2016, arXiv:1611.00036,
section 3), padded on all sides. Both classes have the same cuts: with a cut on one class only, a
network could distinguish the classes by the cut.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from skyproof.core.formats import read
from skyproof.sky.photometry import magnitude


@dataclass(frozen=True)
class Limits:
    """Limits of the selection; magnitudes (AB) are corrected for Galactic extinction.

    A line of the colour box is (slope, intercept in mag): g-r is below slope (r-z) + intercept.
    Lines and r-z range are given before padding by `colour_pad`, a distance in the colour plane
    perpendicular to each edge.
    """

    colour_pad: float = 0.5  # mag
    rz_range: tuple[float, float] = (0.3, 1.6)  # mag, inclusive
    blue_line: tuple[float, float] = (1.15, -0.15)
    red_line: tuple[float, float] = (-1.2, 1.6)
    r_half_range: tuple[float, float] = (0.131, 2.0)  # arcsec, inclusive; 0.131 is half a pixel
    # Faintest (exclusive): the limit of the target selection plus the padding.
    faintest: Mapping[str, float] = field(default_factory=lambda: {"g": 24.5, "r": 23.9, "z": 23.0})
    # Brightest (inclusive): the brightest galaxies injected by Obiwan.
    brightest: Mapping[str, float] = field(
        default_factory=lambda: {"g": 20.6766, "r": 20.4659, "z": 19.4391}
    )
    # Models unlike the injected exponential galaxies, and Gaia duplicates. All others are kept:
    # PSF, EXP, REX, SIMP (older releases) and SER (newer releases, which fit a part of the
    # exponential galaxies as Sersic profiles).
    excluded_types: tuple[bytes, ...] = (b"COMP", b"DEV", b"DUP")


@dataclass(frozen=True)
class SelectedSources:
    """`kept`: bool [n]; `removed`: cut -> number removed of those that passed all previous cuts."""

    kept: np.ndarray
    removed: dict[str, int]


def select_measured(columns: read.Columns, bands: str, limits: Limits) -> SelectedSources:
    """Apply all cuts to Tractor columns (name -> [n] array, lower-case names).

    Cuts on bands outside `bands` are not applied: without z there is no colour box and no r-z
    range, and cuts on flux, magnitude and exposures use only `bands`.
    """
    cuts: dict[str, np.ndarray] = {
        "brick_primary": columns["brick_primary"],
        "nobs": np.all(_stacked(columns, "nobs", bands) >= 1, axis=0),
        "flux": _positive(columns, "flux", bands),
        "flux_ivar": _positive(columns, "flux_ivar", bands),
        "type": ~np.isin(morphology(columns), limits.excluded_types),
    }
    magnitudes = corrected_magnitudes(columns, bands)
    return _in_turn(cuts | _appearance(magnitudes, half_light_radius(columns, bands), limits))


def select_input(magnitudes: read.Columns, r_half: np.ndarray, limits: Limits) -> SelectedSources:
    """Apply the cuts on magnitude, colour and size to injected values (band -> mag; arcsec)."""
    return _in_turn(_appearance(magnitudes, r_half, limits))


def select_all(count: int) -> SelectedSources:
    """Keep every source."""
    return SelectedSources(np.ones(count, bool), {})


def corrected_magnitudes(columns: read.Columns, bands: str) -> dict[str, np.ndarray]:
    """Return band -> AB magnitude [n], float64: 22.5 - 2.5 log10(flux / mw_transmission).

    NaN if flux or transmission is not positive.
    """
    return {
        band: magnitude(columns[f"flux_{band}"], columns[f"mw_transmission_{band}"])
        for band in bands
    }


def morphology(columns: read.Columns) -> np.ndarray:
    """Return the Tractor type [n] as bytes without padding: older releases write b'PSF '."""
    return np.char.strip(np.asarray(columns["type"]).astype("S4"))


def half_light_radius(columns: read.Columns, bands: str) -> np.ndarray:
    """Return the half-light radius [n] in arcsec, float32.

    Galaxies: the radius of the fitted profile: `shapedev_r` for DEV, the mean of both for COMP,
    otherwise `shapeexp_r`. Point sources: half of the mean FWHM of the point-spread function over
    the bands in which it is known, otherwise NaN.
    """
    kind = morphology(columns)
    exponential, bulge = columns["shapeexp_r"], columns["shapedev_r"]
    galaxy = np.select(
        [kind == b"DEV", kind == b"COMP"], [bulge, (exponential + bulge) / 2], exponential
    )
    return np.where(kind == b"PSF", _psf_radius(columns, bands), galaxy).astype("f4")


def _psf_radius(columns: read.Columns, bands: str) -> np.ndarray:
    sizes = _stacked(columns, "psfsize", bands).astype("f8")
    known = sizes > 0
    count = known.sum(axis=0)
    mean = np.where(known, sizes, 0).sum(axis=0) / np.maximum(count, 1)
    return np.where(count > 0, mean / 2, np.nan)


def _appearance(
    magnitudes: read.Columns, r_half: np.ndarray, limits: Limits
) -> dict[str, np.ndarray]:
    cuts = {}
    if {"g", "r", "z"} <= set(magnitudes):
        gr, rz = magnitudes["g"] - magnitudes["r"], magnitudes["r"] - magnitudes["z"]
        cuts["colour"] = colour_box(gr, rz, limits)
    if {"r", "z"} <= set(magnitudes):
        low, high = limits.rz_range
        rz = magnitudes["r"] - magnitudes["z"]
        cuts["r-z"] = (rz >= low - limits.colour_pad) & (rz <= high + limits.colour_pad)
    # Compared in the precision of the catalogue, so that a float32 radius equal to the limit
    # passes. An unknown radius (a point source in a catalogue without PSF sizes) also passes.
    smallest, largest = limits.r_half_range
    cuts["r_half"] = np.isnan(r_half) | ((r_half >= smallest) & (r_half <= largest))
    for band in sorted(set(limits.faintest) & set(magnitudes)):
        cuts[f"faint_{band}"] = magnitudes[band] < limits.faintest[band]
        cuts[f"bright_{band}"] = magnitudes[band] >= limits.brightest[band]
    return cuts


def colour_box(gr: np.ndarray, rz: np.ndarray, limits: Limits) -> np.ndarray:
    """Return which colours (mag, [n]) are below both lines, moved outwards by the padding.

    A line y = s x + c moved by p perpendicular to itself passes through (x - p sin a, y + p cos a)
    with a = atan s.
    """
    inside = np.ones(len(gr), bool)
    for slope, intercept in (limits.blue_line, limits.red_line):
        angle = math.atan(slope)
        dx = limits.colour_pad * math.sin(angle)
        dy = limits.colour_pad * math.cos(angle)
        inside &= gr <= slope * (rz + dx) + intercept + dy
    return inside


def _positive(columns: read.Columns, name: str, bands: str) -> np.ndarray:
    values = _stacked(columns, name, bands)
    return (np.isfinite(values) & (values > 0)).all(axis=0)


def _stacked(columns: read.Columns, name: str, bands: str) -> np.ndarray:
    return np.array([columns[f"{name}_{band}"] for band in bands])


def _in_turn(cuts: Mapping[str, np.ndarray]) -> SelectedSources:
    kept: np.ndarray = np.ones(len(next(iter(cuts.values()))), bool)
    removed = {}
    for name, passed in cuts.items():
        removed[name] = int((kept & ~passed).sum())
        kept &= passed
    return SelectedSources(kept, removed)
