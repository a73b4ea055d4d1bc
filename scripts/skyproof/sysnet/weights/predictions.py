"""Read the out-of-fold predictions of baselines and networks, aligned with the table's rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from skyproof.core.errors import InputError
from skyproof.core.formats import read
from skyproof.sysnet.table import Table


@dataclass(frozen=True)
class Predictions:
    """Out-of-fold predictions of the density, for the rows that a fold tests.

    rows [m]: their indices in the table; fold [m]; models: name -> [m]; chains [m, columns]: the
    prediction of each network column, whose mean is models['network'].
    """

    rows: np.ndarray
    fold: np.ndarray
    models: dict[str, np.ndarray]
    chains: np.ndarray


def read_predictions(baselines: Path, network: Path, table: Table) -> Predictions:
    """Return both; raise InputError if they belong to another table or are not finite."""
    fold, models = read_baselines(baselines, table)
    rows = np.flatnonzero(fold >= 0)
    chains = read_network(network, table, rows)
    models = {name: values[rows] for name, values in models.items()}
    return Predictions(rows, fold[rows], {**models, "network": chains.mean(axis=1)}, chains)


def read_baselines(path: Path, table: Table) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return fold [n] (-1: tested by no fold) and name -> prediction [n], rows as in the table."""
    columns = read.fits_table(path)
    read.check_names(path, columns, ("hpix", "fold", "constant"))
    hpix, fold = columns.pop("hpix"), columns.pop("fold").astype(int)
    if not np.array_equal(hpix, table.hpix):
        raise InputError(path, "has other pixels than the table", field="hpix")
    models = {name: values.astype(float) for name, values in columns.items()}
    for name, values in models.items():
        _check_density(path, name, values[fold >= 0], hpix[fold >= 0])
    return fold, models


def read_network(path: Path, table: Table, rows: np.ndarray) -> np.ndarray:
    """Return the columns of nn-weights.fits [m, columns] for `rows` of the table, by pixel."""
    data = read.fits_table(path, ("hpix", "weight"))
    weight = data["weight"].astype(float).reshape(len(data["hpix"]), -1)
    order = np.argsort(data["hpix"], kind="stable")
    if not np.array_equal(data["hpix"][order], np.sort(table.hpix[rows])):
        raise InputError(path, "has other pixels than the rows that the folds test", field="hpix")
    chains = weight[order][np.searchsorted(data["hpix"][order], table.hpix[rows])]
    _check_density(path, "weight", chains.min(axis=1), table.hpix[rows], least=-np.inf)
    return chains


def _check_density(
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
    """Return SELECTION and STD [m] of selection.fits at the pixels `hpix`."""
    data = read.fits_table(path, ("PIXEL", "SELECTION", "STD"))
    order = np.argsort(hpix, kind="stable")
    if not np.array_equal(data["PIXEL"], hpix[order]):
        raise InputError(path, "has other pixels than the predictions", field="PIXEL")
    row = np.empty(len(hpix), int)
    row[order] = np.arange(len(hpix))
    return data["SELECTION"][row], data["STD"][row]
