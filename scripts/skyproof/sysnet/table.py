"""The SYSNet table: label, observed fraction and imaging templates of each pixel of a region.

A FITS binary table (HDU 1) with the columns of the original (label, hpix, features, fracgood). The
header adds resolution, pixel ordering, frame, and the names of the features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from skyproof.core.errors import InputError
from skyproof.core.formats import read, write

FRAMES = {"C": "celestial", "G": "Galactic", "E": "ecliptic"}
LABELS = ("counts", "density")

_COLUMNS = ("label", "hpix", "features", "fracgood")
_NAME_LENGTH = 60  # a FITS card holds 68 characters


@dataclass(frozen=True)
class Table:
    """Pixels of a region, in ascending order of `hpix`, with F imaging templates per pixel.

    A model predicts the density f(features); the expected label is f * fracgood. `labels` is
    `counts` (of galaxies) or `density` (mean about 1).
    """

    hpix: np.ndarray  # int64 [n], HEALPix index
    label: np.ndarray  # float64 [n]
    fracgood: np.ndarray  # float64 [n], observed fraction of the pixel, > 0
    features: np.ndarray  # float64 [n, F]
    names: tuple[str, ...]  # of the F features
    nside: int
    ordering: str = "RING"
    frame: str = "C"
    labels: str = "counts"

    def __len__(self) -> int:
        return len(self.hpix)


def read_table(path: str | Path) -> Table:
    """Read a table. Raise InputError as `check_table` does."""
    columns, header = read.fits_table_and_header(path, _COLUMNS)
    features = columns["features"].astype("f8").reshape(len(columns["features"]), -1)
    table = Table(
        hpix=columns["hpix"].astype("i8"),
        label=columns["label"].astype("f8"),
        fracgood=columns["fracgood"].astype("f8"),
        features=features,
        names=tuple(str(_card(path, header, f"FEAT{i}")) for i in range(features.shape[1])),
        nside=int(_card(path, header, "NSIDE")),
        ordering=str(_card(path, header, "ORDERING")),
        frame=str(_card(path, header, "COORDSYS")),
        labels=str(_card(path, header, "LABELTYP")),
    )
    check_table(path, table)
    return table


def write_table(path: str | Path, table: Table) -> None:
    """Write a checked table; equal tables give equal bytes."""
    columns = {
        "label": table.label.astype("f8"),
        "hpix": table.hpix.astype("i8"),
        "features": table.features.astype("f8"),
        "fracgood": table.fracgood.astype("f8"),
    }
    header = {
        "NSIDE": table.nside,
        "ORDERING": table.ordering,
        "COORDSYS": table.frame,
        "LABELTYP": table.labels,
        **{f"FEAT{i}": name for i, name in enumerate(table.names)},
    }
    write.fits_table(path, columns, extname="SYSNET", header=header)


def check_table(path: str | Path, table: Table) -> None:
    """Raise InputError for values that a model cannot use; `path` is the file named in it."""
    _check_header(path, table)
    if len(table) == 0:
        raise InputError(path, "has no rows")
    _check_pixels(path, table.hpix, table.nside)
    _check_values(path, table.hpix, "label", table.label, least=0)
    _check_values(path, table.hpix, "fracgood", table.fracgood, above=0)
    for name, values in zip(table.names, table.features.T, strict=True):
        _check_values(path, table.hpix, name, values)
        if len(table) > 1 and np.ptp(values) == 0:
            raise InputError(
                path, f"is {values[0]:g} in every row", field=name,
                expected="a feature that varies; exclude this one",
            )  # fmt: skip
    if not table.label.any():
        raise InputError(path, "is 0 in every row", field="label", expected="some galaxies")


def _card(path: str | Path, header: Mapping[str, Any], name: str) -> Any:
    if name not in header:
        raise InputError(
            path, "is missing in the header", field=name,
            expected="a table written by mock or tabulate",
        )  # fmt: skip
    value = header[name]
    return value.strip() if isinstance(value, str) else value


def _check_header(path: str | Path, table: Table) -> None:
    if not is_resolution(table.nside):
        raise InputError(path, f"is {table.nside}", field="NSIDE", expected="a power of 2 to 8192")
    if table.ordering != "RING":
        raise InputError(
            path, f"is {table.ordering!r}", field="ORDERING", expected="RING (tabulate converts)"
        )
    if table.frame not in FRAMES:
        raise InputError(path, f"is {table.frame!r}", field="COORDSYS", expected="C, G or E")
    if table.labels not in LABELS:
        raise InputError(path, f"is {table.labels!r}", field="LABELTYP", expected="counts, density")
    if not table.names:
        raise InputError(path, "has no columns", field="features", expected="one or more")
    for i, name in enumerate(table.names):
        if not (0 < len(name) <= _NAME_LENGTH and name.isascii() and name.isprintable()):
            raise InputError(
                path, f"is {name!r}", field=f"FEAT{i}",
                expected=f"1 to {_NAME_LENGTH} printable ASCII letters",
            )  # fmt: skip
        if name in table.names[:i]:
            raise InputError(path, f"{name!r} is the name of two features", field=f"FEAT{i}")


def is_resolution(nside: int) -> bool:
    """Return whether nside is a power of 2 up to 8192, valid in both pixel orderings."""
    return 1 <= nside <= 8192 and nside & (nside - 1) == 0


def check_distinct(path: str | Path, pixels: np.ndarray, nside: int, field: str) -> None:
    """Raise InputError for out-of-range or repeated pixels [n]."""
    outside = (pixels < 0) | (pixels >= 12 * nside**2)
    if outside.any():
        row, n = int(np.argmax(outside)), int(outside.sum())
        raise InputError(
            path, f"is {pixels[row]}" + (f" ({n} such rows)" if n > 1 else ""),
            record=row, field=field,
            expected=f"0 to {12 * nside**2 - 1}, as nside is {nside}",
        )  # fmt: skip
    values, counts = np.unique(pixels, return_counts=True)
    if len(values) < len(pixels):
        pixel = values[counts > 1][0]
        row = int(np.flatnonzero(pixels == pixel)[1])
        raise InputError(path, f"{pixel} is repeated", record=row, field=field)


def _check_pixels(path: str | Path, hpix: np.ndarray, nside: int) -> None:
    check_distinct(path, hpix, nside, "hpix")
    steps = np.diff(hpix)
    if (steps < 0).any():
        row = int(np.argmax(steps < 0)) + 1
        raise InputError(
            path, "is less than in the previous row", record=row, field="hpix",
            expected="ascending order",
        )  # fmt: skip


def _check_values(
    path: str | Path,
    hpix: np.ndarray,
    name: str,
    values: np.ndarray,
    *,
    least: float = -np.inf,
    above: float = -np.inf,
) -> None:
    good = np.isfinite(values) & (values >= least) & (values > above)
    if good.all():
        return
    row = int(np.argmin(good))
    wanted = f"> {above:g}" if above > -np.inf else f">= {least:g}" if least > -np.inf else "finite"
    raise InputError(
        path, f"is {values[row]:g} in pixel {hpix[row]} ({int((~good).sum())} such rows)",
        record=row, field=name, expected=wanted,
    )  # fmt: skip
