"""Inputs of search and training on a small table, in files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from skyproof.core.options import from_words
from skyproof.core.stage import Context
from skyproof.sysnet import train
from skyproof.sysnet.folds import write_folds
from skyproof.sysnet.options import Train
from skyproof.sysnet.table import Table, write_table
from tests.unit.sysnet.build.table import FEATURES, make_folds, make_table

N_FOLDS = 5
INPUTS = ("table", "folds", "selection", "tuning")
OPTIONS = {
    "structure": "[3,5]", "batch": "16", "n-epochs": "4", "n-chains": "2", "group-size": "4",
    "block-size": "9", "seed": "1",
}  # fmt: skip


def trend_table(n: int = 150) -> Table:
    """Return a table whose counts follow the first feature."""
    table = make_table(n)
    expected = 2 * table.fracgood * np.exp(0.6 * table.features[:, 0])
    return replace(table, label=np.random.default_rng(5).poisson(expected).astype(float))


def write_inputs(
    folder: Path, table: Table | None = None, keep: dict[str, list[int]] | None = None,
    tuning: dict[str, object] | None = None,
) -> dict[str, Path]:  # fmt: skip
    """Write table, folds, selection and tuning; return their paths by input."""
    folder.mkdir(parents=True, exist_ok=True)
    table = trend_table() if table is None else table
    paths = {name: folder / f"{name}.json" for name in INPUTS}
    paths |= {name: folder / f"{name}.fits" for name in ("table", "folds")}
    write_table(paths["table"], table)
    write_folds(paths["folds"], make_folds(table, N_FOLDS))
    everything = {str(fold): list(range(len(FEATURES))) for fold in range(N_FOLDS)}
    selection = {"features": list(FEATURES), "keep": everything | (keep or {})}
    paths["selection"].write_text(json.dumps(selection))
    values = {"learning_rate": 0.01, "structure": [3, 5], "l1_alpha": -1.0, "scans": {}}
    paths["tuning"].write_text(json.dumps(values | (tuning or {})))
    return paths


def train_words(inputs: dict[str, Path], out: Path, block: int = 0, **options: object) -> list[str]:
    """Return the command of a training."""
    given = OPTIONS | {name.replace("_", "-"): str(value) for name, value in options.items()}
    files = [f"{name}={path}" for name, path in inputs.items()]
    return [
        "sysnet.train", "--in", *files, "--out", f"members={out / f'block-{block:05d}.json'}",
        "--block", str(block),
        *(word for name, value in given.items() for word in (f"--{name}", value)),
    ]  # fmt: skip


def run_train(inputs: dict[str, Path], out: Path, block: int = 0, **options: object) -> Context:
    """Train in this process (its numerics are those of the tests, not of the command line)."""
    given = OPTIONS | {name.replace("_", "-"): str(value) for name, value in options.items()}
    words = {name.replace("-", "_"): value for name, value in given.items()} | {"block": str(block)}
    own = from_words(Train, words)
    out.mkdir(parents=True, exist_ok=True)
    context = Context("sysnet.train", seed=own.seed, cache_key="r")
    files = dict.fromkeys(Train.inputs) | inputs
    files["start"] = [inputs["start"]] if "start" in inputs else []
    index = SimpleNamespace(members=out / f"block-{block:05d}.json")
    train.run(SimpleNamespace(**files), index, own, context)
    return context


def members_of(out: Path) -> dict[str, bytes]:
    """Return the members' files as bytes, by name."""
    return {path.name: path.read_bytes() for path in sorted((out / "members").glob("*"))}
