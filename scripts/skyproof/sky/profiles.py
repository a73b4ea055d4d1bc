"""Images of galaxies whose profiles and point-spread functions are mixtures of Gaussians.

The convolution of two mixtures is exact: every pair of components gives one Gaussian whose
covariance is the sum of both (Hogg & Lang 2013, PASP 125, 719; used by the Tractor). The value of a
pixel is the surface brightness at its centre: the point-spread function is the effective one, which
includes the response of the pixel, as in coadds of the Legacy Surveys.
"""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import numpy as np

# (fraction of the flux, sigma) of each component, from least-squares fits with weight 1/brightness:
# profiles of half-light radius 1 up to radius 8 (exponential) and 30 (de Vaucouleurs), Moffat of
# exponent 3 and FWHM 1 up to radius 8. tests/unit/sky/test_profiles.py measures their errors.
EXPONENTIAL = np.array([
    [0.005262, 0.10553], [0.051354, 0.27044], [0.211616, 0.52330],
    [0.399482, 0.87634], [0.285777, 1.34327], [0.046509, 1.96965],
])  # fmt: skip
DE_VAUCOULEURS = np.array([
    [0.007443, 0.01403], [0.031171, 0.04634], [0.081086, 0.12126],
    [0.150817, 0.28148], [0.210263, 0.60856], [0.221257, 1.26075],
    [0.171913, 2.55697], [0.093700, 5.19992], [0.032350, 11.36368],
])  # fmt: skip
MOFFAT_EXPONENT = 3.0
MOFFAT = np.array([
    [0.213365, 0.33193], [0.481544, 0.51507], [0.244542, 0.82379],
    [0.054107, 1.39918], [0.006442, 2.69280],
])  # fmt: skip

_SPIRAL_RADII = np.linspace(0.8, 2.8, 6)  # of the knots of an arm [half-light radii]
_SPIRAL_WIDTH = 0.25  # sigma of a knot [half-light radii]
_TAN_PITCH = np.tan(np.radians(22.0))  # of a typical late-type spiral
_MOST_CLUMPS = 6
_CLUMP_SHARE = 0.6  # clumps' fraction of the light in clumps and arms, for galaxies with clumps
_CHUNK_PIXELS = 1 << 17  # pixels evaluated at a time: fits into the second-level cache


class Shapes(NamedTuple):
    """Shapes of n galaxies, arrays [n]: an aligned exponential disc and de Vaucouleurs bulge."""

    r_disc: np.ndarray  # half-light radius along the major axis [arcsec]
    r_bulge: np.ndarray
    bulge_share: np.ndarray  # fraction of the light: 0 pure disc, 1 pure de Vaucouleurs galaxy
    axis_ratio: np.ndarray  # minor over major axis
    angle: np.ndarray  # of the major axis, north through east [deg]


class Gaussians(NamedTuple):
    """The Gaussian components of several sources, arrays [m]; positions relative to the source."""

    source: np.ndarray  # index of the source
    share: np.ndarray  # fraction of the flux of the source
    x: np.ndarray  # centre [pixel]
    y: np.ndarray
    xx: np.ndarray  # covariance [pixel^2]
    xy: np.ndarray
    yy: np.ndarray


class GaussianPsf(NamedTuple):
    """A round point-spread function: a mixture of concentric Gaussians."""

    mixture: np.ndarray  # [k, 2]: fraction of the flux, sigma in units of `width`
    width: float  # [pixel]; for `MOFFAT` the FWHM

    def effective_pixels(self) -> float:
        """Return the effective number of noise pixels of a matched filter, 1 / sum(psf^2)."""
        share, variance = self.mixture[:, 0], self.mixture[:, 1] ** 2
        overlap = np.outer(share, share) / (2 * np.pi * np.add.outer(variance, variance))
        return float(self.width**2 / overlap.sum())


ShapesOrGaussians = TypeVar("ShapesOrGaussians", Shapes, Gaussians)


def points(n: int) -> Gaussians:
    """Return the components of n point sources."""
    zero = np.zeros(n)
    return Gaussians(np.arange(n), np.ones(n), zero, zero, zero, zero, zero)


def merged(*lists: Gaussians) -> Gaussians:
    """Return several sets of components as one, with unchanged source numbers."""
    return Gaussians(*(np.concatenate(columns) for columns in zip(*lists, strict=True)))


def only(rows: ShapesOrGaussians, kept: np.ndarray) -> ShapesOrGaussians:
    """Return the given rows (mask or indices) of shapes or components."""
    return type(rows)(*(column[kept] for column in rows))


def smooth(shapes: Shapes, pixel_scale: float) -> Gaussians:
    """Return the components of galaxies with elliptical isophotes; `pixel_scale` in arcsec."""
    disc = _mixture(shapes, EXPONENTIAL, shapes.r_disc, 1 - shapes.bulge_share, pixel_scale)
    bulge = _mixture(shapes, DE_VAUCOULEURS, shapes.r_bulge, shapes.bulge_share, pixel_scale)
    both = merged(disc, bulge)
    return only(both, both.share > 0)


def clumpy(
    shapes: Shapes, fraction: float, pixel_scale: float, rng: np.random.Generator
) -> Gaussians:
    """Return galaxies with `fraction` of their light in two spiral arms and 0 to 6 clumps.

    Arms and clumps are in the plane of the disc, and the total flux is unchanged. A galaxy with
    clumps has 60 % of this light in them; a galaxy without clumps has all of it in the arms.
    """
    n = len(shapes.angle)
    n_clumps = rng.integers(0, _MOST_CLUMPS + 1, n)
    in_clumps = np.where(n_clumps > 0, _CLUMP_SHARE * fraction, 0.0)
    base = smooth(shapes, pixel_scale)
    unit = shapes.r_disc[:, None] / pixel_scale
    base = base._replace(share=base.share * (1 - fraction))
    arms = _arms(shapes, fraction - in_clumps, unit, rng)
    clumps = _clumps(shapes, in_clumps, n_clumps, unit, rng)
    together = merged(base, arms, clumps)
    return only(together, together.share > 0)


def _axes(shapes: Shapes) -> tuple[np.ndarray, np.ndarray]:
    """Return sine and cosine of the angle: the major axis is (-sin, cos); east is left."""
    angle = np.radians(shapes.angle)
    return np.sin(angle), np.cos(angle)


def _mixture(
    shapes: Shapes, table: np.ndarray, radius: np.ndarray, share: np.ndarray, pixel_scale: float
) -> Gaussians:
    n, k = len(radius), len(table)
    sigma = table[:, 1] * radius[:, None] / pixel_scale
    zero = np.zeros((n, k))
    return _in_plane(shapes, table[:, 0] * share[:, None], zero, zero, sigma)


def _in_plane(
    shapes: Shapes, share: np.ndarray, major: np.ndarray, minor: np.ndarray, sigma: np.ndarray
) -> Gaussians:
    """Project round Gaussians at (major, minor) [n, k] of the galaxy's plane onto the sky."""
    sin, cos = (axis[:, None] for axis in _axes(shapes))
    ratio = shapes.axis_ratio[:, None]
    n, k = share.shape
    x, y = _to_sky(shapes, major, minor)
    along, across = sigma**2, (sigma * ratio) ** 2
    columns = (
        share, x, y,
        along * sin**2 + across * cos**2,
        (across - along) * sin * cos,
        along * cos**2 + across * sin**2,
    )  # fmt: skip
    return Gaussians(np.repeat(np.arange(n), k), *(column.ravel() for column in columns))


def _to_sky(shapes: Shapes, major: np.ndarray, minor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    sin, cos = (axis[:, None] for axis in _axes(shapes))
    minor = minor * shapes.axis_ratio[:, None]
    return -major * sin + minor * cos, major * cos + minor * sin


def _arms(
    shapes: Shapes, share: np.ndarray, unit: np.ndarray, rng: np.random.Generator
) -> Gaussians:
    """Return the m = 2 term: two logarithmic spirals of knots. `unit` [n, 1]: radii [pixel]."""
    n = len(share)
    radius = np.tile(_SPIRAL_RADII, 2)
    phase = rng.uniform(0, 2 * np.pi, n)[:, None]
    handed = rng.choice([-1.0, 1.0], n)[:, None]
    angle = phase + handed * np.log(radius / radius[0]) / _TAN_PITCH
    angle[:, len(_SPIRAL_RADII) :] += np.pi
    weight = radius * np.exp(-0.839 * radius)  # scale length twice that of the disc
    return _in_plane(
        shapes,
        share[:, None] * weight / weight.sum(),
        unit * radius * np.cos(angle),
        unit * radius * np.sin(angle),
        unit * np.full(angle.shape, _SPIRAL_WIDTH),
    )


def _clumps(
    shapes: Shapes,
    share: np.ndarray,
    count: np.ndarray,
    unit: np.ndarray,
    rng: np.random.Generator,
) -> Gaussians:
    """Return clumps: round on the sky, 0.08 to 0.2 half-light radii wide, in the outer disc."""
    n = len(share)
    size = (n, _MOST_CLUMPS)
    radius, angle = rng.uniform(0.8, 2.6, size), rng.uniform(0, 2 * np.pi, size)
    width, weight = rng.uniform(0.08, 0.2, size), rng.uniform(0.3, 1.7, size)
    weight *= np.arange(_MOST_CLUMPS) < count[:, None]
    weight /= np.maximum(weight.sum(axis=1, keepdims=True), 1e-9)
    x, y = _to_sky(shapes, unit * radius * np.cos(angle), unit * radius * np.sin(angle))
    variance = (unit * width) ** 2
    columns = (share[:, None] * weight, x, y, variance, np.zeros(size), variance)
    return Gaussians(np.repeat(np.arange(n), _MOST_CLUMPS), *(column.ravel() for column in columns))


def half_light_radius(shapes: Shapes) -> np.ndarray:
    """Return the half-light radius [n] (arcsec) along the major axis."""
    share = np.concatenate([
        (1 - shapes.bulge_share)[:, None] * EXPONENTIAL[:, 0],
        shapes.bulge_share[:, None] * DE_VAUCOULEURS[:, 0],
    ], axis=1)  # fmt: skip
    sigma = np.concatenate([
        shapes.r_disc[:, None] * EXPONENTIAL[:, 1],
        shapes.r_bulge[:, None] * DE_VAUCOULEURS[:, 1],
    ], axis=1)  # fmt: skip
    low = np.minimum(shapes.r_disc, shapes.r_bulge) * 0.5
    high = np.maximum(shapes.r_disc, shapes.r_bulge) * 2
    for _ in range(30):  # narrows the interval to 1e-9 of its width
        middle = (low + high) / 2
        inside = (share * -np.expm1(-0.5 * (middle[:, None] / sigma) ** 2)).sum(axis=1)
        low, high = np.where(inside < 0.5, middle, low), np.where(inside < 0.5, high, middle)
    return (low + high) / 2


def render(
    shape: tuple[int, int],
    x: np.ndarray,
    y: np.ndarray,
    flux: np.ndarray,
    parts: Gaussians,
    psf: GaussianPsf,
    floor: float,
) -> np.ndarray:
    """Return the noise-free image of all sources, float32 [ny, nx], in units of `flux` per pixel.

    shape: (ny, nx); x, y: 0-based positions of the sources [pixel]; flux: of each source. Every
    Gaussian is drawn on the box in which it exceeds `floor`, a negligible brightness.
    """
    gaussians = _convolved(parts, x, y, flux, psf)
    canvas = np.zeros(shape, np.float32)
    det = gaussians.xx * gaussians.yy - gaussians.xy**2
    log_peak = np.log(gaussians.share) - np.log(2 * np.pi) - 0.5 * np.log(det)
    drop = log_peak - np.log(floor)
    widest = np.maximum(gaussians.xx, gaussians.yy)
    half = np.sqrt(2 * np.maximum(drop, 0) * widest)
    # Box sizes are powers of sqrt(2): boxes of one size are drawn together.
    size = np.ceil(2 * np.log2(np.maximum(half, 4))).astype(int)
    for step in np.unique(size[drop > 0]):
        box = int(np.ceil(2 ** (step / 2)))
        chosen = np.flatnonzero((size == step) & (drop > 0))
        chunk = max(1, _CHUNK_PIXELS // (2 * box + 1) ** 2)
        for start in range(0, len(chosen), chunk):
            some = chosen[start : start + chunk]
            _draw(canvas, only(gaussians, some), det[some], log_peak[some], box)
    return canvas


def _convolved(
    parts: Gaussians, x: np.ndarray, y: np.ndarray, flux: np.ndarray, psf: GaussianPsf
) -> Gaussians:
    """Return all pairs of components of source and point-spread function, at their positions."""
    share, variance = psf.mixture[:, 0], (psf.mixture[:, 1] * psf.width) ** 2
    own = flux[parts.source]
    lit = own > 0
    parts, own = only(parts, lit), own[lit]
    amplitude = np.outer(own * parts.share, share)

    def spread(column: np.ndarray) -> np.ndarray:
        return np.broadcast_to(column[:, None], amplitude.shape).ravel()

    return Gaussians(
        spread(parts.source),
        amplitude.ravel(),
        spread(parts.x + x[parts.source]),
        spread(parts.y + y[parts.source]),
        np.add.outer(parts.xx, variance).ravel(),
        spread(parts.xy),
        np.add.outer(parts.yy, variance).ravel(),
    )


def _draw(
    canvas: np.ndarray, some: Gaussians, det: np.ndarray, log_peak: np.ndarray, box: int
) -> None:
    """Add Gaussians to the canvas, each on the (2 box + 1)^2 pixels around its centre."""
    left, low = np.rint(some.x).astype(int) - box, np.rint(some.y).astype(int) - box
    grid = np.arange(2 * box + 1)
    dx = (left[:, None] + grid - some.x[:, None]).astype(np.float32)
    dy = (low[:, None] + grid - some.y[:, None]).astype(np.float32)
    a, b, c = ((-0.5 * m / det).astype(np.float32)[:, None] for m in (some.yy, -some.xy, some.xx))
    exponent = (2 * b * dx)[:, None, :] * dy[:, :, None]
    exponent += (a * dx * dx + log_peak.astype(np.float32)[:, None])[:, None, :]
    exponent += (c * dy * dy)[:, :, None]
    values = np.exp(exponent, out=exponent)
    height, width = canvas.shape
    side = len(grid)
    for value, x0, y0 in zip(values, left.tolist(), low.tolist(), strict=True):
        x1, x2, y1, y2 = max(x0, 0), min(x0 + side, width), max(y0, 0), min(y0 + side, height)
        if x1 < x2 and y1 < y2:
            canvas[y1:y2, x1:x2] += value[y1 - y0 : y2 - y0, x1 - x0 : x2 - x0]
