"""A trained network in three lines of Python:

    from skyproof.sysnet.api import TrainedModel
    model = TrainedModel("dnnp", "model_0_2664486226/best.pth.tar", (4, 20), num_features=18)
    hpix, density = model.forward("table.fits", axes=range(18))

The signatures are those of the original. A checkpoint is a `.pth.tar` of the original, read without
executing code from the file, or a network written by sysnet.train (`.safetensors`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from skyproof.core.errors import InputError, UsageError, did_you_mean
from skyproof.core.formats import read
from skyproof.learn.ensemble.members import State
from skyproof.sysnet.members.member import read_member
from skyproof.sysnet.members.predict import predict, scaled
from skyproof.sysnet.original.checkpoints import read_checkpoint
from skyproof.sysnet.original.files import read_stats
from skyproof.sysnet.table import Table

MODELS = ("dnn", "dnnp", "dnnps", "lin", "linp")
_BATCH = 4096


class TrainedModel:
    """A network that predicts the density for any table with its features.

    `nnstruct` is (layers, output included; units); lin and linp ignore it. The first version of the
    original takes the number of the fold first: `TrainedModel(model, checkpoint, fold, nnstruct,
    num_features)`; both calls work. Raise InputError if the checkpoint has another structure.
    """

    def __init__(
        self,
        model: str,
        checkpoint: str | Path,
        *structure: Any,
        nnstruct: Sequence[int] = (4, 20),
        num_features: int | None = None,
        device: str = "cpu",
    ) -> None:
        if model not in MODELS:
            raise UsageError(f"unknown model {model}{did_you_mean(model, MODELS)}")
        rest = list(structure)
        self.fold = int(rest.pop(0)) if rest and np.ndim(rest[0]) == 0 else 0
        self.structure = tuple(rest.pop(0) if rest else nnstruct)
        self.model, self.device = model, torch.device(device)
        self.state, self.stats, self.keep = load(Path(checkpoint))
        self.n_features = rest.pop(0) if rest else num_features
        if self.n_features is None:
            self.n_features = _n_features(self.state)
        check_structure(Path(checkpoint), self.state, model, self.structure, self.n_features)

    def forward(self, *arguments: Any, axes: Sequence[int] | None = None) -> tuple[Any, Any]:
        """Return hpix [n] and the predicted density [n], rows as in the table.

        `forward(table, axes)`: the path of a table, or an array with fields features and hpix;
        `axes` are the columns of the network's features (default: all). The first version of the
        original reads mean and standard deviation of the features from a file:
        `forward(metrics.npz, table)`.
        """
        rest = list(arguments)
        stats = self.stats
        if isinstance(rest[0], (str, Path)) and str(rest[0]).endswith(".npz"):
            stats = read_stats(Path(rest.pop(0)), self.fold)
        if stats is None:
            raise UsageError(
                "the checkpoint has no mean and standard deviation of the features; call "
                "forward(metrics, table) with the metrics.npz of the same folder"
            )
        hpix, features = columns(rest.pop(0))
        axes = rest.pop(0) if rest else axes
        x = self._chosen(features, stats, axes)
        return hpix, predict(self.model, self.state, x, _BATCH, self.device).astype(np.float64)

    def _chosen(
        self, features: np.ndarray, stats: dict[str, Any], axes: Sequence[int] | None
    ) -> np.ndarray:
        """Return the scaled columns `axes`; `stats` describes all columns or only those."""
        chosen = list(range(features.shape[1])) if axes is None else [int(i) for i in axes]
        if not all(0 <= i < features.shape[1] for i in chosen):
            raise UsageError(f"axes {chosen}: the table has {features.shape[1]} features")
        if len(chosen) != self.n_features:
            raise UsageError(
                f"{len(chosen)} features for a network of {self.n_features}; select them by "
                "axes=[...]"
            )
        shift, scale = (np.asarray(values, np.float64) for values in stats["x"])
        of_all = len(shift) == features.shape[1]
        if not of_all and len(shift) != len(chosen):
            raise UsageError(
                f"mean and standard deviation are of {len(shift)} features, the table has "
                f"{features.shape[1]}"
            )
        where = chosen if of_all else slice(None)
        keep = np.ones(len(chosen), bool) if self.keep is None else self.keep
        return scaled(features[:, chosen], shift[where], scale[where], keep)


def load(path: Path) -> tuple[State, dict[str, Any] | None, np.ndarray | None]:
    """Return weights, statistics of the features (None: unknown) and input mask (None: all)."""
    if path.suffix == ".safetensors":
        member = read_member(path)
        return member.state, {"x": (member.shift, member.scale), "y": member.label}, member.keep
    content = read_checkpoint(path)
    state = {
        name: tensor
        for name, tensor in content["state_dict"].items()
        if not name.endswith("num_batches_tracked")
    }
    return state, content.get("stats"), None


def check_structure(
    path: Path, state: State, model: str, structure: tuple[int, ...], n_features: int
) -> None:
    """Raise InputError if the weights do not fit model, structure and number of features."""
    found = {name: tuple(tensor.shape) for name, tensor in state.items()}
    expected = shapes(model, structure, n_features)
    if found == expected:
        return
    names = sorted(set(found) ^ set(expected)) or sorted(
        name for name in found if found[name] != expected[name]
    )
    name = names[0]
    raise InputError(
        path,
        f"has another structure: {found.get(name, 'missing')} for {expected.get(name, 'none')}",
        field=name,
        expected=f"{model} {tuple(structure)} of {n_features} features",
    )


def shapes(model: str, structure: Sequence[int], n_features: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the weights of a network, by name."""
    if model in ("lin", "linp"):
        return {"hl1.weight": (1, n_features), "hl1.bias": (1,)}
    layers, units = structure
    found: dict[str, tuple[int, ...]] = {}
    for i in range(layers):
        wide = 1 if i == layers - 1 else units
        found[f"fc.{i}.weight"] = (wide, n_features if i == 0 else units)
        found[f"fc.{i}.bias"] = (wide,)
        if i < layers - 1:
            for name in ("weight", "bias", "running_mean", "running_var"):
                found[f"bn.{i}.{name}"] = (units,)
    return found


def _n_features(state: State) -> int:
    first = state.get("fc.0.weight", state.get("hl1.weight"))
    return 0 if first is None else int(first.shape[1])


def columns(table: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return hpix [n] and features [n, F] of a table, given as path, `Table` or structured array.

    The file may be a table of the original, without the header of the SYSNet table.
    """
    if isinstance(table, Table):
        return table.hpix, table.features
    if isinstance(table, (str, Path)):
        table = read.fits_table(table, ("hpix", "features"))
    features = np.asarray(table["features"], np.float64)
    return np.asarray(table["hpix"], np.int64), features.reshape(len(features), -1)
