"""The complete regression in memory: from a table to the selection function, without files.

    found = regress(table)
    weight = 1 / found.selection                        # of the galaxies in each pixel

For notebooks and for large sets of mock skies. With the same options and random streams the
results equal those of the stages. Imports torch.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from skyproof.core import seeds
from skyproof.learn import ensemble
from skyproof.sysnet.baselines import POLYNOMIALS, out_of_fold
from skyproof.sysnet.folds import TEST, Folds
from skyproof.sysnet.members.predict import predict, scaled
from skyproof.sysnet.members.rows import chain_seeds, fold_rows, groups, settings
from skyproof.sysnet.network import original_names
from skyproof.sysnet.options import Split, Stack, Train
from skyproof.sysnet.split import make_folds
from skyproof.sysnet.stack import StackResult, stack_models
from skyproof.sysnet.table import Table
from skyproof.sysnet.weights.predictions import Predictions

_LOG = logging.getLogger("skyproof")
_NAME = Path("the table")  # in messages
_ROWS = 4096  # of a forward pass, as sysnet.infer


@dataclass(frozen=True)
class Regression:
    """Out-of-fold predictions of all models, and their combination.

    Arrays have the rows `predictions.rows` of the table: all rows, or with a single fold its
    test part.
    """

    folds: Folds
    predictions: Predictions
    stacked: StackResult

    @property
    def selection(self) -> np.ndarray:
        """The selection function [m]."""
        return self.stacked.selection.mean


def regress(
    table: Table, *, split: Split | None = None, train: Train | None = None,
    stack: Stack | None = None, keep: np.ndarray | None = None,
) -> Regression:  # fmt: skip
    """Predict every row with models that were not trained on its fold, and stack them.

    `keep` [folds, F] is True for the features in use (None: all). There is no random forest and no
    search: the learning rate, structure and L1 weight are those of `train`.
    """
    split, train, stack = split or Split(), train or Train(), stack or Stack()
    folds = make_folds(_NAME, table, split)
    if keep is None:
        keep = np.ones((folds.n_folds, len(table.names)), bool)
    models = out_of_fold(table, folds, keep, POLYNOMIALS)
    chains = network_predictions(table, folds, keep, train)
    tested = folds.tested_by()
    rows = np.flatnonzero(tested >= 0)
    models = {name: density[rows] for name, density in models.items()}
    models["network"] = chains[rows].mean(axis=1)
    predictions = Predictions(rows, tested[rows], models, chains[rows])
    stacked = stack_models(
        table, folds, keep, predictions, stack,
        lambda *names: seeds.stream(stack.seed, "sysnet.stack", *names),
    )  # fmt: skip
    return Regression(folds, predictions, stacked)


def network_predictions(table: Table, folds: Folds, keep: np.ndarray, options: Train) -> np.ndarray:
    """Return the out-of-fold density predicted by each chain [n, chains]."""
    own = settings(options, options.structure, len(table.names), options.n_epochs)
    rows = [
        fold_rows(_NAME, table, folds, fold, keep[fold], options.normalisation)
        for fold in range(folds.n_folds)
    ]
    places = [divmod(k, options.n_chains) for k in range(folds.n_folds * options.n_chains)]
    keys = chain_seeds(options.n_chains)
    decay, l1 = options.weight_decay, max(options.l1_alpha, 0.0)
    members = [
        rows[fold].member(keys[chain], options.learning_rate, weight_decay=decay, l1=l1)
        for fold, chain in places
    ]
    where = torch.device("cpu")
    trained: list[ensemble.TrainedMember] = []
    for group in groups(len(members), options.group_size):
        trained += ensemble.fit(
            [members[k] for k in group], own, device=where, log=_LOG,
            stream=lambda *names: seeds.stream(options.seed, "sysnet.train", *names),
        )  # fmt: skip
    found = np.full((len(table), options.n_chains), np.nan)
    for (fold, chain), result in zip(places, trained, strict=True):
        tested, part = folds.rows(fold, TEST), rows[fold]
        x = scaled(table.features[tested], part.shift, part.scale, part.keep)
        state = original_names(options.model, result.state)
        found[tested, chain] = predict(options.model, state, x, _ROWS, where)
    return found
