"""Stage obiwan.ingest: inject galaxies into real exposures and reduce these to bricks.

Galaxies are added to the single CCD images, before resampling, stacking and detection. Real and
injected sources thus pass through the same steps, and only their appearance can differ.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.wcs import WCS

from skyproof.core.blocks import ItemFiles
from skyproof.core.errors import InputError, UsageError
from skyproof.core.formats import write
from skyproof.obiwan import survey
from skyproof.obiwan.bricks.grid import PIXEL_SCALE, Brick, brick_of_id, brick_tan, bricks_at
from skyproof.obiwan.reduction import detect
from skyproof.obiwan.reduction.ccds import Ccd, Exposure, read_ccds, read_exposure, read_wcs
from skyproof.obiwan.reduction.inject import add_galaxies, draw_galaxies
from skyproof.obiwan.reduction.resample import Coadd, footprint_box, stack
from skyproof.obiwan.stamps.geometry import HALF, STAMP
from skyproof.sky.photometry import flux
from skyproof.sky.tan import Tan, footprint_info

if TYPE_CHECKING:
    from types import SimpleNamespace

    from skyproof.core.stage import Context
    from skyproof.obiwan.options import Ingest

_BRICK_PIXELS = 3600
_FOOTPRINT_STEP = 0.02  # degree between the points of a CCD that are looked up in the brick grid
_TABLE_ERROR = 30  # pixels: offset of a CCD from its position in the table, due to distortions
_CCD_EDGE = 2.0  # pixels: width of the margin of a CCD without galaxies
# A narrower part of a brick has no space for stamps and is skipped.
_LEAST_SIDE = STAMP + HALF
_STEPS_PER_SIGMA = 16  # of the compressed images: rounding adds 0.02 % to the noise


@dataclass(frozen=True)
class Coverage:
    """A CCD's world coordinates and shape (ny, nx)."""

    ccd: Ccd
    wcs: WCS
    shape: tuple[int, int]

    def holds(self, ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
        """Return whether each position is on the CCD and not in its margin, bool [n]."""
        x, y = self.wcs.world_to_pixel_values(ra, dec)
        inside_x = (x >= _CCD_EDGE) & (x <= self.shape[1] - 1 - _CCD_EDGE)
        return inside_x & (y >= _CCD_EDGE) & (y <= self.shape[0] - 1 - _CCD_EDGE)


def run(
    inputs: SimpleNamespace, outputs: SimpleNamespace, options: Ingest, context: Context
) -> None:
    """Make all bricks that the CCDs of the table cover, and write the block index.

    Files per brick and realisation: images and inverse variances of each band, the CCDs used, the
    measured and the injected catalogue. Dust maps are not used: magnitudes are as observed, and
    mw_transmission is 1. Raise InputError for a brick with a bad file or without CCDs in a band.
    """
    if options.mag_min >= options.mag_max:
        raise UsageError(f"mag_min {options.mag_min} is not below mag_max {options.mag_max}")
    table, ccds = read_ccds(inputs.ccds)
    bricks = touched_bricks(ccds, options.bands, inputs.ccds, context)

    def make(name: str, files: ItemFiles) -> dict[str, Any]:
        brick, nearby = bricks[name]
        tan, coverage = crop(brick, nearby, options.bands, inputs)
        info: dict[str, Any] = footprint_info(tan)
        info["ccds"] = sorted({c.ccd.name for c in coverage})
        for i in range(options.n_realizations):
            rs = f"rs{i}"
            injected = inject_catalog(name, rs, tan, coverage, inputs.ccds, options, context)
            stacks = {}
            for band in options.bands:
                seen = exposures(name, rs, band, coverage, injected, inputs, context)
                stacks[band] = stack(seen, tan)
                if not stacks[band].nobs.any():
                    raise InputError(inputs.ccds, f"no good pixel in band {band}", record=name)
            found = detect.detect(stacks, options.detection_sigma)
            measured = tractor_catalog(brick, detect.measure(found, stacks, tan))
            used = table[sorted({c.ccd.row for c in coverage})]
            write_brick(files, name, rs, tan, stacks, used, measured, injected)
            info[rs] = {
                "n_fake": len(injected),
                "n_sources": len(found.objects),
                "sky": {b: detect.sky_statistics(s, found.segments) for b, s in stacks.items()},
            }
        return info

    context.each(sorted(bricks), make, outputs.bricks, skip_bad=options.skip_bad)


def touched_bricks(
    ccds: Sequence[Ccd], bands: str, table: Path, context: Context
) -> dict[str, tuple[Brick, list[Ccd]]]:
    """Return name -> brick and nearby CCDs, for all bricks that are sufficiently covered."""
    wanted = [ccd for ccd in ccds if ccd.band in tuple(bands)]
    if not wanted:
        seen = ", ".join(sorted({ccd.band for ccd in ccds})) or "none"
        raise InputError(table, f"has CCDs in {seen}", field="filter", expected=f"one of {bands}")
    bricks = {}
    for number in sorted({int(i) for ccd in wanted for i in bricks_at(*footprint_points(ccd))}):
        brick = brick_of_id(number)
        tan = brick_tan(brick, _BRICK_PIXELS)
        boxes = [table_box(ccd, tan) for ccd in wanted]
        nearby = [ccd for ccd, box in zip(wanted, boxes, strict=True) if box is not None]
        kept = [box for box in boxes if box is not None]
        x = min(b[0] for b in kept), max(b[1] for b in kept)
        y = min(b[2] for b in kept), max(b[3] for b in kept)
        if min(x[1] - x[0], y[1] - y[0]) - 2 * _TABLE_ERROR < _LEAST_SIDE:
            context.log.info("%s skipped: the CCDs cover too small a part of it", brick.name)
            continue
        bricks[brick.name] = (brick, nearby)
    return bricks


def footprint_points(ccd: Ccd) -> tuple[np.ndarray, np.ndarray]:
    """Return positions (RA, Dec) on a CCD, dense enough to find every brick that it covers."""
    width, height = ccd.tan.width, ccd.tan.height
    (a, b), (c, d) = ccd.tan.cd
    step = _FOOTPRINT_STEP / np.sqrt(abs(a * d - b * c))
    x = np.linspace(0, width - 1, int(width / step) + 2)
    y = np.linspace(0, height - 1, int(height / step) + 2)
    gx, gy = np.meshgrid(x, y)
    return ccd.tan.sky(gx.ravel(), gy.ravel())


def table_box(ccd: Ccd, tan: Tan) -> tuple[float, float, float, float] | None:
    """Return the box (x0, x1, y0, y1) of brick pixels that a CCD may cover, or None."""
    bx, by = tan.pixel(*footprint_points(ccd))
    if not np.isfinite(bx).all():
        return None
    x0, x1 = max(bx.min() - _TABLE_ERROR, 0), min(bx.max() + _TABLE_ERROR, tan.width)
    y0, y1 = max(by.min() - _TABLE_ERROR, 0), min(by.max() + _TABLE_ERROR, tan.height)
    return (x0, x1, y0, y1) if x0 < x1 and y0 < y1 else None


def crop(
    brick: Brick, nearby: Sequence[Ccd], bands: str, inputs: SimpleNamespace
) -> tuple[Tan, list[Coverage]]:
    """Return the part of the brick's grid that CCDs cover, and those CCDs.

    Raise InputError if a band has no CCD on the brick or if an image cannot be found.
    """
    whole = brick_tan(brick, _BRICK_PIXELS)
    coverage, boxes = [], []
    for ccd in nearby:
        wcs, shape = read_wcs(inputs.images, ccd)
        box = footprint_box(wcs, shape, whole)
        if box is not None:
            coverage.append(Coverage(ccd, wcs, shape))
            boxes.append(box)
    for band in bands:
        if not any(c.ccd.band == band for c in coverage):
            raise InputError(inputs.ccds, f"no CCD in band {band} covers it", record=brick.name)
    x0, x1 = min(b[1].start for b in boxes), max(b[1].stop for b in boxes)
    y0, y1 = min(b[0].start for b in boxes), max(b[0].stop for b in boxes)
    crpix = whole.crpix[0] - x0, whole.crpix[1] - y0
    return replace(whole, crpix=crpix, width=x1 - x0, height=y1 - y0), coverage


def inject_catalog(
    brick: str, rs: str, tan: Tan, coverage: Sequence[Coverage], table: Path,
    options: Ingest, context: Context,
) -> np.ndarray:  # fmt: skip
    """Draw the galaxies of one realisation on the sky that all bands cover.

    Raise InputError if there is no such sky.
    """

    def covered(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        ra, dec = tan.sky(x, y)
        in_band = [
            np.any([c.holds(ra, dec) for c in coverage if c.ccd.band == band], axis=0)
            for band in options.bands
        ]
        return np.all(in_band, axis=0)

    limits = options.mag_min, options.mag_max
    separation = options.separation / PIXEL_SCALE
    rng = context.stream(brick, rs, "galaxies")
    galaxies = draw_galaxies(options.n_fake, limits, separation, tan, covered, rng)
    if len(galaxies) == 0:
        problem = f"no space for a galaxy on the sky that all bands {options.bands} cover"
        raise InputError(table, problem, record=brick)
    if len(galaxies) < options.n_fake:
        context.log.info(
            "%s %s: space for %d of %d galaxies", brick, rs, len(galaxies), options.n_fake
        )
    return galaxies


def exposures(
    brick: str, rs: str, band: str, coverage: Sequence[Coverage], injected: np.ndarray,
    inputs: SimpleNamespace, context: Context,
) -> Iterator[Exposure]:  # fmt: skip
    """Yield the exposures of a band, one at a time, with the galaxies added."""
    for covering in coverage:
        ccd = covering.ccd
        if ccd.band == band:
            exposure = read_exposure(ccd, inputs.ccds, inputs.images, inputs.calib, context.log)
            yield add_galaxies(exposure, injected, context.stream(brick, rs, "photons", ccd.name))


def tractor_catalog(brick: Brick, measured: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the columns of the measured catalogue, starting with brick and object numbers."""
    count = len(measured["ra"])
    return {
        "brickid": np.full(count, brick.id, np.int32),
        "brickname": np.full(count, brick.name, "S8"),
        "objid": np.arange(count, dtype=np.int32),
        "brick_primary": bricks_at(measured["ra"], measured["dec"]) == brick.id,
        **measured,
    }


def write_brick(
    files: ItemFiles, brick: str, rs: str, tan: Tan, stacks: dict[str, Coadd],
    ccds: np.ndarray, measured: dict[str, np.ndarray], injected: np.ndarray,
) -> None:  # fmt: skip
    """Write the files of one realisation in the layout of the survey."""
    for band, planes in stacks.items():
        header = {**tan.cards(), "BRICKNAM": brick, "FILTER": band}
        with files.write(str(survey.image_path("", brick, "image", band, rs))) as path:
            write.fits_image(
                path, planes.image, header=header, compress="RICE", quantize=_STEPS_PER_SIGMA
            )
        with files.write(str(survey.image_path("", brick, "invvar", band, rs))) as path:
            write.fits_image(path, planes.ivar, header=header, compress="GZIP_2")
    with files.write(f"tractor/{brick[:3]}/{brick}/{rs}/tractor-{brick}.fits") as path:
        write.fits_table(path, measured)
    with files.write(str(survey.simcat_path("", brick, rs))) as path:
        write.fits_table(path, simcat_columns(injected, "".join(stacks)))
    # The table of CCDs is last: a realisation with this file is complete.
    with files.write(str(survey.ccds_path("", brick, rs))) as path:
        write.fits_table(path, ccds)


def simcat_columns(injected: np.ndarray, bands: str) -> dict[str, np.ndarray]:
    """Return the columns of the catalogue of injected galaxies, with Obiwan's names."""
    columns = {name: injected[name] for name in ("id", "ra", "dec", "x", "y")}
    for band in bands:
        magnitude = injected[f"mag_{band}"]
        columns[band] = magnitude
        columns[f"{band}flux"] = flux(magnitude)
    return columns | {name: injected[name] for name in ("rhalf", "n", "ba", "pa")}
