"""Read tables of other layouts: FITS and legacy .npy of the original, Parquet, HDF5, npz.

They may lack properties of the SYSNet table: resolution, names, frame. What the configuration does
not give is inferred, with a warning in the log. Nothing in a file is executed.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from skyproof.core.errors import InputError, UsageError
from skyproof.core.formats import read
from skyproof.sysnet.maps.mapfile import HealpixMap, check_order
from skyproof.sysnet.table import Table, check_table, is_resolution

if TYPE_CHECKING:
    from skyproof.sysnet.options import Tabulate

_LEGACY_PARTS = ("train", "validation", "test")
_LEGACY_FOLDS = tuple(f"fold{i}" for i in range(5))
_KNOWN = ("label", "hpix", "fracgood", "features")


@dataclass(frozen=True)
class RawTable:
    """Columns of a table and the header of its file, as read."""

    columns: read.Columns
    header: Mapping[str, Any]


def read_other(path: Path, options: Tabulate, log: logging.Logger) -> Table:
    """Read a table of any layout; return it checked, in RING order and sorted by pixel."""
    raw = _read(path)
    columns = raw.columns
    if "hpix" not in columns and "hpind" in columns:
        columns["hpix"] = columns.pop("hpind")
    for name in ("hpix", "label"):
        if name not in columns:
            raise InputError(path, "is missing", field=name,
                             expected="columns label, hpix, features, fracgood")  # fmt: skip
    features, column_names = _features(path, columns)
    names = _names(path, options.names, column_names, raw.header, features.shape[1], log)
    n = len(columns["hpix"])
    hpix = np.asarray(columns["hpix"])
    if not np.array_equal(hpix, np.floor(hpix)):
        raise InputError(path, "are not integers", field="hpix", expected="pixels")
    if "fracgood" not in columns:
        log.warning("%s has no fracgood: 1 is assumed for all pixels", path.name)
    nside = _nside(path, raw.header, options.nside, hpix.astype("i8"), log)
    ordering = _stated(path, raw.header, "ORDERING", options.ordering, "RING", log)
    frame = _stated(path, raw.header, "COORDSYS", options.frame, "C", log)
    table = Table(
        hpix=hpix.astype("i8"),
        label=np.asarray(columns["label"], "f8"),
        fracgood=np.asarray(columns.get("fracgood", np.ones(n)), "f8"),
        features=features,
        names=names,
        nside=nside,
        frame=frame,
        labels=str(raw.header.get("LABELTYP", "counts")).strip(),
    )
    return in_order(path, table, ordering)


def in_order(path: Path, table: Table, ordering: str) -> Table:
    """Return the table in RING order, sorted by pixel. Raise InputError for invalid pixels."""
    import healpy

    if ordering not in ("RING", "NESTED"):
        raise InputError(path, f"is {ordering!r}", field="ORDERING", expected="RING or NESTED")
    by_pixel = sorted_rows(table, np.argsort(table.hpix, kind="stable"))
    check_table(path, by_pixel)
    check_table_order(path, by_pixel, ordering)
    if ordering == "RING":
        return by_pixel
    ring = _with(by_pixel, hpix=healpy.nest2ring(table.nside, by_pixel.hpix))
    return sorted_rows(ring, np.argsort(ring.hpix, kind="stable"))


def check_table_order(path: Path, table: Table, ordering: str) -> None:
    """Raise InputError for pixels whose features are smooth only in the other order."""
    for values in table.features.T:
        full = np.full(12 * table.nside**2, np.nan)
        full[table.hpix] = values
        check_order(path, full, table.nside, ordering)


def sorted_rows(table: Table, rows: np.ndarray) -> Table:
    """Return the given rows of a table, in the given order."""
    return _with(
        table, hpix=table.hpix[rows], label=table.label[rows], fracgood=table.fracgood[rows],
        features=table.features[rows],
    )  # fmt: skip


def with_labels(table: Table, labels: HealpixMap) -> Table:
    """Return the table with labels from a map and fracgood 1, as the original does."""
    import healpy

    if labels.frame != table.frame:
        raise InputError(labels.path, f"is in frame {labels.frame}", field="frame",
                         expected=f"{table.frame}, that of the table")  # fmt: skip
    if labels.nside != table.nside:
        raise InputError(labels.path, f"is {labels.nside}", field="nside",
                         expected=f"{table.nside}, that of the table")  # fmt: skip
    values = labels.values[table.hpix]
    unseen = ~np.isfinite(values)
    if unseen.any():
        pixel = int(table.hpix[np.argmax(unseen)])
        lon, lat = healpy.pix2ang(table.nside, pixel, lonlat=True)
        raise InputError(
            labels.path, f"is UNSEEN at ({lon:.3f}, {lat:.3f}) deg; in total in {unseen.sum()} "
            "pixels of the table", record=f"pixel {pixel}", expected="a value in every pixel",
        )  # fmt: skip
    return _with(table, label=values, fracgood=np.ones(len(table)))


def _with(table: Table, **changes: Any) -> Table:
    from dataclasses import replace

    return replace(table, **changes)


def _read(path: Path) -> RawTable:
    name = path.name.lower()
    if name.endswith((".fits", ".fit", ".fits.gz")):
        return RawTable(*read.fits_table_and_header(path))
    if name.endswith(".npy"):
        return RawTable(_from_npy(path), {})
    if name.endswith(".npz"):
        return RawTable({k: np.asarray(v) for k, v in read.npz(path).items()}, {})
    if name.endswith((".parquet", ".pq")):
        return RawTable(read.parquet(path), {})
    if name.endswith((".h5", ".hdf5")):
        attributes = read.hdf5_attributes(path).items()
        return RawTable(read.hdf5(path), {key.upper(): value for key, value in attributes})
    raise InputError(
        path, "has an unknown format", expected=".fits, .npy, .npz, .parquet, .h5 or .hdf5"
    )


def _from_npy(path: Path) -> read.Columns:
    """Return the columns of a structured array, or of the legacy dictionary of folds.

    In the dictionary every row is in exactly one test part; training and validation repeat rows.
    """
    found = read.npy_object(path)
    if isinstance(found, dict):
        for part in _LEGACY_PARTS:
            if part not in found or set(_LEGACY_FOLDS) - set(found[part]):
                raise InputError(path, "is missing", field=part,
                                 expected="folds fold0 to fold4")  # fmt: skip
        try:
            found = np.concatenate([np.asarray(found["test"][fold]) for fold in _LEGACY_FOLDS])
        except (TypeError, ValueError) as error:
            raise InputError(path, f"has folds of different types ({error})") from None
    if not isinstance(found, np.ndarray) or found.dtype.names is None:
        raise InputError(path, "is not a table", expected="columns label, hpix, features, fracgood")
    return {name: found[name] for name in found.dtype.names}


def _features(path: Path, columns: read.Columns) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the features [n, F], and their names if each is a separate column."""
    n = len(columns["hpix"])
    others = tuple(name for name in columns if name not in _KNOWN)
    names = ("features",) if "features" in columns else others
    parts = [columns[name] for name in names]
    for name, part in zip(names, parts, strict=True):
        if len(part) != n or part.dtype.kind not in "fiub":
            raise InputError(
                path, f"is {part.dtype} [{len(part)}]", field=name, expected=f"{n} numbers"
            )
    if not parts:
        raise InputError(path, "is missing", field="features", expected="columns of features")
    features = np.column_stack([np.asarray(part, "f8") for part in parts])
    return features, () if "features" in columns else others


def _names(
    path: Path,
    given: list[str],
    columns: tuple[str, ...],
    header: Mapping[str, Any],
    n: int,
    log: logging.Logger,
) -> tuple[str, ...]:
    if given:
        if len(given) != n:
            raise UsageError(f"names: has {len(given)}, but {path} has {n} features")
        return tuple(given)
    if columns:
        return columns
    cards = tuple(str(header[f"FEAT{i}"]).strip() for i in range(n) if f"FEAT{i}" in header)
    listed = tuple(
        part.strip() for part in str(header.get("FEATURES", header.get("FEATS", ""))).split(",")
    )
    for found in (cards, listed):
        if len(found) == n:
            return found
    log.warning("%s has no names of its %d features: feature_0, ... are used", path.name, n)
    return tuple(f"feature_{i}" for i in range(n))


def _nside(
    path: Path, header: Mapping[str, Any], given: int, hpix: np.ndarray, log: logging.Logger
) -> int:
    """Return nside from the file, the configuration, or the smallest one with these pixels."""
    stated = int(header["NSIDE"]) if "NSIDE" in header else 0
    if stated and given and stated != given:
        raise InputError(
            path, f"is {stated} in the file, {given} in the configuration", field="nside",
            expected="the same",
        )  # fmt: skip
    nside = stated or given
    if not nside:
        top = int(hpix.max()) if len(hpix) else 0
        nside = 1
        while 12 * nside**2 <= top:
            nside *= 2
        log.warning("%s does not state its nside: %d is assumed, as its last pixel is %d",
                    path.name, nside, top)  # fmt: skip
    if not is_resolution(nside):
        raise InputError(path, f"is {nside}", field="nside", expected="a power of 2 to 8192")
    return nside


def _stated(
    path: Path, header: Mapping[str, Any], card: str, given: str, usual: str, log: logging.Logger
) -> str:
    stated = str(header.get(card, "")).strip().upper()
    stated = "NESTED" if stated == "NEST" else stated
    if stated and given and stated != given:
        raise InputError(
            path, f"is {stated} in the file, {given} in the configuration", field=card,
            expected="the same",
        )  # fmt: skip
    if not stated and not given:
        log.warning("%s does not state its %s: %s is assumed", path.name, card, usual)
    return stated or given or usual
