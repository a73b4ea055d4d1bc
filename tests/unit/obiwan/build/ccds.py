"""A tiny survey of single CCD images with known truth, for the tests of the reader and of ingest.

Nothing of it resembles the real test case: another camera, bands, pixel scale, file layout, WCS
(rotated, with SIP distortions), units, and cases of column names.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fitsio
import numpy as np
from astropy.io import fits
from astropy.wcs import WCS, Sip

CAMERA = "mosaic"
CCDNAME = "CCD2"
SCALE_ARCSEC = 0.3
SIZE = 190  # side of a CCD [pixel]
CENTRE = (200.0437, 31.5231)  # inside brick 2000p315
BETWEEN = (200.1951, 31.52)  # on the border of two bricks
EXPTIME = 40.0
ZERO_POINT = 25.6  # of one electron a second
OFFSET = (0.9, -0.6)  # arcsec: the table's correction of the header's WCS
SKY_SIGMA = 0.02  # nanomaggies a pixel
FWHM = 4.2  # pixel
POLZERO, POLSCAL = 80.0, 160.0
STAMP = 41
SKY_GRID = np.arange(-64, 513, 64)
STARS = [(31.3, 40.8), (78.6, 120.2), (141.4, 66.9)]  # pixel
STAR_FLUX = 400.0  # nanomaggies


@dataclass
class CcdFiles:
    """The paths of the files of a survey."""

    root: Path
    bands: str = "gi"
    centre: tuple[float, float] = CENTRE
    names: dict[str, str] = field(default_factory=dict)

    @property
    def table(self) -> Path:
        return self.root / "survey-ccds.fits"

    @property
    def images(self) -> Path:
        return self.root / "images"

    @property
    def calib(self) -> Path:
        return self.root / "calib"

    def image(self, band: str, kind: str = "i") -> Path:
        return self.images / self.names[band].replace("_ooi_", f"_oo{kind}_")


def counts_per_nanomaggy() -> float:
    return 10 ** (0.4 * (ZERO_POINT - 22.5))


def header_wcs(centre: tuple[float, float] = CENTRE) -> WCS:
    """Return the header's WCS: wrong by OFFSET, rotated by 20 degrees, with SIP distortions."""
    step, angle = SCALE_ARCSEC / 3600, np.radians(20)
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN-SIP", "DEC--TAN-SIP"]
    wcs.wcs.crpix = [SIZE * 0.4, SIZE * 0.7]
    wcs.wcs.crval = [
        centre[0] - OFFSET[0] / 3600 / np.cos(np.radians(centre[1])),
        centre[1] - OFFSET[1] / 3600,
    ]
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    wcs.wcs.cd = step * turn @ np.diag([-1.0, 1.0])
    a, b = np.zeros((3, 3)), np.zeros((3, 3))
    a[2, 0], b[0, 2] = 3e-5, -2e-5
    wcs.sip = Sip(a, b, None, None, wcs.wcs.crpix)
    return wcs


def true_wcs() -> WCS:
    """Return the true WCS of the stars of a survey at CENTRE."""
    wcs = header_wcs()
    wcs.wcs.crval = list(CENTRE)
    wcs.wcs.set()
    return wcs


def sky_level(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the sky in image units at CCD pixels (x, y)."""
    return 300 + 0.05 * x - 0.02 * y + 2e-4 * x * y


def psf_stamp(x: float, y: float, dx: float = 0.0, dy: float = 0.0) -> np.ndarray:
    """Return the PSF at a pixel, moved by (dx, dy), of the PSFEx model of the survey."""
    step = np.arange(STAMP) - STAMP // 2
    gx, gy = np.meshgrid(step - dx, step - dy)
    image = _terms(gx, gy)
    u, v = (x + 1 - POLZERO) / POLSCAL, (y + 1 - POLZERO) / POLSCAL
    stamp = image[0] + u * image[1] + v * image[2]
    return stamp / stamp.sum()


def _terms(gx: np.ndarray, gy: np.ndarray) -> np.ndarray:
    """A Moffat profile, and terms that widen it in x and lengthen it in y across the CCD."""

    def moffat(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        width = FWHM / 2 / np.sqrt(2 ** (1 / 3.5) - 1)
        profile = (1 + (x**2 + y**2) / width**2) ** -3.5
        return profile / profile.sum()

    round_one = moffat(gx, gy)
    wider = moffat(gx / 1.1, gy / 1.1) - round_one
    return np.stack([round_one, wider, moffat(gx, gy / 1.1) - round_one])


def make_ccd_files(root: Path, bands: str = "gi", centre: tuple[float, float] = CENTRE) -> CcdFiles:
    """Write images, weights, masks, calibrations and table of one exposure per band."""
    ccd_files = CcdFiles(root, bands, centre)
    rows: dict[str, list[Any]] = {}
    for number, band in enumerate(bands):
        ccd_files.names[band] = f"k4m/CP2016/k4m_1602{number:02d}_000001_ooi_{band}d_v1.fits.fz"
        ccd_files.image(band).parent.mkdir(parents=True, exist_ok=True)
        for kind, plane in zip("iwd", exposure(seed=number), strict=True):
            write_plane(ccd_files.image(band, kind), plane, header_wcs(centre))
        key = f"{ccd_files.names[band].rpartition('/')[2].split('.')[0]}"
        folder = "k4m/CP2016"
        write_psfex(ccd_files.calib / "psfex" / folder / f"{key}-psfex.fits", 7000 + number)
        write_sky(ccd_files.calib / "sky" / folder / f"{key}-splinesky.fits", 7000 + number)
        for name, value in ccd_row(ccd_files, band, number).items():
            rows.setdefault(name, []).append(value)
    write_table(ccd_files.table, {name: np.array(values) for name, values in rows.items()})
    return ccd_files


def exposure(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return image (electrons per second), weight and mask; column 20 is bad."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE, :SIZE].astype(float)
    scale = counts_per_nanomaggy()
    light = rng.normal(0, SKY_SIGMA, (SIZE, SIZE))
    for sx, sy in STARS:
        ix, iy, half = round(sx), round(sy), STAMP // 2
        inside = np.s_[max(half - iy, 0) :, max(half - ix, 0) :]
        box = np.s_[max(iy - half, 0) : iy + half + 1, max(ix - half, 0) : ix + half + 1]
        light[box] += STAR_FLUX * psf_stamp(sx, sy, sx - ix, sy - iy)[inside]
    pixels = light * scale + sky_level(x, y)
    weight = np.full((SIZE, SIZE), 1 / (SKY_SIGMA * scale) ** 2)
    mask = np.zeros((SIZE, SIZE), np.int32)
    pixels[:, 20], mask[:, 20] = 1e6, 1
    weight[:3, :] = 0
    pixels[100, 100] = np.nan
    return pixels.astype(np.float32), weight.astype(np.float32), mask


def write_plane(path: Path, plane: np.ndarray, wcs: WCS | None = None) -> None:
    """Write a file of two CCDs, the second one with `plane`; compressed if its name ends in .fz."""
    header = wcs.to_header(relax=True) if wcs is not None else fits.Header()
    header["EXTNAME"] = CCDNAME
    primary = fits.PrimaryHDU()
    primary.header["BUNIT"] = "electrons/s"
    other = fits.ImageHDU(np.zeros((5, 5), plane.dtype), name="CCD1")
    if path.name.endswith(".fz"):
        kind = "RICE_1" if plane.dtype.kind == "i" else "GZIP_2"
        image = fits.CompImageHDU(plane, header, compression_type=kind, quantize_level=0)
    else:
        image = fits.ImageHDU(plane, header)
    fits.HDUList([primary, other, image]).writeto(path, overwrite=True)


def write_psfex(path: Path, expnum: int) -> None:
    """Write a merged file of two CCDs, padded as those of the survey are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    step = np.arange(STAMP) - STAMP // 2
    basis = np.zeros((6, STAMP + 2, STAMP + 2))
    basis[:3, :STAMP, :STAMP] = _terms(*np.meshgrid(step, step))
    table = {
        "expnum": np.array([expnum, expnum]), "ccdname": np.array(["CCD1", CCDNAME]),
        "psf_mask": np.stack([basis * 0, basis]),
        "psfaxis1": np.array([STAMP] * 2), "psfaxis2": np.array([STAMP] * 2),
        "poldeg1": np.array([1, 1]), "psf_samp": np.array([1.0, 1.0]),
    }  # fmt: skip
    for i in (1, 2):
        table[f"polzero{i}"] = np.array([POLZERO] * 2)
        table[f"polscal{i}"] = np.array([POLSCAL] * 2)
    write_table(path, table)


def write_sky(path: Path, expnum: int) -> None:
    """Write a merged file of one CCD; its grid is that of a larger CCD, of which this is a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    x0, y0 = 12, 7
    gx, gy = np.meshgrid(SKY_GRID, SKY_GRID)
    values = np.zeros((1, len(SKY_GRID) + 2, len(SKY_GRID) + 1))
    values[0, :-2, :-1] = sky_level(gx - x0, gy - y0)
    write_table(path, {
        "expnum": np.array([expnum]), "ccdname": np.array([CCDNAME]),
        "xgrid": np.append(SKY_GRID, 0)[np.newaxis],
        "ygrid": np.append(SKY_GRID, [0, 0])[np.newaxis],
        "gridw": np.array([len(SKY_GRID)]), "gridh": np.array([len(SKY_GRID)]),
        "gridvals": values, "x0": np.array([x0]), "y0": np.array([y0]), "order": np.array([3]),
    })  # fmt: skip


def ccd_row(ccd_files: CcdFiles, band: str, number: int) -> dict[str, Any]:
    wcs = header_wcs(ccd_files.centre).wcs
    return {
        "IMAGE_FILENAME": ccd_files.names[band], "IMAGE_HDU": 2, "CAMERA": CAMERA,
        "EXPNUM": 7000 + number, "CCDNAME": CCDNAME, "FILTER": band, "EXPTIME": EXPTIME,
        "ZPT": ZERO_POINT, "FWHM": FWHM, "WIDTH": SIZE, "HEIGHT": SIZE,
        "CRPIX1": wcs.crpix[0], "CRPIX2": wcs.crpix[1],
        "CRVAL1": wcs.crval[0], "CRVAL2": wcs.crval[1],
        "CD1_1": wcs.cd[0, 0], "CD1_2": wcs.cd[0, 1], "CD2_1": wcs.cd[1, 0], "CD2_2": wcs.cd[1, 1],
        "CCDRAOFF": OFFSET[0], "CCDDECOFF": OFFSET[1],
    }  # fmt: skip


def write_table(path: Path, columns: dict[str, np.ndarray]) -> None:
    columns = {n: v.astype("S") if v.dtype.kind == "U" else v for n, v in columns.items()}
    path.unlink(missing_ok=True)
    fitsio.write(str(path), list(columns.values()), names=list(columns), clobber=True)


def change_table(path: Path, **changes: Any) -> None:
    """Rewrite a table with columns set to a value, or removed if the value is None."""
    rows = fitsio.read(str(path))
    columns = {name: rows[name] for name in rows.dtype.names if changes.get(name, 0) is not None}
    for name, value in changes.items():
        if value is not None:
            columns[name] = np.full(len(rows), value)
    write_table(path, columns)
