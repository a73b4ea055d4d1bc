"""Read HEALPix maps from FITS (full or partial), .npy and text files.

Ordering, frame and resolution in the file are checked against the configuration. A property that
neither states is an error and is never guessed: a map read in the wrong order acts as noise in a
model, and one read in the wrong frame is not recognisable as wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from skyproof.core.errors import InputError
from skyproof.core.formats import read
from skyproof.sysnet.table import check_distinct, is_resolution

if TYPE_CHECKING:
    from skyproof.sysnet.regions import MapForm

PIXEL_COLUMNS = ("PIXEL", "HPIX", "HPXPIXEL", "HPIXEL", "HPIND", "IPIX", "PIX")
_ORDERINGS = {"RING": "RING", "NEST": "NESTED", "NESTED": "NESTED"}
_FRAMES = {
    **dict.fromkeys(("C", "CEL", "CELESTIAL", "EQ", "EQU", "EQUATORIAL", "ICRS", "FK5"), "C"),
    **dict.fromkeys(("G", "GAL", "GALACTIC"), "G"),
    **dict.fromkeys(("E", "ECL", "ECLIPTIC"), "E"),
}
_UNSEEN = -1.6375e30

# A map that is more than twice as rough in the stated order as in the other one is in the other.
_SAMPLE = 20_000
_ROUGHER = 2.0
_FEWEST_PAIRS = 200


class NotStated(InputError):
    """Ordering, frame or nside is stated neither in the file nor in the configuration."""


@dataclass(frozen=True)
class HealpixMap:
    """A full-sky map in RING order; NaN where it is not defined."""

    path: Path
    values: np.ndarray  # float64 [12 nside^2]
    nside: int
    frame: str  # C, G or E

    @property
    def seen(self) -> np.ndarray:
        return np.isfinite(self.values)


def read_map(path: Path, form: MapForm) -> HealpixMap:
    """Read a map. `form` gives the properties that the file does not state.

    Raise InputError if file and configuration contradict each other.
    """
    pixels, values, header = _read(path, form.column)
    ordering = _agreed(path, "ordering", header.get("ORDERING"), form.ordering, _ORDERINGS)
    frame = _agreed(path, "frame", header.get("COORDSYS"), form.frame, _FRAMES)
    nside = _resolution(path, header.get("NSIDE"), form.nside, pixels, len(values))
    full = np.full(12 * nside**2, np.nan)
    if pixels is None:
        full[: len(values)] = values
    else:
        check_distinct(path, pixels, nside, "pixel")
        full[pixels] = values
    bad = ~np.isfinite(full) | np.isclose(full, _UNSEEN, rtol=1e-4, atol=0)
    full[bad] = np.nan
    if bad.all():
        raise InputError(path, "has no defined pixel")
    check_order(path, full, nside, ordering)
    return HealpixMap(path, to_ring(full, nside) if ordering == "NESTED" else full, nside, frame)


def to_ring(nested: np.ndarray, nside: int) -> np.ndarray:
    """Return a map in RING order, given in NESTED order."""
    import healpy

    return nested[healpy.ring2nest(nside, np.arange(len(nested)))]


def check_order(path: str | Path, full: np.ndarray, nside: int, ordering: str) -> None:
    """Raise InputError for a map that is rough in the stated order and smooth in the other."""
    if nside < 8 or ordering not in ("RING", "NESTED"):
        return
    other = "NESTED" if ordering == "RING" else "RING"
    own_roughness, other_roughness = (roughness(full, nside, order) for order in (ordering, other))
    if own_roughness > _ROUGHER * other_roughness:
        raise InputError(
            path, f"is stated to be {ordering}, but is smooth only if it is {other}",
            field="ordering", expected=other,
        )  # fmt: skip


def roughness(full: np.ndarray, nside: int, ordering: str) -> float:
    """Return the mean squared difference of neighbours over twice the variance: 1 for noise.

    The ranks of the values are used, so that a few bright pixels do not dominate.
    """
    import healpy

    seen = np.flatnonzero(np.isfinite(full))
    rank = np.full(len(full), np.nan)
    rank[seen] = np.unique(full[seen], return_inverse=True)[1]
    step = max(1, len(seen) // _SAMPLE)
    some = seen[::step]
    near = healpy.get_all_neighbours(nside, some, nest=ordering == "NESTED")
    difference = np.where(near >= 0, rank[near] - rank[some], np.nan)
    known = np.isfinite(difference)
    variance = float(np.var(rank[seen]))
    if known.sum() < _FEWEST_PAIRS or variance == 0:
        return 1.0
    return float(np.mean(difference[known] ** 2)) / (2 * variance)


def _read(path: Path, column: str) -> tuple[np.ndarray | None, np.ndarray, Mapping[str, Any]]:
    """Return pixels (None: all, in order), values, and the header."""
    name = path.name.lower()
    if name.endswith((".fits", ".fit", ".fits.gz", ".fits.fz")):
        columns, header = read.fits_table_and_header(path)
        return *_from_columns(path, columns, column), header
    if name.endswith(".npy"):
        found = read.npy_object(path)
        if not isinstance(found, np.ndarray):
            raise InputError(path, "has no array", expected="a map saved by numpy.save")
        if found.dtype.names:
            return *_from_columns(path, {n: found[n] for n in found.dtype.names}, column), {}
        return None, _plain(path, found), {}
    rows = read.numbers(path, "FITS, .npy, or text with one number a line (or pixel and number)")
    if rows.shape[1] == 1:
        return None, rows[:, 0], {}
    return *_from_columns(path, {"PIXEL": rows[:, 0], "VALUE": rows[:, -1]}, "VALUE"), {}


def _from_columns(
    path: Path, columns: Mapping[str, np.ndarray], column: str
) -> tuple[np.ndarray | None, np.ndarray]:
    index = next((name for name in columns if name.upper() in PIXEL_COLUMNS), None)
    values = [name for name in columns if name != index]
    if column and column not in values:
        raise InputError(path, "is missing", field=f"column {column}",
                         expected=f"one of {', '.join(values)}")  # fmt: skip
    if not column and len(values) != 1:
        raise InputError(
            path, f"has {len(values)} columns ({', '.join(values)})", field="column",
            expected="the column in the configuration",
        )  # fmt: skip
    pixels = None
    if index is not None:
        pixels = np.asarray(columns[index]).ravel()
        if (pixels != np.floor(pixels)).any():
            raise InputError(path, "are not integers", field=index, expected="pixels")
        pixels = pixels.astype("i8")
    return pixels, _plain(path, columns[column or values[0]])


def _plain(path: Path, values: np.ndarray) -> np.ndarray:
    if values.dtype.kind not in "fiub":
        raise InputError(path, f"has values of type {values.dtype}", expected="numbers")
    return values.astype("f8").ravel()


def _agreed(path: Path, what: str, stated: Any, given: str, known: Mapping[str, str]) -> str:
    """Return the property stated in the header or given in the configuration; both must agree."""
    word = str(stated).strip().upper() if stated is not None else ""
    if word and word not in known:
        raise InputError(
            path, f"is {word!r} in the header", field=what,
            expected=f"one of {', '.join(sorted(known))}",
        )  # fmt: skip
    if word and given and known[word] != given:
        raise InputError(
            path, f"is {word} in the header, {given} in the configuration", field=what,
            expected="the same",
        )  # fmt: skip
    if not word and not given:
        raise NotStated(
            path, "is not in the file", field=what,
            expected=f"a value in the configuration ({', '.join(sorted(set(known.values())))})",
        )  # fmt: skip
    return given or known[word]


def _resolution(path: Path, stated: Any, given: int, pixels: np.ndarray | None, n: int) -> int:
    if stated is not None and given and int(stated) != given:
        raise InputError(
            path, f"is {stated} in the header, {given} in the configuration", field="nside",
            expected="the same",
        )  # fmt: skip
    nside = int(stated) if stated is not None else given
    if not nside:
        nside = round((n / 12) ** 0.5)
        if pixels is not None and len(pixels) != 12 * nside**2:
            raise NotStated(path, "is not in the file", field="nside",
                            expected="a value in the configuration")  # fmt: skip
    if not is_resolution(nside):
        raise InputError(path, f"is {nside} for {n} values", field="nside", expected="a power of 2")
    if pixels is None and n != 12 * nside**2:
        raise InputError(
            path, f"has {n} values", expected=f"{12 * nside**2}, as nside is {nside}"
        )  # fmt: skip
    return nside
