"""Stage sysnet.tune: search for the learning rate, the number of layers and the L1 weight.

`tuning.json` contains `learning_rate`, `structure` and `l1_alpha` for the training, as found or as
configured, and under `scans` the losses of each search. A candidate has one network per fold; all
are trained as one ensemble. Its score is the mean over folds of the best validation loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from skyproof.core.errors import UsageError
from skyproof.core.formats import write
from skyproof.learn import device, ensemble
from skyproof.learn.checkpoint import Checkpoints
from skyproof.learn.ensemble.compiled import can_compile
from skyproof.learn.ensemble.range_test import range_test
from skyproof.sysnet.members.rows import FoldRows, chain_seeds, groups, read_rows, settings
from skyproof.sysnet.network import LINEAR

if TYPE_CHECKING:
    import torch

    from skyproof.core.stage import Context
    from skyproof.sysnet.options import Tune

LAYERS = (3, 4, 5, 6)
L1_ALPHAS = tuple(float(alpha) for alpha in np.logspace(-8, 1, 10))
OFF = -1.0  # L1 weight: no L1 term
_RANGE = (1e-7, 1.0, 300)  # first and last step size, steps


def run(inputs: SimpleNamespace, outputs: SimpleNamespace, options: Tune, context: Context) -> None:
    """Run the searches in order; each uses the values found by the preceding ones."""
    if options.find_structure and options.model in LINEAR:
        raise UsageError(f"find_structure: model {options.model} has no hidden layers")
    table, folds = read_rows(inputs, options)
    n_features = len(table.names)
    learning_rate, structure, l1_alpha = (
        options.learning_rate, options.structure, options.l1_alpha
    )  # fmt: skip
    search = Search(
        folds, options, context, device.prepare(context, options),
        context.checkpoints(outputs.tuning),
    )  # fmt: skip
    scans: dict[str, Any] = {}
    if options.find_lr:
        scans["learning_rate"] = search.learning_rate(structure, n_features, l1_alpha)
        learning_rate = scans["learning_rate"]["suggestion"] or learning_rate
    if options.find_structure:
        found = search.structure(structure[1], n_features, learning_rate, l1_alpha)
        scans["structure"], structure = found, best(found, "structure")
    if options.find_l1:
        found = search.l1_alpha(structure, n_features, learning_rate)
        scans["l1"], l1_alpha = found, best(found, "l1_alpha")
    context.note("compiled", bool(scans) and options.compile and can_compile())
    context.log.info(
        "learning rate %g, structure %s, L1 weight %g", learning_rate, tuple(structure), l1_alpha
    )
    tuning = {
        "learning_rate": learning_rate, "structure": structure, "l1_alpha": l1_alpha, "scans": scans
    }  # fmt: skip
    write.json(outputs.tuning, tuning)


class Search:
    """Trains candidates on all folds; each has one chain, with the seed of the first chain."""

    def __init__(
        self,
        folds: list[FoldRows],
        options: Tune,
        context: Context,
        where: torch.device,
        folder: Any,
    ) -> None:
        self.folds, self.options, self.context = folds, options, context
        self.where, self.folder = where, folder
        self.seed = chain_seeds(1)[0]

    def learning_rate(
        self, structure: tuple[int, int], n_features: int, l1_alpha: float
    ) -> dict[str, Any]:
        """Return the range test: step sizes, losses, and the suggestion (null: none)."""
        own = settings(self.options, structure, n_features, 1, group_size=len(self.folds))
        members = self.members(self.options.learning_rate, l1_alpha)
        group = ensemble.EnsembleGroup(
            members, own, self.context.stream, self.where, self.context.log
        )
        found = range_test(group, *_RANGE)
        if found.suggestion is None:
            self.context.log.warning(
                "the loss decreases at no learning rate: %g is kept", self.options.learning_rate
            )
        return {
            "lr": found.rate.tolist(),
            "loss": found.loss.tolist(),
            "smoothed": found.smoothed.tolist(),
            "suggestion": found.suggestion,
        }

    def structure(
        self, units: int, n_features: int, learning_rate: float, l1_alpha: float
    ) -> list[dict[str, Any]]:
        """Return the losses of 3 to 6 layers."""
        rows = []
        for layers in LAYERS:
            members = self.members(learning_rate, l1_alpha)
            (loss,) = self.losses(f"layers-{layers}", members, (layers, units), n_features)
            rows.append({"structure": [layers, units], "valid": loss})
        return rows

    def l1_alpha(
        self, structure: tuple[int, int], n_features: int, learning_rate: float
    ) -> list[dict[str, Any]]:
        """Return the losses without and with L1 weights from 1e-8 to 10."""
        alphas = (OFF, *L1_ALPHAS)
        members = [m for alpha in alphas for m in self.members(learning_rate, alpha)]
        losses = self.losses("l1", members, structure, n_features)
        return [
            {"l1_alpha": alpha, "valid": loss} for alpha, loss in zip(alphas, losses, strict=True)
        ]

    def members(self, learning_rate: float, l1_alpha: float) -> list[ensemble.EnsembleMember]:
        """Return one network per fold."""
        decay = self.options.weight_decay
        return [
            fold.member(self.seed, learning_rate, weight_decay=decay, l1=max(l1_alpha, 0.0))
            for fold in self.folds
        ]

    def losses(
        self,
        name: str,
        members: Sequence[ensemble.EnsembleMember],
        structure: tuple[int, int],
        n_features: int,
    ) -> list[float | None]:
        """Train members, one per candidate and fold; return the mean loss of each candidate.

        The loss is None if that of a network is not a number.
        """
        size = min(self.options.group_size, len(members))
        own = settings(self.options, structure, n_features, self.options.n_epochs, group_size=size)
        trained: list[ensemble.TrainedMember] = []
        for number, group in enumerate(groups(len(members), size)):
            trained += ensemble.fit(
                [members[k] for k in group],
                own,
                stream=self.context.stream,
                device=self.where,
                log=self.context.log,
                checkpoints=Checkpoints(
                    self.folder / f"{name}-{number}", self.context.cache_key, self.context.log
                ),
            )
        best_losses = [t.valid[t.best_epoch] if t.best_epoch >= 0 else np.nan for t in trained]
        means = np.reshape(best_losses, (-1, len(self.folds))).mean(axis=1)
        return [float(mean) if np.isfinite(mean) else None for mean in means]


def best(rows: Sequence[dict[str, Any]], name: str) -> Any:
    """Return the value of the candidate with the smallest loss; if equal, the first one."""
    known = [row for row in rows if row["valid"] is not None]
    if not known:
        raise UsageError(f"no candidate of the search for {name} has a loss that is a number")
    return min(known, key=lambda row: row["valid"])[name]
