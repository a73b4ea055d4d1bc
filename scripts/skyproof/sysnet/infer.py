"""Stage sysnet.infer: predict each fold's test rows with the networks not trained on them.

`nn-weights.fits` has `hpix` and `weight` [columns], the predicted density; its rows are the test
part of fold 0, then that of fold 1, and so on (`sort`: by hpix). A column is a chain; if snapshots
were kept, the columns are the snapshots of chain 0 by epoch, then those of chain 1, ...
`metrics.npz` and `train.log` have the formats of the original (`original/files.py`,
`original/train_log.py`); `history.csv` has one row per fold, chain and epoch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import torch

from skyproof.core.comm import share
from skyproof.core.errors import InputError
from skyproof.core.formats import write as writers
from skyproof.learn import device
from skyproof.sysnet.folds import TEST, TRAINING, VALIDATION, Folds, read_folds
from skyproof.sysnet.members.losses import constant_densities, mean_loss
from skyproof.sysnet.members.member import MemberFile, SavedNetwork, find_members, read_member
from skyproof.sysnet.members.predict import predict, scaled
from skyproof.sysnet.original import train_log
from skyproof.sysnet.original.files import PARTS, FoldMetrics, write_metrics, write_weights
from skyproof.sysnet.table import Table, read_table

if TYPE_CHECKING:
    from skyproof.core.stage import Context
    from skyproof.sysnet.options import Infer


@dataclass
class MemberPrediction:
    """What one member gives: density [n_test, columns] float32, test loss of each column."""

    member: SavedNetwork  # without its weights
    density: np.ndarray
    test: list[float]
    constants: dict[tuple[str, str], float]


def run(
    inputs: SimpleNamespace, outputs: SimpleNamespace, options: Infer, context: Context
) -> None:
    """Predict with all networks, divided among the ranks; the first rank writes the files."""
    where = device.prepare(context, options)
    table = read_table(inputs.table)
    folds = read_folds(inputs.folds, table)
    places = find_members(inputs.members)
    check_members(inputs, folds, places)
    mine = share(places, context.comm)
    progress = context.progress(len(mine), "predicting")
    made = []
    for place in mine:
        made.append(judge(place, table, folds, options.batch, where))
        progress.advance()
    progress.close()
    parts = context.comm.gather(made)
    if parts is not None:
        write(parts, table, folds, outputs, context, sort=options.sort)


def check_members(inputs: SimpleNamespace, folds: Folds, places: list[MemberFile]) -> None:
    """Raise InputError if the networks have another number of folds."""
    n_folds = places[-1].fold + 1
    if n_folds != folds.n_folds:
        raise InputError(
            inputs.members[0], f"is of {n_folds} folds", expected=f"{folds.n_folds}, as the folds"
        )


def judge(
    place: MemberFile, table: Table, folds: Folds, batch: int, where: torch.device
) -> MemberPrediction:
    """Predict the test part of a network's fold, and compute the test losses."""
    member = read_member(place.path)
    if member.features != tuple(table.names):
        raise InputError(
            place.path, f"is a network of {', '.join(member.features)}", field="features",
            expected=f"{', '.join(table.names)}, those of the table",
        )  # fmt: skip
    rows = folds.rows(member.fold, TEST)
    x = scaled(table.features[rows], member.shift, member.scale, member.keep)
    states = list(member.snapshots.values()) or [member.state]
    density = np.stack([predict(member.model, state, x, batch, where) for state in states], axis=1)
    label, fracgood = table.label[rows], table.fracgood[rows]
    test = [
        mean_loss(member.loss, member.weighting, column.astype(float), label, fracgood)
        for column in density.T
    ]
    constants = constant_losses(member, table, folds) if member.chain == 0 else {}
    return MemberPrediction(member.without_weights(), density, test, constants)


def constant_losses(
    member: SavedNetwork, table: Table, folds: Folds
) -> dict[tuple[str, str], float]:
    """Return the losses of the constants fitted on the training part, by kind and part."""
    parts = zip(PARTS, (TRAINING, VALIDATION, TEST), strict=True)
    rows = {name: folds.rows(member.fold, part) for name, part in parts}
    train = rows["train"]
    constants = constant_densities(table.label[train], table.fracgood[train])
    return {
        (kind, part): mean_loss(
            member.loss, member.weighting, np.full(len(where), value), table.label[where],
            table.fracgood[where],
        )
        for kind, value in constants.items() for part, where in rows.items()
    }  # fmt: skip


def write(
    parts: list[list[MemberPrediction]],
    table: Table,
    folds: Folds,
    outputs: SimpleNamespace,
    context: Context,
    *,
    sort: bool,
) -> None:
    """Write predictions, losses and log lines of all networks, by fold and chain."""
    outcomes = sorted(
        (outcome for part in parts for outcome in part),
        key=lambda outcome: (outcome.member.fold, outcome.member.chain),
    )
    by_fold = [[o for o in outcomes if o.member.fold == fold] for fold in range(folds.n_folds)]
    rows = np.concatenate([folds.rows(fold, TEST) for fold in range(folds.n_folds)])
    density = np.concatenate([np.hstack([o.density for o in chains]) for chains in by_fold])
    order = np.argsort(rows) if sort else slice(None)  # the table's rows are by hpix
    write_weights(outputs.weights, table.hpix[rows][order], density[order])
    seeds = [outcome.member.seed for outcome in by_fold[0]]
    write_metrics(outputs.metrics, [_metrics(chains) for chains in by_fold], seeds)
    writers.csv(outputs.history, _history(outcomes))
    names = [context.final(output).name for output in (outputs.weights, outputs.metrics)]
    text = [*log_lines(by_fold, len(table.hpix)), train_log.wrote_weights(names[0])]
    text.append(train_log.wrote_metrics(names[1]))
    Path(outputs.lines).write_text("\n".join(text) + "\n", encoding="utf-8")


def _metrics(chains: list[MemberPrediction]) -> FoldMetrics:
    first = chains[0].member
    return FoldMetrics(
        train=[o.member.train.tolist() for o in chains],
        valid=[o.member.valid.tolist() for o in chains],
        test=[o.test if first.snapshots else o.test[0] for o in chains],
        constants=chains[0].constants,
        shift=first.shift,
        scale=first.scale,
        label=first.label,
    )


def _history(outcomes: list[MemberPrediction]) -> dict[str, np.ndarray]:
    members = [outcome.member for outcome in outcomes]
    epochs = [len(member.train) for member in members]

    def repeated(values: list[int]) -> np.ndarray:
        return np.repeat(np.array(values, np.int64), epochs)

    return {
        "fold": repeated([member.fold for member in members]),
        "chain": repeated([member.chain for member in members]),
        "seed": repeated([member.seed for member in members]),
        "epoch": np.concatenate([np.arange(n) for n in epochs]),
        "train": np.concatenate([member.train for member in members]),
        "valid": np.concatenate([member.valid for member in members]),
        "learning_rate": np.concatenate([member.rate for member in members]),
    }


def log_lines(by_fold: list[list[MemberPrediction]], n_rows: int) -> list[str]:
    """Return the lines that the original logs for a run, by fold and chain."""
    text = [train_log.data(n_rows)]
    for fold, chains in enumerate(by_fold):
        first = chains[0].member
        text.append(train_log.partition(fold, first.model, first.structure, int(first.keep.sum())))
        for part in PARTS:
            text.append(train_log.baseline(f"base_{part}_loss", chains[0].constants["base", part]))
        for outcome in chains:
            member, n_epochs = outcome.member, len(outcome.member.train)
            text.append(train_log.chain(member.seed))
            for i, values in enumerate(zip(member.train, member.valid, member.rate, strict=True)):
                text.append(train_log.epoch(i, n_epochs, *values))
            text.append(train_log.best(member.best_loss, outcome.test))
    return text
