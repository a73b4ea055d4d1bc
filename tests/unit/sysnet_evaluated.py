"""Small mock skies with known contamination, their folds, and files of what leads to a verdict.

The networks are played by whatever a test says, so that evaluation is tested without training.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import healpy
import numpy as np

from skyproof.core import products
from skyproof.core.seeds import stream
from skyproof.core.stage import Context
from skyproof.sysnet import baselines, evaluate, stack
from skyproof.sysnet.folds import Folds, write_folds
from skyproof.sysnet.nullmocks import gaussian_field
from skyproof.sysnet.options import Baselines, Evaluate, Split, Stack
from skyproof.sysnet.split import make_folds
from skyproof.sysnet.table import Table, write_table

NAMES = ("ebv", "stars", "depth", "seeing", "sky", "stripe")
EVALUATED = ("metrics", "verdict", "nulltest", "maps", "templates", "power", "curves", "scan")


@dataclass(frozen=True)
class Sky:
    """A table with its folds and truth: contamination F and overdensity delta [n]."""

    table: Table
    folds: Folds
    contamination: np.ndarray
    delta: np.ndarray


def make_sky(
    kind: str = "linear", *, realisation: int = 0, nside: int = 32, density: float = 20.0,
    strength: float = 0.12, scheme: str = "spatial", variance: float = 0.05,
) -> Sky:  # fmt: skip
    """Return a mock sky; `strength` is the rms of F - 1, `kind` as in sysnet.mock."""
    draw = stream(7, "sky", realisation)
    lmax = 2 * nside
    l = np.arange(lmax + 1)  # noqa: E741
    shape = np.where(l >= 2, (np.maximum(l, 2) / 30) ** -1.2, 0)
    power = shape * variance * 4 * np.pi / np.sum((2 * l + 1) * shape)
    pixels = np.arange(12 * nside**2)
    longitude, latitude = healpy.pix2ang(nside, pixels, lonlat=True)
    seen = (np.abs(latitude) > 25) & (longitude > 20) & (longitude < 250)
    delta = np.exp(gaussian_field(power, nside, draw) - variance / 2)[seen] - 1
    templates = make_templates(nside, longitude, latitude, seen, draw)
    excess = pattern(kind, templates)
    contamination = 1 + strength * excess / max(excess.std(), 1e-9) if kind != "none" else excess
    contamination = np.clip(contamination, 0.2, None) if kind != "none" else np.ones(seen.sum())
    fracgood = draw.beta(20, 1, seen.sum())
    label = draw.poisson(density * fracgood * contamination * (1 + delta)).astype(float)
    table = Table(pixels[seen], label, fracgood, templates, NAMES, nside)
    options = Split(fold_scheme=scheme, nside_group=8 if nside >= 32 else 4)
    return Sky(table, make_folds("sky", table, options), contamination, delta)


def make_templates(
    nside: int, longitude: np.ndarray, latitude: np.ndarray, seen: np.ndarray,
    draw: np.random.Generator,
) -> np.ndarray:  # fmt: skip
    """Return six templates [n, 6]: two of Galactic latitude, smooth fields, stripes; spread 1."""
    lmax = 2 * nside
    smooth = np.where(np.arange(lmax + 1) >= 1, (np.arange(lmax + 1) + 1.0) ** -2.5, 0)
    fields = [gaussian_field(smooth, nside, draw)[seen] for _ in range(4)]
    fields = [field / field.std() for field in fields]
    galactic = 1 / np.sin(np.radians(np.abs(latitude[seen])))
    ebv = np.exp(0.5 * galactic + 0.4 * fields[0])
    stars = galactic + 0.3 * fields[1]
    stripe = np.sin(np.radians(longitude[seen]) * 9) + 0.3 * fields[3]
    columns = [ebv, stars, fields[2], fields[3], fields[1] + 0.5 * fields[2], stripe]
    table = np.stack(columns, axis=1)
    return (table - table.mean(axis=0)) / table.std(axis=0)


def pattern(kind: str, templates: np.ndarray) -> np.ndarray:
    """Return the mean-free dependence of the density on the templates [n]."""
    ebv, stars, depth = templates[:, 0], templates[:, 1], templates[:, 2]
    found = {
        "none": np.zeros(len(ebv)),
        "linear": -0.6 * ebv + 0.4 * stars + 0.7 * depth,
        "quadratic": 0.6 * depth**2 - 0.5 * ebv * depth - 0.3 * stars,
        "nonlinear": np.exp(-np.abs(depth)) * np.tanh(4 * ebv) + np.sign(stars) * 0.5,
    }[kind]
    return found - found.mean()


def write_sky(
    folder: Path, sky: Sky, chains: np.ndarray | None = None, **options: object
) -> SimpleNamespace:
    """Write the files that lead to evaluate, through the stages; return its inputs.

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
    products.write_fits_table(files.truth, {
        "hpix": sky.table.hpix, "contamination": sky.contamination, "delta": sky.delta,
        "expected": np.ones(n),
    })  # fmt: skip
    every = list(range(len(sky.table.names)))
    products.write_json(files.features, {
        "features": list(sky.table.names), "keep": {str(f): every for f in range(n_folds)},
        "scans": {},
    })  # fmt: skip
    run_baselines(files, n_trees=options.pop("n_trees", 4))
    if chains is None:
        chains = products_of(files.baselines)["linear"][:, None]
    rows = np.concatenate([sky.folds.rows(f, 2) for f in range(n_folds)])
    products.write_fits_table(files.network, {"hpix": sky.table.hpix[rows], "weight": chains[rows]})
    epoch = np.tile(np.arange(6), n_folds * 2)
    products.write_csv(files.history, {
        "fold": np.repeat(np.arange(n_folds), 12), "chain": np.tile(np.repeat([0, 1], 6), n_folds),
        "seed": epoch * 0, "epoch": epoch, "train": -1 + 0.5**epoch, "valid": -0.9 + 0.6**epoch,
        "learning_rate": 0.01 + 0.0 * epoch,
    })  # fmt: skip
    products.write_json(files.tuning, {"learning_rate": 0.01, "structure": [4, 20], "scans": {}})
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
    stack.run(inputs, outputs, Stack(**options), Context("sysnet.stack", seed=1))


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
