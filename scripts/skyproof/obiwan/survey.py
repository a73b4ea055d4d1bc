"""The data model of the layout of the Legacy Surveys: paths, images, catalogues, stamps.

All other modules of this system get the path and the content of survey files from here.
Layout: legacysurvey.org, data release files; Obiwan's additions: `rs*` and `obiwan/` folders.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from skyproof.core.errors import InputError
from skyproof.core.formats import read

BANDS = "griz"  # in order of wavelength, and the order of every band axis

_REALIZATION = re.compile(r"(?:more_)?(?:skip_)?rs\d+")


def brick_folder(brick: str) -> str:
    """Return the name of the folder of a brick's folder, its first three characters."""
    return brick[:3]


def _coadd(root: str | Path, brick: str, rs: str) -> Path:
    return Path(root) / "coadd" / brick_folder(brick) / brick / rs


def image_path(root: str | Path, brick: str, kind: str, band: str, rs: str = "") -> Path:
    """Return the path of a brick's plane; `kind` is image or invvar, `rs` empty for a release."""
    return _coadd(root, brick, rs) / f"legacysurvey-{brick}-{kind}-{band}.fits.fz"


def ccds_path(root: str | Path, brick: str, rs: str = "") -> Path:
    """Return the path of the table of CCDs of a brick; if it exists, the brick is complete."""
    return _coadd(root, brick, rs) / f"legacysurvey-{brick}-ccds.fits"


def tractor_path(root: str | Path, brick: str, rs: str = "") -> Path:
    """Return the path of the measured catalogue, that of the realisation if there is one."""
    own = realization_tractor_path(root, brick, rs)
    release = Path(root) / "tractor" / brick_folder(brick) / own.name
    return own if own.is_file() else release


def realization_tractor_path(root: str | Path, brick: str, rs: str) -> Path:
    """Return the path of the measured catalogue of a realisation, for writing."""
    return Path(root) / "tractor" / brick_folder(brick) / brick / rs / f"tractor-{brick}.fits"


def simcat_path(root: str | Path, brick: str, rs: str) -> Path:
    """Return the path of the catalogue of injected galaxies with their input values."""
    return Path(root) / "obiwan" / brick_folder(brick) / brick / rs / f"simcat-elg-{brick}.fits"


def realizations(root: str | Path, brick: str) -> list[str]:
    """Return the realisation folders of a brick (rs0, rs300, skip_rs0, ...); none for a release.

    Each realisation has different injected galaxies; folders without a table of CCDs are
    incomplete and not returned. Natural order: by kind, then by number.
    """
    tables = _coadd(root, brick, "").glob(f"*/{ccds_path(root, brick).name}")
    names = [table.parent.name for table in tables if _REALIZATION.fullmatch(table.parent.name)]
    return sorted(names, key=lambda name: (name.rstrip("0123456789"), int(name.split("rs")[1])))


def read_plane(
    path: str | Path, shape: tuple[int, int] | None = None
) -> tuple[np.ndarray, dict[str, Any]]:
    """Read a plane of a brick: the first image of a FITS file, compressed (.fits.fz) or not.

    Return the pixels, float32 [ny, nx], and the header as name -> value with NAXIS1, NAXIS2 of the
    image. Raise InputError as `read.fits_image` does, and if every pixel is NaN.
    """
    pixels, header = read.fits_image(path, shape=shape)
    pixels = np.ascontiguousarray(pixels, dtype=np.float32)
    if np.isnan(pixels).all():
        raise InputError(path, "every pixel is NaN", expected="finite pixels")
    return pixels, header


def read_tractor(path: str | Path, bands: str) -> dict[str, np.ndarray]:
    """Read a measured catalogue (Tractor, data releases 4 and later).

    Required, for b in `bands`: objid, type, ra, dec [deg], flux_b [nanomaggies], flux_ivar_b
    [nanomaggies^-2], mw_transmission_b, nobs_b. If missing in the file: bx, by [pixel, 0-based] and
    psfsize_b [arcsec] are NaN, brick_primary is true, allmask_b is 0. shapeexp_r and shapedev_r
    [arcsec] are half-light radii; releases 8 and later have one `shape_r`, which is used for both.
    fracdev, the de Vaucouleurs fraction of a composite, is returned if the file has it.
    """
    per_band = ["flux_", "flux_ivar_", "mw_transmission_", "nobs_"]
    needed = ["objid", "type", "ra", "dec", *(name + b for b in bands for name in per_band)]
    radii = ["shapeexp_r", "shapedev_r"]
    defaults: dict[str, Any] = {"bx": np.nan, "by": np.nan, "brick_primary": True}
    defaults |= {f"psfsize_{b}": np.nan for b in bands} | {f"allmask_{b}": 0 for b in bands}
    table = read.fits_table(path, needed, optional=[*defaults, *radii, "shape_r", "fracdev"])
    n_rows = len(table["objid"])
    for name, value in defaults.items():
        if name not in table:
            table[name] = np.full(n_rows, value)
    shape = table.pop("shape_r", None)
    for name in radii:
        if name not in table:
            if shape is None:
                raise InputError(path, "has no such column", field=name, expected="it or shape_r")
            table[name] = shape
    table["brick_primary"] = table["brick_primary"].astype(bool)
    return table


def read_simcat(path: str | Path, bands: str) -> dict[str, np.ndarray]:
    """Read a catalogue of injected galaxies with their input values.

    Return id, ra, dec [deg], rhalf [arcsec], and for b in `bands` flux_b [nanomaggies] and
    mw_transmission_b (1 if missing in the file: Obiwan's fluxes are without extinction). Pixel
    positions are not read: Obiwan's count from 1, and the WCS gives more accurate ones.
    """
    extinction = [f"mw_transmission_{b}" for b in bands]
    needed = ["id", "ra", "dec", "rhalf", *(f"{b}flux" for b in bands)]
    table = read.fits_table(path, needed, optional=extinction)
    for b in bands:
        table[f"flux_{b}"] = table.pop(f"{b}flux")
    for name in extinction:
        table.setdefault(name, np.ones(len(table["id"]), np.float32))
    return table


def stamp_dtype(bands: str) -> np.dtype:
    """Return the columns of a table of stamps (docs/obiwan-outputs.md explains them)."""
    fields: list[tuple[str, str]] = [
        ("id", "<i8"), ("brick", "S8"), ("rs", "S16"), ("label", "u1"),
        ("ra", "<f8"), ("dec", "<f8"), ("x", "<f8"), ("y", "<f8"), ("dx", "<f4"), ("dy", "<f4"),
        ("type", "S4"),
    ]  # fmt: skip
    fields += [(f"mag_{b}", "<f4") for b in bands]
    fields += [("r_half", "<f4")]
    fields += [(f"psfsize_{b}", "<f4") for b in bands]
    fields += [(f"ivar_{b}", "<f4") for b in bands]
    return np.dtype(fields)
