"""Stage obiwan.simulate: bricks with known truth, in the layout of a release with injections.

Each brick has separate random streams, so that it does not depend on block, rank or run. Planted
differences: `clump_fraction` gives real galaxies clumps and spiral arms, `colour_offset` makes
injected ones redder; with both 0 the classes differ only in their label.
"""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from skyproof.core.blocks import ItemFiles
from skyproof.core.formats import write
from skyproof.obiwan import survey
from skyproof.obiwan.bricks.grid import (
    PIXEL_SCALE,
    Brick,
    brick_tan,
    bricks_of_block,
    survey_bricks,
)
from skyproof.obiwan.mock import depth, measurement, population
from skyproof.obiwan.mock.measurement import Sources
from skyproof.obiwan.mock.population import BrickGalaxies, Stars
from skyproof.sky.photometry import DECAM_EXTINCTION, flux, transmission
from skyproof.sky.profiles import Gaussians, clumpy, merged, only, points, render, smooth
from skyproof.sky.tan import Tan, footprint_info

if TYPE_CHECKING:
    from skyproof.core.stage import Context
    from skyproof.obiwan.options import Simulate

REALIZATION = "rs0"
_UNSEEN = 0.003  # brightness, in units of the sky noise, below which a source is not drawn
_STEPS_PER_SIGMA = 16  # of the compressed images: rounding adds 0.02 % to the noise


def run(
    inputs: SimpleNamespace, outputs: SimpleNamespace, options: Simulate, context: Context
) -> None:
    """Make the bricks of one block."""
    population.check_options(options)
    bricks = {brick.name: brick for brick in survey_bricks(options.n_bricks)}
    block = bricks_of_block(list(bricks), options.block, options.block_size)

    def make(name: str, files: ItemFiles) -> dict[str, Any]:
        return make_brick(bricks[name], options, files, context)

    context.each(block, make, outputs.bricks)


def make_brick(
    brick: Brick, options: Simulate, files: ItemFiles, context: Context
) -> dict[str, Any]:
    """Draw one brick, write its files and return its entry of the block index."""
    stream = partial(context.stream, brick.name)
    tan = brick_tan(brick, options.brick_pixels)
    galaxies = population.draw_galaxies(options, stream("galaxies"))
    stars = population.draw_stars(options, stream("stars"))
    fwhm = depth.draw_seeing(options.bands, options.seeing, stream("seeing"))
    extinction = {band: DECAM_EXTINCTION[band] for band in options.bands}
    dust = transmission(stream("dust").uniform(0.01, 0.1), extinction)
    sources = all_sources(galaxies, stars, dust)
    parts = light_components(galaxies, stars, options.clump_fraction, stream("clumps"))
    ccds, depths = [], {}
    for band in options.bands:
        ccds.append(depth.draw_ccds(band, options, fwhm[band], stream("ccds", band)))
        depths[band] = depth.coadded(ccds[-1], options.brick_pixels, stream("masks", band))
        noise = stream("noise", band)
        image = observed_image(sources, parts, band, fwhm[band], depths[band], noise)
        write_plane(files, brick.name, "image", band, image, tan)
        write_plane(files, brick.name, "invvar", band, depths[band].ivar, tan)
    measured = measurement.measure(sources, depths, fwhm, dust, brick, tan, stream("measurement"))
    injected = injection_catalogue(galaxies, sources, dust, tan)
    for path, table in (
        (survey.realization_tractor_path("", brick.name, REALIZATION), measured),
        (survey.simcat_path("", brick.name, REALIZATION), injected),
        (survey.ccds_path("", brick.name, REALIZATION), np.concatenate(ccds)),
    ):
        with files.write(str(path)) as temporary:
            write.fits_table(temporary, table)
    return {
        **footprint_info(tan),
        "n_real": options.n_real,
        "n_fake": options.n_fake,
        "n_stars": options.n_stars,
        "psfsize": fwhm,
    }


def all_sources(galaxies: BrickGalaxies, stars: Stars, dust: dict[str, float]) -> Sources:
    """Return galaxies, then stars, with fluxes reduced by dust."""
    none = np.zeros(len(stars.x))
    magnitudes = {b: np.concatenate([galaxies.mag[b], stars.mag[b]]) for b in dust}
    return Sources(
        x=np.concatenate([galaxies.x, stars.x]),
        y=np.concatenate([galaxies.y, stars.y]),
        r_half=np.concatenate([galaxies.r_half, none]),
        bulge_share=np.concatenate([galaxies.shapes.bulge_share, none]),
        flux={b: dust[b] * flux(mag) for b, mag in magnitudes.items()},
    )


def light_components(
    galaxies: BrickGalaxies, stars: Stars, clump_fraction: float, rng: np.random.Generator
) -> Gaussians:
    """Return all sources as Gaussian components; real galaxies get the planted clumps."""
    components = smooth(galaxies.shapes, PIXEL_SCALE)
    if clump_fraction > 0:
        # Drawn for all galaxies, so that a galaxy's clumps do not depend on the labels of others.
        rough = clumpy(galaxies.shapes, clump_fraction, PIXEL_SCALE, rng)
        components = merged(
            only(components, galaxies.injected[components.source]),
            only(rough, ~galaxies.injected[rough.source]),
        )
    stellar = points(len(stars.x))
    return merged(components, stellar._replace(source=stellar.source + len(galaxies.x)))


def observed_image(
    sources: Sources,
    parts: Gaussians,
    band: str,
    fwhm: float,
    depth_map: depth.Depth,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return the noisy image of a band [nanomaggies], float32 [ny, nx]."""
    ivar = depth_map.ivar
    floor = _UNSEEN / np.sqrt(float(ivar.max())) if ivar.any() else 1.0
    psf = depth.point_spread(fwhm)
    image = render(ivar.shape, sources.x, sources.y, sources.flux[band], parts, psf, floor)
    return depth.with_noise(image, ivar, rng)


def write_plane(
    files: ItemFiles, brick: str, kind: str, band: str, pixels: np.ndarray, tan: Tan
) -> None:
    """Write an image (finely quantised) or an inverse variance (exact) at the survey's path."""
    how, quantize = ("RICE", _STEPS_PER_SIGMA) if kind == "image" else ("GZIP_2", 0)
    header = {**tan.cards(), "BRICK": brick, "FILTER": band}
    path = survey.image_path("", brick, kind, band, REALIZATION)
    with files.write(str(path)) as temporary:
        write.fits_image(temporary, pixels, header=header, compress=how, quantize=quantize)


def injection_catalogue(
    galaxies: BrickGalaxies, sources: Sources, dust: dict[str, float], tan: Tan
) -> dict[str, np.ndarray]:
    """Return the columns of Obiwan's simcat for the injected galaxies.

    `<band>flux` is the flux in the image [nanomaggies], reduced by dust; x, y count from 1, as in
    Obiwan. `rhalf` is the half-light radius along the major axis, as in the measured catalogue.
    """
    chosen = np.flatnonzero(galaxies.injected)
    x, y, shapes = galaxies.x[chosen], galaxies.y[chosen], only(galaxies.shapes, chosen)
    ra, dec = tan.sky(x, y)
    n = len(chosen)
    fluxes = {f"{b}flux": sources.flux[b][chosen].astype("f4") for b in dust}
    extinction = {f"mw_transmission_{b}": np.full(n, dust[b], "f4") for b in dust}
    return {
        "id": np.arange(n),
        "ra": ra,
        "dec": dec,
        "x": x + 1,
        "y": y + 1,
        **fluxes,
        **extinction,
        "rhalf": galaxies.r_half[chosen].astype("f4"),
        "sersicn": np.where(shapes.bulge_share == 1, 4, 1).astype("f4"),
        "bulge": shapes.bulge_share.astype("f4"),
        "ba": shapes.axis_ratio.astype("f4"),
        "phi": shapes.angle.astype("f4"),
    }
