"""Calibrated single CCD images of a survey: nanomaggies, sky-subtracted, with noise, WCS and PSF.

Inputs are a `survey-ccds` table and community-pipeline images as used by the Legacy Surveys (Dey et
al. 2019, AJ 157, 168): `_ooi_` images, `_oow_` weight maps (inverse variance, in image units^-2),
`_ood_` data-quality masks, and calibrations of sky and PSF.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.stats import sigma_clipped_stats
from astropy.wcs import WCS
from scipy.interpolate import RectBivariateSpline

from skyproof.core.errors import InputError
from skyproof.obiwan.reduction import archive
from skyproof.obiwan.reduction.psf import Psf, read_psf
from skyproof.sky.photometry import NANOMAGGIES, flux
from skyproof.sky.tan import Tan

# Without a unit in the header, pipeline images of these cameras are rates, others are counts.
_RATE_CAMERAS = ("mosaic", "90prime")
_RATE_UNIT = re.compile(r"(/s(ec(ond)?)?|s(ec)?\*?\*?\^?\(?-1\)?)$")
# Lossy compression turns weights of zero into small values; the Legacy Surveys use the same cut.
_LEAST_WEIGHT = 0.1  # of the median
_SOURCE_SIGMA = 20.0
_LEAST_SOURCE_PIXELS = 20
_COLUMNS = (
    "image_filename", "image_hdu", "camera", "expnum", "ccdname", "filter", "exptime",
    "width", "height", "crpix1", "crpix2", "crval1", "crval2", "cd1_1", "cd1_2", "cd2_1", "cd2_2",
)  # fmt: skip


@dataclass(frozen=True)
class Ccd:
    """One row of the table of CCDs."""

    key: archive.Key
    hdu: int
    band: str
    exptime: float  # s
    zero_point: float  # magnitude of one image unit, or for counts of one image unit per second
    gain: float  # electrons per ADU; 0 if unknown
    fwhm: float  # pixel; 0 if unknown
    offset: tuple[float, float]  # arcsec, to add to (RA, Dec) of the header
    tan: Tan  # without distortions, accurate to some pixels
    row: int  # in the table

    @property
    def name(self) -> str:
        return f"{self.key.image_filename}[{self.key.ccdname}]"


@dataclass(frozen=True)
class Exposure:
    """A calibrated CCD image."""

    ccd: Ccd
    image: np.ndarray  # [ny, nx] float32, nanomaggies per pixel; 0 where masked
    ivar: np.ndarray  # [ny, nx] float32, nanomaggies^-2; 0 where masked
    wcs: WCS
    psf: Psf
    electrons: float  # detected from a source of one nanomaggy
    noise_of_sources: bool  # whether the inverse variance includes the photon noise of sources


def read_ccds(path: Path) -> tuple[np.ndarray, list[Ccd]]:
    """Return the whole table of CCDs (lower-case names) and its usable rows.

    Rows excluded by the survey (`ccd_cuts` not 0) are not usable. Raise InputError for a missing
    column.
    """
    rows, _ = archive.read_table(path)
    names = set(rows.dtype.names or ())
    for name in _COLUMNS:
        if name not in names:
            raise InputError(path, "has no such column", field=name, expected="a survey-ccds table")
    if not names & {"ccdzpt", "zpt"}:
        raise InputError(path, "has no such column", field="ccdzpt", expected="it, or zpt")
    kept = rows["ccd_cuts"] == 0 if "ccd_cuts" in names else np.ones(len(rows), bool)
    if not kept.any():
        raise InputError(path, "has no usable row", expected="one row per CCD, with ccd_cuts 0")
    return rows, [_ccd(rows[i], int(i)) for i in np.flatnonzero(kept)]


def _ccd(row: np.void, index: int) -> Ccd:
    def number(*names: str) -> float:
        """Return the value of the first column that has a usable one, or 0."""
        values = [float(row[name]) for name in names if name in (row.dtype.names or ())]
        return next((v for v in values if np.isfinite(v) and v != 0), 0.0)

    tan = Tan(
        number("crval1"), number("crval2"),
        (number("crpix1"), number("crpix2")),
        ((number("cd1_1"), number("cd1_2")), (number("cd2_1"), number("cd2_2"))),
        int(row["width"]), int(row["height"]),
    )  # fmt: skip
    return Ccd(
        archive.Key(
            archive.text(row["image_filename"]),
            archive.text(row["camera"]),
            int(row["expnum"]),
            archive.text(row["ccdname"]),
        ),
        hdu=int(row["image_hdu"]),
        band=archive.text(row["filter"]),
        exptime=number("exptime"),
        zero_point=number("ccdzpt", "zpt"),
        gain=number("gain", "arawgain"),
        fwhm=number("fwhm"),
        offset=(number("ccdraoff"), number("ccddecoff")),
        tan=tan,
        row=index,
    )


def read_wcs(images: Path, ccd: Ccd) -> tuple[WCS, tuple[int, int]]:
    """Return the WCS of a CCD, with the offset of the table, and its shape (ny, nx)."""
    path = archive.find_image(images, ccd.key.image_filename, ccd.key.ccdname)
    header = archive.read_header(path, ccd.key.ccdname, ccd.hdu)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            wcs = WCS(header)
            # The pipelines calibrate to ICRS catalogues, independent of the frame in the header.
            wcs.wcs.radesys = "ICRS"
            ra, dec = wcs.wcs.crval
            east, north = (offset / 3600 for offset in ccd.offset)
            wcs.wcs.crval = [ra + east / np.cos(np.radians(dec)), dec + north]
            wcs.wcs.set()
            shape = int(header["NAXIS2"]), int(header["NAXIS1"])
            usable = wcs.has_celestial and np.isfinite(wcs.wcs_pix2world([[1.0, 1.0]], 1)).all()
    except (ValueError, KeyError, TypeError, IndexError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(path, f"has no usable WCS ({reason})", record=ccd.key.ccdname) from None
    if not usable:
        raise InputError(
            path, "has no celestial WCS", record=ccd.key.ccdname, field="CTYPE1",
            expected="RA---TPV, RA---TAN or another projection of the sky",
        )  # fmt: skip
    return wcs, shape


def read_exposure(
    ccd: Ccd, table: Path, images: Path, calib: Path, log: logging.Logger
) -> Exposure:
    """Read and calibrate one CCD. Raise InputError with the bad file (or row of `table`).

    image = (pixels - sky) / scale and ivar = weight scale^2, where a source of one nanomaggy
    (magnitude 22.5) has `scale` = 10^(0.4 (zero point - 22.5)) image units. A pixel is masked if
    its data-quality value is not 0 (the values are codes or bits, depending on the version of the
    pipeline), if it has no weight, or if it is not finite.
    """
    for field, value in (("ccdzpt", ccd.zero_point), ("exptime", ccd.exptime)):
        if value <= 0:
            raise InputError(table, f"is {value:g}", record=ccd.name, field=field, expected="> 0")
    wcs, _ = read_wcs(images, ccd)
    image, weight, mask = _planes(images, ccd)
    per_second, gain = _units(ccd, image.header)
    zero_point = ccd.zero_point + (0.0 if per_second else 2.5 * np.log10(ccd.exptime))
    scale = flux(NANOMAGGIES, zero_point)
    pixels = image.data.astype(np.float64)
    ivar = _clean_weight(weight, mask, pixels, ccd)
    pixels = np.where(ivar > 0, pixels, 0)
    sky = read_sky(calib, ccd, pixels, ivar, log)
    pixels = np.where(ivar > 0, pixels - sky, 0)
    _warn_of_sky(pixels, ivar, ccd, log)
    exposed = ccd.exptime if per_second else 1.0
    return Exposure(
        ccd,
        (pixels / scale).astype(np.float32),
        (ivar * scale**2).astype(np.float32),
        wcs,
        read_psf(calib, ccd.key, ccd.fwhm, log),
        electrons=scale * exposed * gain,
        noise_of_sources=_counts_sources(pixels, ivar, 1 / (gain * exposed)),
    )


def _planes(images: Path, ccd: Ccd) -> tuple[archive.Hdu, archive.Hdu, archive.Hdu]:
    name, ccdname = ccd.key.image_filename, ccd.key.ccdname
    planes = []
    for kind in ("", "w", "d"):
        path = archive.find_image(images, archive.companion(name, kind) if kind else name, ccdname)
        planes.append(archive.read_image(path, ccdname, ccd.hdu))
    for plane in planes[1:]:
        if plane.data.shape != planes[0].data.shape:
            raise InputError(
                plane.path, f"has shape {plane.data.shape}", record=ccdname,
                expected=f"{planes[0].data.shape}, that of the image",
            )  # fmt: skip
    return planes[0], planes[1], planes[2]


def _clean_weight(
    weight: archive.Hdu, mask: archive.Hdu, pixels: np.ndarray, ccd: Ccd
) -> np.ndarray:
    ivar = weight.data.astype(np.float64)
    good = (mask.data == 0) & np.isfinite(ivar) & (ivar > 0) & np.isfinite(pixels)
    if good.any():
        good &= ivar >= _LEAST_WEIGHT * np.median(ivar[good])
    if not good.any():
        raise InputError(
            weight.path, "gives no usable pixel", record=ccd.name,
            expected="finite pixels with weight > 0 and mask 0",
        )  # fmt: skip
    return np.where(good, ivar, 0)


def _units(ccd: Ccd, header: Mapping[str, Any]) -> tuple[bool, float]:
    """Return whether the image is a rate, and the electrons per image unit (for rates, times s)."""
    unit = str(header.get("BUNIT", "")).strip().lower().replace(" ", "")
    camera = ccd.key.camera.lower()
    per_second = bool(_RATE_UNIT.search(unit)) if unit else camera.startswith(_RATE_CAMERAS)
    if unit.startswith("e"):  # e-, electron, electrons
        return per_second, 1.0
    named = (header.get(name) for name in ("GAIN", "ARAWGAIN", "GAINA"))
    numbers = [float(g) for g in named if isinstance(g, (int, float)) and g > 0]
    return per_second, ccd.gain or next(iter(numbers), 1.0)


def read_sky(
    calib: Path, ccd: Ccd, pixels: np.ndarray, ivar: np.ndarray, log: logging.Logger
) -> np.ndarray:
    """Return the sky [ny, nx] in image units: the spline of the calibration, or a constant.

    The calibration has values on a grid of CCD pixels, in which the first pixel of the image is
    (x0, y0), and the `order` of the interpolating spline. The constant is a sigma-clipped median.
    """
    found = archive.read_calibration(calib, "sky", ccd.key)
    if found is None:
        _, constant, _ = sigma_clipped_stats(pixels[ivar > 0], sigma=2.5, maxiters=20)
        log.warning("%s: no sky model in %s; constant %.5g is used", ccd.name, calib, constant)
        return np.full(pixels.shape, constant)
    path, values = found
    ny, nx = pixels.shape
    try:
        # Rows of merged files are padded to the largest grid of the exposure.
        width = int(values.get("gridw", len(values["xgrid"])))
        height = int(values.get("gridh", len(values["ygrid"])))
        order = int(values["order"])
        spline = RectBivariateSpline(
            values["xgrid"][:width], values["ygrid"][:height],
            values["gridvals"][:height, :width].T, kx=order, ky=order,
        )  # fmt: skip
        x, y = int(values["x0"]) + np.arange(nx), int(values["y0"]) + np.arange(ny)
    except KeyError as error:
        raise InputError(path, "is missing", record=ccd.name, field=str(error).strip("'")) from None
    except (ValueError, IndexError, TypeError) as error:
        problem = f"has no valid sky spline ({str(error).splitlines()[0]})"
        raise InputError(path, problem, record=ccd.name, field="gridvals") from None
    sky = spline(x, y).T
    if not np.isfinite(sky).all():
        raise InputError(path, "is not finite", record=ccd.name, field="gridvals")
    return sky


def _warn_of_sky(pixels: np.ndarray, ivar: np.ndarray, ccd: Ccd, log: logging.Logger) -> None:
    good = ivar > 0
    level = float(np.median(pixels[good] * np.sqrt(ivar[good])))
    if abs(level) > 1:
        log.warning("%s: the median after sky subtraction is %.1f sigma from zero", ccd.name, level)


def _counts_sources(pixels: np.ndarray, ivar: np.ndarray, noise_per_unit: float) -> bool:
    """Return whether the weight map includes the photon noise of sources, as in some pipelines.

    If so, the variance increases by `noise_per_unit` per unit of light. With too few bright pixels
    for this test, True is returned.
    """
    good = ivar > 0
    light, variance = pixels[good], 1 / ivar[good]
    bright = light > _SOURCE_SIGMA * np.sqrt(variance)
    if bright.sum() < _LEAST_SOURCE_PIXELS:
        return True
    slope = np.median((variance[bright] - np.median(variance[~bright])) / light[bright])
    return bool(slope > 0.5 * noise_per_unit)
