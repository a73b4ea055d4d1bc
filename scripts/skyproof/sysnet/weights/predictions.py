"""Reading the out-of-fold predictions of baselines and networks, aligned with the table's rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from skyproof.core.errors import InputError
from skyproof.sysnet.table import Table, check_columns


@dataclass(frozen=True)
class Predictions:
    """Out-of-fold predictions of the density, for the rows that a fold tests.

    rows [m]: their indices in the table; fold [m]; models: name -> [m]; chains [m, columns]: what
    each network column predicts, the mean of which is models['network'].
    """

    rows: np.ndarray
    fold: np.ndarray
    models: dict[str, np.ndarray]
    chains: np.ndarray


def read_predictions(baselines: Path, network: Path, table: Table) -> Predictions:
    """Return both, or raise InputError where they are not of this table, or not finite."""
    fold, models = read_baselines(baselines, table)
    rows = np.flatnonzero(fold >= 0)
    chains = read_network(network, table, rows)
    models = {name: values[rows] for name, values in models.items()}
    return Predictions(rows, fold[rows], {**models, "network": chains.mean(axis=1)}, chains)


def read_baselines(path: Path, table: Table) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return fold [n] (-1: tested by none) and name -> prediction [n], rows as the table."""
    data = _read(path, ("hpix", "fold", "constant"))
    if not np.array_equal(data["hpix"], table.hpix):
        raise InputError(path, "has other pixels than the table", field="hpix")
    names = [name for name in data.dtype.names or () if name not in ("hpix", "fold")]
    fold = data["fold"].astype(int)
    models = {name: data[name].astype(float) for name in names}
    for name, values in models.items():
        _refuse_not_positive(path, name, values[fold >= 0], data["hpix"][fold >= 0])
    return fold, models


def read_network(path: Path, table: Table, rows: np.ndarray) -> np.ndarray:
    """Return the columns of nn-weights.fits [m, columns] for `rows` of the table, by pixel."""
    data = _read(path, ("hpix", "weight"))
    weight = data["weight"].astype(float).reshape(len(data), -1)
    order = np.argsort(data["hpix"], kind="stable")
    if not np.array_equal(data["hpix"][order], np.sort(table.hpix[rows])):
        raise InputError(path, "has other pixels than the rows that the folds test", field="hpix")
    place = np.searchsorted(data["hpix"][order], table.hpix[rows])
    chains = weight[order][place]
    _refuse_not_positive(path, "weight", chains.min(axis=1), table.hpix[rows], least=-np.inf)
    return chains


def _read(path: Path, names: tuple[str, ...]) -> np.ndarray:
    import fitsio

    try:
        data = fitsio.read(str(path), ext=1)
    except (OSError, ValueError) as error:
        raise InputError(path, f"cannot be read as a FITS table ({error})") from None
    check_columns(path, data.dtype.names or (), names)
    # fitsio gives the bytes of the file, which are big-endian.
    return data.astype(data.dtype.newbyteorder("="))


def _refuse_not_positive(
    path: Path, name: str, values: np.ndarray, hpix: np.ndarray, least: float = 0.0
) -> None:
    bad = np.flatnonzero(~(np.isfinite(values) & (values > least)))
    if len(bad):
        expected = "a positive density" if np.isfinite(least) else "a finite density"
        raise InputError(
            path, f"predicts {values[bad[0]]}", record=f"hpix {hpix[bad[0]]}", field=name,
            expected=expected,
        )  # fmt: skip


def read_map(path: Path, hpix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return SELECTION and STD [m] of selection.fits in the pixels `hpix`."""
    data = _read(path, ("PIXEL", "SELECTION", "STD"))
    order = np.argsort(hpix, kind="stable")
    if not np.array_equal(data["PIXEL"], hpix[order]):
        raise InputError(path, "has other pixels than the predictions", field="PIXEL")
    place = np.empty(len(hpix), int)
    place[order] = np.arange(len(hpix))
    return data["SELECTION"][place], data["STD"][place]
