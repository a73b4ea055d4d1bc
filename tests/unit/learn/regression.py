"""A small system that regresses: a scalar or a map from images, with validation rows.

Also a program, `python -m tests.unit.learn.regression RANKS DATA OUT KIND`, to be started under
mpiexec: trains on the shards in DATA and writes the checkpoints and tables below OUT.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from skyproof.core.comm import connect
from skyproof.core.formats import write
from skyproof.core.progress import Progress
from skyproof.core.seeds import stream
from skyproof.learn import checkpoint, device
from skyproof.learn.history import History
from skyproof.learn.inputs import Symmetries
from skyproof.learn.reduce import Team
from skyproof.learn.settings import Objective, TrainingFiles, TrainingSettings, Validation
from skyproof.learn.shards import Shards, Values
from skyproof.learn.trainer import MakeOptimizer, fit

LOG = logging.getLogger("test")
SIDE, TILES = 8, 2
N_TRAIN, N_VALID = (4, 9), (3, 7)  # shards, rows of each
STEPS_PER_EPOCH = 5  # the last one has 4 rows
TARGETS = {"scalar": Values(), "map": Values((TILES, TILES, 1))}

# The learning rate falls at once on a plateau, and the training stops before its last epoch.
SETTINGS = TrainingSettings(
    n_epochs=8,
    batch=8,
    micro_batch=3,
    learning_rate=0.05,
    schedule="plateau",
    warmup_steps=3,
    factor=0.5,
    plateau_patience=0,
    stop_patience=3,
    min_delta=0.002,
    restore_best=True,
    clip_norm=0.5,
    checkpoint_every=3,
)
EVERY = 2  # steps between evaluations


class Convolutions(nn.Module):
    """149 parameters; weights and biases from our own stream."""

    def __init__(self, kind: str, seed: int = 1) -> None:
        super().__init__()
        self.kind = kind
        self.first, self.norm = nn.Conv2d(2, 4, 3, padding=1), nn.GroupNorm(2, 4)
        self.second = nn.Conv2d(4, 1, SIDE // TILES, stride=SIDE // TILES)
        for name, parameter in self.named_parameters():
            if not name.startswith("norm"):
                draws = stream(seed, name).normal(0, 0.2, tuple(parameter.shape))
                parameter.data.copy_(torch.from_numpy(draws))

    def forward(self, x: Tensor) -> Tensor:
        maps = self.second(self.norm(self.first(x.permute(0, 3, 1, 2))).relu()).permute(0, 2, 3, 1)
        return maps.mean((1, 2, 3)) if self.kind == "scalar" else maps


def errors(outputs: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Return the mean square, the fraction within 0.3, and two numbers of very different size."""
    difference = outputs - y
    return {
        "loss": difference.square().mean(),
        "within": (difference.abs() < 0.3).float().mean(),
        "absolute": difference.abs().mean(),
        "huge": difference.square().mean() * 1e12,
    }


OBJECTIVE = Objective(errors, fractions=("within",), means=("absolute", "huge"))


def write_shards(folder: Path, n_shards: int, n_rows: int, kind: str, seed: int) -> None:
    """Write images and what is to be found in them: a mean, or means by tile, with noise."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for k in range(n_shards):
        x = rng.normal(size=(n_rows, SIDE, SIDE, 2)).astype(np.float32)
        x += rng.normal(size=(n_rows, TILES, TILES, 1)).repeat(4, 1).repeat(4, 2)
        tiles = x[..., :1].reshape(n_rows, TILES, 4, TILES, 4, 1).mean((2, 4))
        y = tiles if kind == "map" else tiles.mean((1, 2, 3))
        np.save(folder / f"x{k}.npy", x)
        np.save(folder / f"y{k}.npy", y + rng.normal(0, 0.2, y.shape))


def write_data(folder: Path, kind: str) -> Path:
    write_shards(folder / "train", *N_TRAIN, kind, 1)
    write_shards(folder / "valid", *N_VALID, kind, 2)
    return folder


def read_shards(folder: Path, kind: str, **more: Any) -> Shards:
    files = [(x, x.with_name(f"y{x.name[1:]}")) for x in sorted(folder.glob("x*.npy"))]
    return Shards(files, (SIDE, SIDE, 2), TARGETS[kind], window=12, **more)


@dataclass
class Call:
    """What a training is called with; `data` has the folders train and valid."""

    data: Path
    out: Path
    kind: str = "scalar"
    settings: TrainingSettings = SETTINGS
    objective: Objective = OBJECTIVE
    every: int = EVERY
    valid: bool = True
    team: Team | None = None
    start: Path | None = None
    seed: int = 1
    assembly: bool = True
    optimizer: MakeOptimizer | None = None

    def words(self) -> dict[str, Any]:
        """Return the arguments of `fit` besides network, stream and files."""
        shards = read_shards(self.data / "valid", self.kind)
        return {
            "device": device.configure("cpu", 1, "portable"),
            "log": LOG,
            "progress": partial(Progress, log=LOG),
            "team": self.team,
            "validation": Validation(shards, every=self.every, rows=5) if self.valid else None,
            "assembly": Symmetries(maps=self.kind == "map") if self.assembly else None,
            "optimizer": self.optimizer,
        }

    def fit(self) -> tuple[nn.Module, History]:
        network = Convolutions(self.kind, self.seed)
        shards = read_shards(self.data / "train", self.kind)
        files = TrainingFiles(self.out, "key", "c", self.start)
        history = fit(
            network, shards, self.objective, self.settings, files,
            stream=partial(stream, self.seed), **self.words(),
        )  # fmt: skip
        return network, history


def run(call: Call) -> dict[str, bytes]:
    """Train; return weights, history and checkpoints as bytes by name."""
    network, history = call.fit()
    found = {f"weights {n}": value.numpy().tobytes() for n, value in network.state_dict().items()}
    found |= dict(as_bytes(history.columns(STEPS_PER_EPOCH)))
    return found | {path.name: path.read_bytes() for path in (call.out / "ckpts/key").iterdir()}


def as_bytes(columns: Mapping[str, np.ndarray]) -> Iterator[tuple[str, bytes]]:
    for name, values in columns.items():
        yield f"column {name}", values.tobytes()


def stopping_after(n_calls: int) -> Objective:
    """Return the objective, which pulls the plug at its call number `n_calls`."""
    calls = 0

    def interrupted(outputs: Tensor, y: Tensor) -> dict[str, Tensor]:
        nonlocal calls
        calls += 1
        if calls > n_calls:
            raise KeyboardInterrupt
        return errors(outputs, y)

    return replace(OBJECTIVE, function=interrupted)


def main(ranks: int, data: Path, out: Path, kind: str) -> None:
    comm = connect(ranks)
    team = Team(comm, torch.device("cpu"))
    network, history = Call(data, out, kind, team=team).fit()
    team.leave()
    every = comm.allgather([value.numpy().tobytes() for value in network.state_dict().values()])
    assert all(weights == every[0] for weights in every)
    if comm.rank == 0:
        checkpoint.write(out / "model.safetensors", network.state_dict(), {"format": "test"})
        write.csv(out / "history.csv", history.columns(STEPS_PER_EPOCH))


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
