"""The inputs of the evaluation: the tested rows with their predictions and selection function."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from skyproof.core.errors import InputError
from skyproof.core.formats import read
from skyproof.sysnet.folds import read_folds
from skyproof.sysnet.mocks import null
from skyproof.sysnet.table import Table, read_table
from skyproof.sysnet.verdict import power
from skyproof.sysnet.weights.predictions import Predictions, read_map, read_predictions


@dataclass(frozen=True)
class EvaluationInputs:
    """The tested rows of a region; arrays [m], chains [m, columns].

    selection: S, mean about 1; spread: its standard deviation over the networks; contamination:
    the planted one, if known; unit: the label of one galaxy.
    """

    table: Table
    rows: np.ndarray
    group: np.ndarray
    predictions: Predictions
    selection: np.ndarray
    spread: np.ndarray
    contamination: np.ndarray | None
    stack: dict[str, Any]
    grid: power.Grid
    unit: float

    @property
    def label(self) -> np.ndarray:
        return self.table.label[self.rows]

    @property
    def fracgood(self) -> np.ndarray:
        return self.table.fracgood[self.rows]

    @property
    def features(self) -> np.ndarray:
        return self.table.features[self.rows]

    @property
    def mean(self) -> float:
        """Mean density, sum y / sum w."""
        return float(self.label.sum() / self.fracgood.sum())

    def selection_of(self, model: str) -> np.ndarray:
        """Return the selection function of a single model, with the same clipping."""
        density = self.predictions.models[model]
        return np.clip(density / density.mean(), *self.stack["clip"])

    @property
    def weighted_density(self) -> np.ndarray:
        """The selection function as a density, so that its loss is comparable to the models'."""
        return self.selection * self.label.sum() / np.sum(self.selection * self.fracgood)


def read_inputs(inputs: SimpleNamespace) -> EvaluationInputs:
    """Read and align all inputs. Raise InputError if they do not belong to the same table."""
    table = read_table(inputs.table)
    folds = read_folds(inputs.folds, table)
    predictions = read_predictions(inputs.baselines, inputs.network, table)
    rows = predictions.rows
    selection, spread = read_map(inputs.selection, table.hpix[rows])
    contamination = read_contamination(inputs.truth, table)[rows] if inputs.truth else None
    grid = power.Grid.of(table, rows)
    return EvaluationInputs(
        table=table, rows=rows, group=folds.group[rows], predictions=predictions,
        selection=selection, spread=spread, contamination=contamination,
        stack=read_stack(inputs.stack), grid=grid,
        unit=null.galaxy_label(grid, table.label[rows]),
    )  # fmt: skip


def read_contamination(path: Path, table: Table) -> np.ndarray:
    """Return the planted contamination F [n] of the rows of a mock table."""
    truth = read.fits_table(path, ("hpix", "contamination"))
    if not np.array_equal(truth["hpix"], table.hpix):
        raise InputError(path, "has other pixels than the table", field="hpix")
    return truth["contamination"].astype("f8")


@dataclass(frozen=True)
class StackForm:
    """What the evaluation needs of stack.json; the metrics have the whole file."""

    use: str
    clip: tuple[float, float]
    mean_weights: dict[str, float]
    factor: float
    spread: float
    chance: float
    clipped_low: int
    clipped_high: int


def read_stack(path: Path) -> dict[str, Any]:
    """Return the content of stack.json."""
    return read.checked_json(path, StackForm, expected="stack.json of sysnet.stack")


@dataclass(frozen=True)
class RateScanForm:
    """A learning-rate range test; a loss that is not finite is null."""

    lr: list[float]
    loss: list[float | None]
    smoothed: list[float | None]
    suggestion: float | None


@dataclass(frozen=True)
class ScansForm:
    """The scans of tuning.json that are drawn."""

    learning_rate: RateScanForm | None = None


@dataclass(frozen=True)
class TuningScansForm:
    """What the evaluation needs of tuning.json."""

    learning_rate: float
    scans: ScansForm


def read_tuning_scans(path: Path) -> dict[str, Any]:
    """Return the content of tuning.json."""
    return read.checked_json(path, TuningScansForm, expected="tuning.json of sysnet.tune")


def read_history(path: Path) -> dict[str, np.ndarray]:
    """Return the columns of history.csv: fold, chain, epoch, train, valid."""
    return read.csv(path, ("fold", "chain", "epoch", "train", "valid"))
