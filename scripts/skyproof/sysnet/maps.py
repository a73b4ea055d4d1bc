"""HEALPix maps of any file form, resolution, ordering and frame, at the pixels of a table.

Read are FITS tables (whole skies as healpy writes them, or a column of pixel numbers), `.npy` and
text. A map without an ordering in its header needs one from the configuration.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import healpy
import numpy as np

from skyproof.core.errors import InputError
from skyproof.sysnet.table import FRAMES, is_resolution

ORDERINGS = {"RING": "RING", "NESTED": "NESTED", "NEST": "NESTED"}
_PIXEL_COLUMNS = ("PIXEL", "HPXPIXEL", "HPIX", "HEALPIX", "HEALPIXEL")


@dataclass(frozen=True)
class Map:
    """A whole sky [12 nside^2] in RING order, NaN where nothing is known."""

    path: Path
    values: np.ndarray
    frame: str  # of FRAMES

    @property
    def nside(self) -> int:
        return healpy.npix2nside(len(self.values))


def read_map(path: Path, ordering: str = "", frame: str = "") -> Map:
    """Read a map; `ordering` and `frame` stand for what its header does not say.

    InputError where the file cannot be read, is no HEALPix map, or its header contradicts them.
    """
    values, header = _read(path)
    n = len(values)
    if not healpy.isnpixok(n) or not is_resolution(healpy.npix2nside(n)):
        raise InputError(path, f"has {n} pixels", expected="12 nside^2, nside a power of 2")
    stated = _agreed(path, header, "ORDERING", ordering)
    if stated not in ORDERINGS:
        raise InputError(
            path, f"is {stated or 'not stated'}", field="ORDERING",
            expected="RING or NESTED, in the header or as the region's ordering of this map",
        )  # fmt: skip
    sky = _agreed(path, header, "COORDSYS", frame) or "C"
    if sky[0] not in FRAMES:
        raise InputError(path, f"is {sky!r}", field="COORDSYS", expected="C, G or E")
    values = np.where(np.isfinite(values) & (values > -1e30), values, np.nan)  # UNSEEN: -1.6375e30
    if ORDERINGS[stated] == "NESTED":
        values = healpy.reorder(values, n2r=True)
    return Map(path, values, sky[0])


def _agreed(path: Path, header: Any, card: str, given: str) -> str:
    """Return what header or configuration say, if they do not contradict each other."""
    said = str(header.get(card, "")).strip().upper()
    given = given.strip().upper()
    if said and given and said[:1] != given[:1]:
        raise InputError(
            path, f"is {said} in the header and {given} in the configuration", field=card
        )
    return said or given


def _read(path: Path) -> tuple[np.ndarray, Any]:
    if path.suffix == ".npy":
        return _flat(path, lambda: np.load(path, allow_pickle=False)), {}
    if ".fit" not in path.name:
        return _flat(path, lambda: np.loadtxt(path)), {}
    return _read_fits(path)


def _flat(path: Path, read: Any) -> np.ndarray:
    try:
        return np.asarray(read(), "f8").ravel()
    except (OSError, ValueError, EOFError) as error:
        reason = (str(error).splitlines() or ["?"])[0]
        raise InputError(path, f"cannot be read ({reason})", expected="a map") from None


def _read_fits(path: Path) -> tuple[np.ndarray, Any]:
    import fitsio

    try:
        with fitsio.FITS(str(path)) as file:
            data, header = file[1].read(), dict(file[1].read_header())
    except (OSError, ValueError, IndexError) as error:
        reason = (str(error).splitlines() or ["?"])[0]
        raise InputError(path, f"cannot be read ({reason})", expected="a map in HDU 1") from None
    names = {name.upper(): name for name in data.dtype.names or ()}
    pixels = next((names[name] for name in _PIXEL_COLUMNS if name in names), None)
    column = next((name for name in names.values() if name != pixels), None)
    if column is None:
        raise InputError(path, "has no column of values", expected="a HEALPix map in HDU 1")
    values = data[column].astype("f8").ravel()
    if pixels is None:
        return values, header
    index = data[pixels].astype("i8").ravel()
    nside = int(header.get("NSIDE", _least_nside(index)))
    n = 12 * nside**2
    if len(index) and (index.min() < 0 or index.max() >= n or len(np.unique(index)) < len(index)):
        raise InputError(
            path, "holds a pixel twice or out of range", field=pixels, expected=f"0 to {n - 1}"
        )
    whole = np.full(n, np.nan)
    whole[index] = values
    return whole, header


def _least_nside(index: np.ndarray) -> int:
    """Return the least resolution whose pixels hold the largest index."""
    nside = 1
    while len(index) and 12 * nside**2 <= index.max():
        nside *= 2
    return nside


def values_at(sky: Map, hpix: np.ndarray, nside: int, frame: str) -> np.ndarray:
    """Return an intensive quantity at the centres of RING pixels `hpix` [n] of a frame.

    In the map's own frame, finer pixels are averaged and coarser ones repeated; in another, the
    value is interpolated between the four nearest pixels. NaN where one of them is not known.
    """
    values = sky.values
    if sky.nside > nside or frame == sky.frame:
        values = healpy.ud_grade(values, nside)
    if frame == sky.frame:
        return values[hpix]
    lon, lat = healpy.pix2ang(nside, hpix, lonlat=True)
    lon, lat = healpy.Rotator(coord=[frame, sky.frame])(lon, lat, lonlat=True)
    return healpy.get_interp_val(values, lon, lat, lonlat=True)
