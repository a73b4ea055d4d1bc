"""Training on one rank and on two of the same machine: speed-up by a second core.

Also what the exact reduction costs, beside a sum of floats. Each measurement starts the ranks anew;
the first epoch of each warms up and is not counted.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks import Result, Row
from benchmarks.training import BANDS, write_shards
from skyproof.core import numerics
from skyproof.core.seeds import stream

BATCH, MICRO_BATCH = 16, 8


@dataclass(frozen=True)
class Size:
    """Rows of an epoch, and number of alternating repeats (other work may slow one)."""

    n_shards: int = 4
    rows: int = 160
    repeats: int = 5


TINY = Size(n_shards=1, rows=16, repeats=1)


def run(size: Size) -> Result:
    """Measure images per second on 1 and 2 ranks, with exact and with plain sums on 1."""
    cases = {"1 rank": (1, "exact"), "2 ranks": (2, "exact"), "1 rank, plain sums": (1, "plain")}
    taken: dict[str, list[float]] = {what: [] for what in cases}
    with tempfile.TemporaryDirectory() as name:
        write_shards(Path(name), size.n_shards, size.rows, BANDS)
        for _ in range(size.repeats):
            for what, (ranks, sums) in cases.items():
                taken[what].append(launch(ranks, sums, name))
    seconds = {what: statistics.median(values) for what, values in taken.items()}
    gain = [one / two for one, two in zip(taken["1 rank"], taken["2 ranks"], strict=True)]
    cost = seconds["1 rank"] / seconds["1 rank, plain sums"]
    n_rows = size.n_shards * size.rows
    rows = [Row(what, n_rows / value, "images/s") for what, value in seconds.items()]
    rows += [
        Row("speed of 2 ranks / speed of 1 rank, median of the rounds",
            statistics.median(gain), "x", ">= 1.6"),
        Row("time with exact sums / time with plain sums, 1 rank", cost, "x"),
    ]  # fmt: skip
    name = f"ranks: 64 x 64 x {2 * BANDS} stamps, batches of {BATCH} in pieces of {MICRO_BATCH}"
    return Result(name, rows)


def launch(ranks: int, sums: str, folder: str) -> float:
    """Return the seconds of an epoch on `ranks` ranks, measured by rank 0."""
    mpiexec = Path(sys.executable).parent / "mpiexec"
    result = subprocess.run(
        [mpiexec, "-n", str(ranks), sys.executable, "-m", "benchmarks.ranks",
         str(ranks), sums, folder],
        check=True, stdout=subprocess.PIPE, text=True, timeout=600,
        env={**os.environ, **numerics.environment("portable", 1)},
    )  # fmt: skip
    return json.loads(result.stdout)


def train(ranks: int, sums: str, folder: Path) -> None:
    """Train two epochs; rank 0 prints the seconds of the second one."""
    import torch

    from skyproof.core.comm import connect
    from skyproof.learn import device
    from skyproof.learn.inputs import Symmetries
    from skyproof.learn.reduce import Team
    from skyproof.learn.settings import TrainingSettings
    from skyproof.learn.shards import ClassNumbers, Shards, Share
    from skyproof.learn.step import Forward, TrainingStep
    from skyproof.obiwan.network import OBJECTIVE, StampClassifier, initialise

    comm = connect(ranks)
    where = device.configure("cpu", 1, "portable")
    files = [(x, x.with_name(f"y{x.name[1:]}")) for x in sorted(folder.glob("x*.npy"))]
    network = StampClassifier(BANDS, "code")
    initialise(network, partial(stream, 1))
    network.normalise.fit([x for x, _ in files])
    settings = TrainingSettings(
        n_epochs=2, batch=BATCH, micro_batch=MICRO_BATCH, learning_rate=1e-3, exact=sums == "exact"
    )
    shards, team = Shards(files, (64, 64, 2 * BANDS), ClassNumbers(2)), Team(comm, where)
    assembly = Symmetries()
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    forward = Forward(network, OBJECTIVE, settings, where, assembly)
    step = TrainingStep(forward, optimizer, settings, team)
    share = Share(MICRO_BATCH, team.rank, team.size)
    per_epoch, begin = shards.steps(BATCH), 0.0
    for batch in shards.batches(partial(stream, 1), BATCH, 2, draw=assembly.draw, share=share):
        if batch.step == per_epoch:
            begin = time.perf_counter()
        step(batch, settings.learning_rate)
    taken = time.perf_counter() - begin
    team.leave()
    if team.rank == 0:
        sys.stdout.write(json.dumps(taken))


if __name__ == "__main__":
    train(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
