"""Find and open the files of an imaging survey: images and calibrations of single CCDs.

The names are those of the DECam, Mosaic-3 and 90prime community-pipeline images and of the
calibrations published by the Legacy Surveys (https://www.legacysurvey.org/dr9/files).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from skyproof.core.errors import InputError
from skyproof.core.formats import read

if TYPE_CHECKING:
    from astropy.io.fits import Header

_SUFFIXES = (".fits", ".fits.fz", ".fits.gz")
_IMAGE_TAG = re.compile(r"_o[ok]i_")


@dataclass(frozen=True)
class Hdu:
    """Array and header of one extension; cards missing there are read from the primary header."""

    path: Path
    data: np.ndarray
    header: Mapping[str, Any]


def stem_of(name: str) -> str:
    """Return a file name without .fits, .fits.fz or .fits.gz."""
    return re.sub(r"\.fits(\.fz|\.gz)?$", "", name)


def find_image(images: Path, image_filename: str, ccdname: str) -> Path:
    """Return the file of an image below `images`. Raise InputError if there is none.

    Tried in this order: the name itself, its other compressions, one file per CCD in the same
    folder (`<name>-<ccdname>.fits`), and the same file names anywhere below `images`.
    """
    wanted = images / image_filename
    stem = stem_of(wanted.name)
    names = [wanted.name]
    names += [stem + suffix for suffix in _SUFFIXES]
    names += [f"{stem}-{ccdname}{suffix}" for suffix in _SUFFIXES]
    for name in names:
        if wanted.with_name(name).is_file():
            return wanted.with_name(name)
    index = _files_below(images)
    for name in names:
        if name in index:
            return index[name]
    expected = f"it or {stem}-{ccdname}.fits below {images}"
    raise InputError(wanted, "does not exist", record=ccdname, expected=expected)


@cache
def _files_below(folder: Path) -> dict[str, Path]:
    """Return file name -> path for all files below a folder; the first path in sorted order."""
    index: dict[str, Path] = {}
    for path in sorted(folder.rglob("*.fits*")):
        index.setdefault(path.name, path)
    return index


def companion(image_filename: str, kind: str) -> str:
    """Return the name of an image's weight map (kind 'w') or data-quality mask ('d')."""
    folder, _, name = image_filename.rpartition("/")
    other, count = _IMAGE_TAG.subn(f"_oo{kind}_", name)
    if count != 1:
        raise InputError(
            image_filename, "names no weight map or mask", field="image_filename",
            expected="a name with _ooi_ or _oki_, whose weights are _oow_ and mask _ood_",
        )  # fmt: skip
    return f"{folder}/{other}" if folder else other


def read_image(path: Path, ccdname: str, hdu: int) -> Hdu:
    """Return the 2-d image of a CCD from the extension of that name, or else number `hdu`.

    Raise InputError for a file that cannot be read or has no such image.
    """
    data, header, primary = read.fits_extension(path, ccdname, hdu)
    return Hdu(path, data, {**_cards(primary), **_cards(header)})


def read_header(path: Path, ccdname: str, hdu: int) -> Header:
    """Return the header of a CCD's extension, for its WCS. Raise InputError as `read_image`."""
    return read.fits_extension(path, ccdname, hdu, pixels=False)[1]


def _cards(header: Header) -> dict[str, Any]:
    return {key: header[key] for key in header if key not in ("", "COMMENT", "HISTORY")}


def read_table(path: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """Return rows (structured, lower-case names) and cards (lower case) of the first table."""
    columns, cards = read.fits_table_and_header(path)
    count = len(next(iter(columns.values()))) if columns else 0
    rows = np.zeros(count, [(n.lower(), v.dtype, v.shape[1:]) for n, v in columns.items()])
    for name, values in columns.items():
        rows[name.lower()] = values
    return rows, {name.lower(): value for name, value in cards.items()}


@dataclass(frozen=True)
class Key:
    """The values that determine the file names of a CCD's calibrations."""

    image_filename: str
    camera: str
    expnum: int
    ccdname: str


def read_calibration(calib: Path, kind: str, key: Key) -> tuple[Path, dict[str, Any]] | None:
    """Return file and values of a CCD's calibration of `kind` ('psfex', 'sky'), or None.

    The values are the columns of the CCD's row and, for other names, the header cards; all names in
    lower case. Both files of one CCD and merged files of an exposure (one row per CCD) are read, in
    the layouts of data releases 3 to 10.
    """
    for path in _calibration_paths(calib, kind, key):
        if not path.is_file():
            continue
        rows, cards = read_table(path)
        row = _row_of(rows, key)
        if row is not None:
            return path, {**cards, **{name: row[name] for name in rows.dtype.names or ()}}
    return None


def _calibration_paths(calib: Path, kind: str, key: Key) -> list[Path]:
    old, ending = {"psfex": ("psfex", "psfex"), "sky": ("splinesky", "splinesky")}[kind]
    exposure = f"{key.expnum:08d}"
    folder, _, name = key.image_filename.rpartition("/")
    stem = stem_of(name).split(".")[0]
    single = f"{stem}-{key.ccdname}-{ending}.fits"
    merged = f"{stem}-{ending}.fits"
    camera = calib / key.camera
    return [
        camera / old / exposure[:5] / exposure / f"{key.camera}-{exposure}-{key.ccdname}.fits",
        camera / f"{old}-merged" / exposure[:5] / f"{key.camera}-{exposure}.fits",
        calib / kind / folder / merged,
        calib / f"{kind}-single" / folder / stem / single,
        calib / folder / merged,
        calib / folder / stem / single,
    ]


def _row_of(rows: np.ndarray, key: Key) -> np.void | None:
    chosen = np.ones(len(rows), bool)
    names = rows.dtype.names or ()
    if "ccdname" in names:
        chosen &= np.array([text(value) == key.ccdname for value in rows["ccdname"]], bool)
    if "expnum" in names:
        chosen &= rows["expnum"] == key.expnum
    found = np.flatnonzero(chosen)
    return rows[found[0]] if len(found) == 1 else None


def text(value: Any) -> str:
    """Return a text value of a table without padding."""
    return str(value).strip()
