"""Injection of galaxies into real images: population, positions, and light.

The population is Obiwan's emission-line galaxies: exponential profiles of random shape (Kong et al.
2020, MNRAS 499, 3943). Each galaxy is added to every CCD image at its exact position, convolved
with the point-spread function of the CCD, with the photon noise of its light.
"""

from __future__ import annotations

from collections.abc import Callable

import galsim
import numpy as np

from skyproof.obiwan.catalogue.draws import draw_magnitudes, positions_apart
from skyproof.obiwan.catalogue.selection import Limits, colour_box
from skyproof.obiwan.reduction.ccds import Exposure
from skyproof.sky.photometry import flux
from skyproof.sky.tan import Tan

_COUNT_SLOPE = 0.3  # dex/mag, of the counts of faint galaxies in g
_COLOUR_MEAN = (0.85, 0.35)  # (r-z, g-r); scatter below; only colours in the target box are kept
_COLOUR_SCATTER = (0.25, 0.2)
_I_FROM_RZ = 0.55  # (r-i) / (r-z) of a smooth spectrum
_RADIUS_MEDIAN, _RADIUS_SCATTER = 0.5, 0.35  # arcsec, natural logarithm
_RADIUS_RANGE = (0.2, 1.5)  # arcsec
_AXIS_RATIO_RANGE = (0.2, 1.0)
_PROFILE_RADII = 6.0  # size of a stamp in half-light radii: 99.95 % of the exponential profile
_TRIES = 200  # positions tried per galaxy

Covered = Callable[[np.ndarray, np.ndarray], np.ndarray]


def draw_galaxies(
    count: int,
    magnitudes: tuple[float, float],
    separation: float,
    tan: Tan,
    covered: Covered,
    rng: np.random.Generator,
) -> np.ndarray:
    """Draw up to `count` galaxies on a brick image, fewer if the covered sky has no more space.

    `magnitudes`: brightest and faintest in g. `separation`: minimum distance in pixels. `covered`
    returns which pixel positions (x, y arrays) all bands cover. Return a structured array: id from
    1, ra, dec [deg], x, y [pixel, 0-based], mag_g, mag_r, mag_i, mag_z, rhalf (half-light radius of
    the circle of equal area, arcsec), n (Sersic index), ba (axis ratio), pa (deg, north through
    east).
    """
    x, y = draw_positions(count, separation, (tan.width, tan.height), covered, rng)
    n = len(x)
    catalog = np.zeros(n, GALAXY_DTYPE)
    catalog["id"] = 1 + np.arange(n)
    catalog["x"], catalog["y"] = x, y
    catalog["ra"], catalog["dec"] = tan.sky(x, y)
    rz, gr = draw_colours(n, rng)
    catalog["mag_g"] = draw_magnitudes(n, *magnitudes, _COUNT_SLOPE, rng)
    catalog["mag_r"] = catalog["mag_g"] - gr
    catalog["mag_z"] = catalog["mag_r"] - rz
    catalog["mag_i"] = catalog["mag_r"] - _I_FROM_RZ * rz
    catalog["rhalf"] = draw_radii(n, rng)
    catalog["n"] = 1
    catalog["ba"] = rng.uniform(*_AXIS_RATIO_RANGE, n)
    catalog["pa"] = rng.uniform(0, 180, n)
    return catalog


GALAXY_DTYPE = np.dtype(
    [("id", "i8"), ("ra", "f8"), ("dec", "f8"), ("x", "f8"), ("y", "f8")]
    + [(f"mag_{band}", "f8") for band in "griz"]
    + [("rhalf", "f8"), ("n", "f8"), ("ba", "f8"), ("pa", "f8")]
)


def draw_positions(
    count: int,
    separation: float,
    size: tuple[int, int],
    covered: Covered,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw positions [pixel] on the covered sky with a minimum `separation`.

    The number is limited to one per area of (2 `separation`)^2, so that injected galaxies do not
    cover a small field.
    """
    tries = _TRIES * count
    x = rng.uniform(-0.5, size[0] - 0.5, tries)
    y = rng.uniform(-0.5, size[1] - 0.5, tries)
    inside = covered(x, y)
    area = size[0] * size[1] * inside.mean()
    if separation > 0:
        count = min(count, int(area / (2 * separation) ** 2))
    return positions_apart(zip(x[inside], y[inside], strict=True), count, separation)


def draw_colours(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw colours (r-z, g-r) [mag] of the star-forming locus inside the target box."""
    limits = Limits(colour_pad=0.0)
    colours = np.empty((0, 2))
    while len(colours) < count:
        new = rng.normal(_COLOUR_MEAN, _COLOUR_SCATTER, (2 * count, 2))
        low, high = limits.rz_range
        inside = colour_box(new[:, 1], new[:, 0], limits) & (new[:, 0] > low) & (new[:, 0] < high)
        colours = np.concatenate([colours, new[inside]])
    return colours[:count, 0], colours[:count, 1]


def draw_radii(count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw half-light radii [arcsec], log-normal between fixed limits."""
    radii = np.empty(0)
    while len(radii) < count:
        new = _RADIUS_MEDIAN * np.exp(_RADIUS_SCATTER * rng.normal(size=2 * count))
        inside = (new > _RADIUS_RANGE[0]) & (new < _RADIUS_RANGE[1])
        radii = np.concatenate([radii, new[inside]])
    return radii[:count]


def add_galaxies(exposure: Exposure, catalog: np.ndarray, rng: np.random.Generator) -> Exposure:
    """Return the exposure with the light of the galaxies, its photon noise, and its variance.

    Masked pixels stay masked. The variance is increased only if the survey's weights include the
    photon noise of sources; otherwise the weights would reveal the injected galaxies.
    """
    image = exposure.image.astype(np.float64)
    variance = np.zeros_like(image)
    fluxes = flux(catalog[f"mag_{exposure.ccd.band}"])
    xs, ys = exposure.wcs.world_to_pixel_values(catalog["ra"], catalog["dec"])
    for galaxy, brightness, x, y in zip(catalog, fluxes, xs, ys, strict=True):
        stamp = draw_stamp(exposure, galaxy, float(x), float(y))
        if stamp is None:
            continue
        box, light = stamp
        electrons = np.maximum(light * brightness * exposure.electrons, 0)
        noise = (rng.poisson(electrons) - electrons) / exposure.electrons
        image[box] += light * brightness + noise
        variance[box] += electrons / exposure.electrons**2
    good = exposure.ivar > 0
    ivar = exposure.ivar
    if exposure.noise_of_sources:
        ivar = np.where(good, ivar / (1 + ivar * variance), 0).astype(np.float32)
    image = np.where(good, image, 0).astype(np.float32)
    return Exposure(
        exposure.ccd, image, ivar, exposure.wcs, exposure.psf, exposure.electrons,
        exposure.noise_of_sources,
    )  # fmt: skip


def draw_stamp(
    exposure: Exposure, galaxy: np.void, x: float, y: float
) -> tuple[tuple[slice, slice], np.ndarray] | None:
    """Return the box in the CCD image and the light of a galaxy of unit flux; None if outside."""
    to_sky = local_jacobian(exposure, x, y)
    radius_pixels = galaxy["rhalf"] / np.sqrt(to_sky.pixelArea())
    half = int(np.ceil(_PROFILE_RADII * radius_pixels / np.sqrt(galaxy["ba"]))) + 32
    ix, iy = round(x), round(y)
    ny, nx = exposure.image.shape
    x0, x1 = max(ix - half, 0), min(ix + half + 1, nx)
    y0, y1 = max(iy - half, 0), min(iy + half + 1, ny)
    if x0 >= x1 or y0 >= y1:
        return None
    profile = galsim.Exponential(half_light_radius=galaxy["rhalf"])
    # Position angles count from north through east, GalSim's from the first axis (east) to north.
    profile = profile.shear(q=galaxy["ba"], beta=(90 - galaxy["pa"]) * galsim.degrees)
    seen = galsim.Convolve(profile, to_sky.toWorld(exposure.psf.at(x, y)))
    image = galsim.Image(galsim.BoundsI(x0, x1 - 1, y0, y1 - 1), dtype=np.float64)
    # The PSF already includes the response of the pixel.
    seen.drawImage(image, wcs=to_sky, center=(x, y), method="no_pixel")
    return (slice(y0, y1), slice(x0, x1)), image.array


def local_jacobian(exposure: Exposure, x: float, y: float) -> galsim.JacobianWCS:
    """Return the derivatives of (east, north) [arcsec] by (x, y) [pixel] at a pixel."""
    px = np.array([x - 0.5, x + 0.5, x, x])
    py = np.array([y, y, y - 0.5, y + 0.5])
    ra, dec = exposure.wcs.pixel_to_world_values(px, py)
    turn = (ra - ra[0] + 180) % 360 - 180
    east = 3600 * turn * np.cos(np.radians(dec.mean()))
    north = 3600 * dec
    return galsim.JacobianWCS(
        east[1] - east[0], east[3] - east[2], north[1] - north[0], north[3] - north[2]
    )
