"""Stage sysnet.tabulate: make the SYSNet table of a region from maps or from another table.

The table contains the pixels with fracgood above the minimum, a value of every template, and within
the cuts of the region. It is in RING order, in the frame of the counts or the configured frame.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np

from skyproof.core.errors import InputError, UsageError
from skyproof.sysnet.maps import regrid
from skyproof.sysnet.maps.mapfile import HealpixMap, NotStated, read_map
from skyproof.sysnet.maps.tables import read_other, sorted_rows, with_labels
from skyproof.sysnet.regions import MapForm
from skyproof.sysnet.table import Table, check_table, is_resolution, write_table

if TYPE_CHECKING:
    from skyproof.core.stage import Context
    from skyproof.sysnet.options import Tabulate

_ABOVE_ONE = 1e-3  # rounding of fractions


def run(
    inputs: SimpleNamespace, outputs: SimpleNamespace, options: Tabulate, context: Context
) -> None:
    """Write the table of a region."""
    made = from_maps if inputs.counts else from_table
    table, source = made(inputs, options, context)
    table = cut(table, inputs.mask, options)
    if len(table) == 0:
        raise InputError(source, "leaves no pixel in the region", expected="wider cuts")
    check_table(source, table)
    write_table(outputs.table, table)
    context.log.info(
        "%d pixels at nside %d, %d features, labels %.6g in all, observed %.1f deg2", len(table),
        table.nside, len(table.names), table.label.sum(),
        table.fracgood.sum() * 41252.96 / (12 * table.nside**2),
    )  # fmt: skip


def from_table(inputs: SimpleNamespace, options: Tabulate, context: Context) -> tuple[Table, Path]:
    """Return a table of another layout, with the labels of a map if one is given."""
    if not inputs.table:
        raise UsageError("tabulate needs a table, or a map of counts and templates")
    path = Path(inputs.table[0])
    table = read_other(path, options, context.log)
    if len(inputs.table) > 1:
        form = options.forms.get("labels", MapForm())
        usual = {"ordering": form.ordering or "RING", "frame": form.frame or table.frame}
        labels = _read_labels(Path(inputs.table[1]), form, usual, context)
        table = with_labels(table, labels)
    elif options.density_labels:
        table = replace(table, label=table.label * table.fracgood, labels="counts")
    return _observed(table, options, context), path


def _read_labels(path: Path, form: MapForm, usual: dict[str, str], context: Context) -> HealpixMap:
    """Read the original's map of labels, which may lack ordering and frame in its header."""
    try:
        return read_map(path, form)
    except NotStated as error:
        context.log.warning("%s; assumed: %s", error, ", ".join(usual.values()))
        return read_map(path, form.model_copy(update=usual))


def from_maps(inputs: SimpleNamespace, options: Tabulate, context: Context) -> tuple[Table, Path]:
    """Return the table of counts, observed fraction and templates."""
    if len(options.names) != len(inputs.templates) or not options.names:
        raise UsageError(
            f"names: has {len(options.names)} for {len(inputs.templates)} maps of templates; "
            "expected one name per map"
        )
    path = Path(inputs.counts)
    counts = read_map(path, options.forms.get("counts", MapForm()))
    nside, frame = options.nside or counts.nside, options.frame or counts.frame
    if not is_resolution(nside):
        raise UsageError(f"nside: is {nside}; expected a power of 2 to 8192")
    label = regrid.extensive(counts, nside, frame)
    fracgood = _fraction(inputs.randoms, counts, nside, frame, options)
    kept = np.isfinite(label) & (fracgood > options.min_fracgood)
    _check_any(path, kept, "has no observed pixel")
    kept &= _above(label, options.forms.get("counts"))
    features = []
    for name, template in zip(options.names, inputs.templates, strict=True):
        form = options.forms.get(name, MapForm())
        values = regrid.intensive(
            read_map(Path(template), form), nside, frame, smooth=form.interpolate
        )
        seen = np.isfinite(values) & _above(values, form)
        lost = int((kept & ~seen).sum())
        if lost:
            context.log.warning("%s excludes %d of %d pixels", name, lost, int(kept.sum()))
        kept &= seen
        _check_any(Path(template), kept, "has no pixel in common with the preceding maps")
        features.append(values)
    hpix = np.flatnonzero(kept)
    table = Table(
        hpix=hpix.astype("i8"),
        label=label[hpix],
        fracgood=fracgood[hpix],
        features=np.column_stack([values[hpix] for values in features]),
        names=tuple(options.names),
        nside=nside,
        frame=frame,
    )
    return (as_density(table) if options.density_labels else table), path


def as_density(table: Table) -> Table:
    """Return the table with labels (counts / fracgood) / mean density, whose mean is about 1."""
    mean = table.label.sum() / table.fracgood.sum()
    return replace(table, label=table.label / table.fracgood / mean, labels="density")


def _fraction(
    randoms: Path | None, counts: HealpixMap, nside: int, frame: str, options: Tabulate
) -> np.ndarray:
    """Return the observed fraction of every pixel; without randoms, 1 where counts are defined."""
    if randoms is None:
        seen = replace(counts, values=counts.seen.astype("f8"))
        return regrid.fractions(seen, nside, frame)
    source = read_map(Path(randoms), options.forms.get("randoms", MapForm()))
    if options.randoms_per_pixel:
        per_pixel = options.randoms_per_pixel * (nside / source.nside) ** 2
        source = replace(source, values=source.values / per_pixel)
    elif np.nanmax(source.values) > 1 + _ABOVE_ONE:
        raise InputError(
            randoms, f"is up to {np.nanmax(source.values):g}", field="randoms",
            expected="fractions from 0 to 1, or a value of randoms_per_pixel",
        )  # fmt: skip
    if np.nanmin(source.values) < 0:
        raise InputError(randoms, f"is {np.nanmin(source.values):g}", field="randoms",
                         expected=">= 0")  # fmt: skip
    return regrid.fractions(source, nside, frame)


def _above(values: np.ndarray, form: MapForm | None) -> np.ndarray:
    if form is None or form.above is None:
        return np.ones(len(values), bool)
    return values > form.above


def _check_any(path: Path, kept: np.ndarray, why: str) -> None:
    if not kept.any():
        raise InputError(path, why, expected="a footprint that all maps share")


def _observed(table: Table, options: Tabulate, context: Context) -> Table:
    """Return the rows whose observed fraction is above the minimum."""
    kept = np.flatnonzero(table.fracgood > options.min_fracgood)
    if len(kept) < len(table):
        context.log.warning(
            "%d of %d rows have fracgood of %g or less and are excluded",
            len(table) - len(kept), len(table), options.min_fracgood,
        )  # fmt: skip
    return sorted_rows(table, kept)


def cut(table: Table, mask: Path | None, options: Tabulate) -> Table:
    """Return the rows within the ranges of coordinates [deg] of pixel centres and the mask."""
    import healpy

    kept = np.ones(len(table), bool)
    lon, lat = healpy.pix2ang(table.nside, table.hpix, lonlat=True)
    if options.ra is not None or options.dec is not None:
        ra, dec = _turned(lon, lat, table.frame, "C")
        if options.ra is not None:
            west, east = options.ra
            inside = (ra >= west) & (ra < east)
            kept &= inside if west < east else (ra >= west) | (ra < east)
        if options.dec is not None:
            kept &= (dec >= options.dec[0]) & (dec < options.dec[1])
    if options.gal_lat is not None or options.min_abs_gal_lat:
        _, latitude = _turned(lon, lat, table.frame, "G")
        kept &= np.abs(latitude) >= options.min_abs_gal_lat
        if options.gal_lat is not None:
            kept &= (latitude >= options.gal_lat[0]) & (latitude < options.gal_lat[1])
    if mask is not None:
        form = options.forms.get("mask", MapForm())
        values = regrid.intensive(read_map(Path(mask), form), table.nside, table.frame)
        kept &= values[table.hpix] > (form.above or 0)  # NaN is not above
    return sorted_rows(table, np.flatnonzero(kept))


def _turned(
    lon: np.ndarray, lat: np.ndarray, frame: str, wanted: str
) -> tuple[np.ndarray, np.ndarray]:
    import healpy

    if frame == wanted:
        return lon, lat
    lon, lat = healpy.Rotator(coord=frame + wanted)(lon, lat, lonlat=True)
    return lon % 360, lat
