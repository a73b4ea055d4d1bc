"""Small mock skies with known contamination, their folds, and files of the evaluation's inputs.

The networks are played by whatever a test says, so that evaluation is tested without training.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from skyproof.core.formats import write
from skyproof.core.stage import Context
from skyproof.sysnet import baselines, evaluate, stack
from skyproof.sysnet.folds import TEST, Folds, write_folds
from skyproof.sysnet.mock import make_mock
from skyproof.sysnet.options import Baselines, Evaluate, Mock, Split, Stack
from skyproof.sysnet.split import make_folds
from skyproof.sysnet.table import Table, write_table

EVALUATED = ("metrics", "verdict", "nulltest", "maps", "templates", "power", "curves", "scan")


@dataclass(frozen=True)
class MockSky:
    """A table with its folds and truth: contamination F and overdensity delta [n]."""

    table: Table
    folds: Folds
    contamination: np.ndarray
    delta: np.ndarray


def make_sky(kind: str = "linear", *, scheme: str = "spatial", **options: object) -> MockSky:
    """Return a mock sky of sysnet.mock with its folds; `options` are that stage's."""
    table, survey, galaxies = make_mock(Mock(contamination=kind, **options))
    split = Split(fold_scheme=scheme, nside_group=8 if table.nside >= 32 else 4)
    folds = make_folds("sky", table, split)
    return MockSky(table, folds, survey.contamination, galaxies.delta)


def write_sky(
    folder: Path, sky: MockSky, chains: np.ndarray | None = None, **options: object
) -> SimpleNamespace:
    """Write the input files of evaluate by running the stages; return its inputs.

    `chains` [n, columns] is what the networks predict; without it they predict the linear model.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = SimpleNamespace(**{
        name: folder / f"{name}.{suffix}"
        for name, suffix in {
            "table": "fits", "truth": "fits", "folds": "fits", "baselines": "fits",
            "network": "fits", "history": "csv", "selection": "fits", "weights": "fits",
            "stack": "json", "tuning": "json", "features": "json",
        }.items()
    })  # fmt: skip
    write_table(files.table, sky.table)
    write_folds(files.folds, sky.folds)
    n, n_folds = len(sky.table), sky.folds.n_folds
    write.fits_table(files.truth, {
        "hpix": sky.table.hpix, "contamination": sky.contamination, "delta": sky.delta,
        "expected": np.ones(n),
    })  # fmt: skip
    every = list(range(len(sky.table.names)))
    write.json(files.features, {
        "features": list(sky.table.names), "keep": {str(f): every for f in range(n_folds)},
        "scans": {},
    })  # fmt: skip
    run_baselines(files, n_trees=options.pop("n_trees", 4))
    if chains is None:
        chains = products_of(files.baselines)["linear"][:, None]
    rows = np.concatenate([sky.folds.rows(f, TEST) for f in range(n_folds)])
    write.fits_table(files.network, {"hpix": sky.table.hpix[rows], "weight": chains[rows]})
    epoch = np.tile(np.arange(6), n_folds * 2)
    write.csv(files.history, {
        "fold": np.repeat(np.arange(n_folds), 12), "chain": np.tile(np.repeat([0, 1], 6), n_folds),
        "seed": epoch * 0, "epoch": epoch, "train": -1 + 0.5**epoch, "valid": -0.9 + 0.6**epoch,
        "learning_rate": 0.01 + 0.0 * epoch,
    })  # fmt: skip
    write.json(files.tuning, {"learning_rate": 0.01, "structure": [4, 20], "scans": {}})
    run_stack(files, **options)
    return files


def products_of(path: Path) -> np.ndarray:
    """Return the table in HDU 1 of a FITS file, in the machine's byte order."""
    import fitsio

    data = fitsio.read(str(path), ext=1)
    return data.astype(data.dtype.newbyteorder("="))


def run_baselines(files: SimpleNamespace, threads: int = 1, **options: object) -> None:
    """Run sysnet.baselines on written files."""
    inputs = SimpleNamespace(table=files.table, folds=files.folds, selection=files.features)
    settings = Baselines(**options)
    context = Context("sysnet.baselines", seed=settings.seed, threads=threads)
    baselines.run(inputs, SimpleNamespace(predictions=files.baselines), settings, context)


def run_stack(files: SimpleNamespace, **options: object) -> None:
    """Run sysnet.stack on written files."""
    inputs = SimpleNamespace(
        table=files.table,
        folds=files.folds,
        features=files.features,
        baselines=files.baselines,
        weights=files.network,
    )
    outputs = SimpleNamespace(selection=files.selection, weights=files.weights, stack=files.stack)
    settings = Stack(**options)
    stack.run(inputs, outputs, settings, Context("sysnet.stack", seed=settings.seed))


def run_evaluate(
    files: SimpleNamespace, folder: Path, *, truth: bool = True, **options: object
) -> SimpleNamespace:
    """Run sysnet.evaluate on written files; return its outputs."""
    folder.mkdir(parents=True, exist_ok=True)
    suffix = {"metrics": "json", "nulltest": "json", "verdict": "md"}
    outputs = SimpleNamespace(
        **{name: folder / f"{name}.{suffix.get(name, 'png')}" for name in EVALUATED}
    )
    inputs = SimpleNamespace(**{**vars(files), "truth": files.truth if truth else None})
    settings = Evaluate(**{"n_mocks": 30, "n_bootstrap": 100, "region": "sky", **options})
    evaluate.run(inputs, outputs, settings, Context("sysnet.evaluate", seed=settings.seed))
    return outputs
