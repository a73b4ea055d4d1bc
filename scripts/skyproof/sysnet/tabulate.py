"""Stage sysnet.tabulate: HEALPix maps, or a table of another layout, become the SYSNet table."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from skyproof.core import pickles
from skyproof.core.errors import InputError, UsageError
from skyproof.sysnet.maps import read_map, values_at
from skyproof.sysnet.table import Table, check_columns, check_table, write_table

if TYPE_CHECKING:
    from skyproof.core.stage import Context
    from skyproof.sysnet.options import Tabulate

_FOLDS, _PARTS = 5, ("train", "validation", "test")


def run(
    inputs: SimpleNamespace, outputs: SimpleNamespace, options: Tabulate, context: Context
) -> None:
    """Read the maps or the table, check every row, write the table."""
    if bool(inputs.table) == bool(inputs.counts):
        raise UsageError("sysnet.tabulate: expected either input table or input counts")
    source = inputs.table[0] if inputs.table else inputs.counts
    table = from_table(inputs.table, options) if inputs.table else from_maps(inputs, options)
    check_table(source, table)
    context.log.info(
        "%d pixels at nside %d, %s; %d features", len(table), table.nside, table.frame,
        len(table.names),
    )  # fmt: skip
    write_table(outputs.table, table)


def from_maps(inputs: SimpleNamespace, options: Tabulate) -> Table:
    """Return the pixels in which counts, templates and enough of the sky are known."""
    if len(options.names) != len(inputs.templates):
        raise UsageError("sysnet.tabulate: expected a name for each of the templates")

    def read(name: str, path: Path) -> Any:
        return read_map(path, options.ordering.get(name, ""), options.frame.get(name, ""))

    counts = read("counts", inputs.counts)
    nside, frame = counts.nside, counts.frame
    hpix = np.flatnonzero(np.isfinite(counts.values))
    fracgood = np.ones(len(hpix))
    if inputs.randoms is not None:
        fracgood = values_at(read("randoms", inputs.randoms), hpix, nside, frame)
    columns = [
        values_at(read(name, path), hpix, nside, frame)
        for name, path in zip(options.names, inputs.templates, strict=True)
    ]
    features = np.stack(columns, axis=1)
    good = (fracgood > options.min_fracgood) & np.isfinite(features).all(axis=1)
    if not good.any():
        raise InputError(
            inputs.counts, "shares no pixel with randoms and templates", expected="a footprint"
        )
    return Table(
        hpix[good], counts.values[hpix][good], fracgood[good], features[good],
        tuple(options.names), nside, "RING", frame, "counts",
    )  # fmt: skip


def from_table(paths: list[Path], options: Tabulate) -> Table:
    """Return the table of a file; with a second one, its labels are those of that map."""
    rows = read_rows(paths[0])
    nside = int(rows.get("nside") or options.nside or least_nside(rows["hpix"]))
    label, fracgood = rows["label"], rows["fracgood"]
    if len(paths) == 2:
        sky = read_map(paths[1], options.ordering.get("label", ""))
        if sky.nside != nside:
            raise InputError(paths[1], f"is of nside {sky.nside}", expected=f"{nside}, the table's")
        label, fracgood = sky.values[rows["hpix"]], np.ones(len(label))
    features = rows["features"]
    names = rows.get("names") or tuple(f"feature{i}" for i in range(features.shape[1]))
    if options.names:
        if len(options.names) != features.shape[1]:
            raise UsageError(f"sysnet.tabulate: expected {features.shape[1]} names of features")
        names = tuple(options.names)
    order = np.argsort(rows["hpix"], kind="stable")
    good = order[fracgood[order] > options.min_fracgood]
    counts = bool(np.all(label == np.round(label)))
    return Table(
        rows["hpix"][good], label[good], fracgood[good], features[good], tuple(names), nside,
        rows.get("ordering") or "RING", rows.get("frame") or "C", "counts" if counts else "density",
    )  # fmt: skip


def least_nside(hpix: np.ndarray) -> int:
    """Return the least nside that has these pixels: the original's tables do not say theirs."""
    nside = 1
    while 12 * nside**2 <= hpix.max(initial=0):
        nside *= 2
    return nside


def read_rows(path: Path) -> dict[str, Any]:
    """Return hpix, label, fracgood, features [n, F] of a table, and what its header says."""
    if path.suffix == ".npy":
        return _plain(path, _of_dictionary(path, pickles.read_npy(path)))
    if path.suffix == ".parquet":
        return _of_columns(path, _parquet(path))
    if path.suffix == ".npz":
        return _of_columns(path, pickles.read_npz(path))
    if path.suffix in (".h5", ".hdf5"):
        return _of_columns(path, _hdf5(path))
    return _fits(path)


def _fits(path: Path) -> dict[str, Any]:
    import fitsio

    try:
        with fitsio.FITS(str(path)) as file:
            data, header = file[1].read(), file[1].read_header()
    except (OSError, ValueError, IndexError) as error:
        reason = (str(error).splitlines() or ["?"])[0]
        raise InputError(path, f"cannot be read ({reason})", expected="a SYSNet table") from None
    said = {key: str(header.get(key, "") or "").strip() for key in ("ORDERING", "COORDSYS")}
    if said["ORDERING"] not in ("", "RING"):
        raise InputError(
            path, f"is {said['ORDERING']}", field="ORDERING", expected="RING, as SYSNet's tables"
        )
    rows = _plain(path, data)
    n_features = rows["features"].shape[1]
    names = tuple(str(header[f"FEAT{i}"]).strip() for i in range(n_features)
                  if f"FEAT{i}" in header)  # fmt: skip
    rows |= {"nside": header.get("NSIDE"), "frame": said["COORDSYS"]}
    return rows | {"names": names if len(names) == n_features else ()}


def _of_dictionary(path: Path, found: Any) -> np.ndarray:
    """Return the rows of the original's folds: its test parts tile them."""
    try:
        return np.concatenate([found["test"][f"fold{i}"] for i in range(_FOLDS)])
    except (KeyError, TypeError, IndexError, ValueError):
        raise InputError(
            path, "is no table", expected=f"a dictionary of {', '.join(_PARTS)}, each of 5 folds"
        ) from None


def _plain(path: Path, data: np.ndarray) -> dict[str, Any]:
    names = data.dtype.names or ()
    pixels = "hpind" if "hpind" in names and "hpix" not in names else "hpix"
    check_columns(path, names, ("label", pixels, "features", "fracgood"))
    features = data["features"].astype("f8")
    return {
        "hpix": data[pixels].astype("i8"),
        "label": data["label"].astype("f8"),
        "fracgood": data["fracgood"].astype("f8"),
        "features": features.reshape(len(data), -1),
    }


def _of_columns(path: Path, columns: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return the rows of a table of plain columns: those that are not known are features."""
    known = ("label", "hpix", "fracgood")
    check_columns(path, list(columns), known)
    names = [name for name in columns if name not in known]
    if names == ["features"] and columns["features"].ndim == 2:
        features, names = columns["features"].astype("f8"), []
    else:
        features = np.stack([columns[name].astype("f8") for name in names], axis=1)
    return {
        "hpix": columns["hpix"].astype("i8"),
        "label": columns["label"].astype("f8"),
        "fracgood": columns["fracgood"].astype("f8"),
        "features": features,
        "names": tuple(names),
    }


def _parquet(path: Path) -> dict[str, np.ndarray]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except (OSError, pyarrow.ArrowInvalid) as error:
        reason = (str(error).splitlines() or ["?"])[0]
        raise InputError(path, f"cannot be read ({reason})", expected="Parquet") from None
    return {name: table[name].to_numpy() for name in table.column_names}


def _hdf5(path: Path) -> dict[str, np.ndarray]:
    import h5py

    try:
        with h5py.File(path) as file:
            return {name: data[()] for name, data in file.items() if isinstance(data, h5py.Dataset)}
    except OSError as error:
        reason = (str(error).splitlines() or ["?"])[0]
        raise InputError(path, f"cannot be read ({reason})", expected="HDF5") from None
