"""Training from streamed shards, compared with a plain loop over arrays; memory by shards.

Each measurement is a separate process, with the threads that it measures. Threads belong to
native numerics, in which a rank takes its batch in one piece and adds in floats; `ranks` measures
the pieces and exact sums of portable numerics.
"""

from __future__ import annotations

import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import Result, Row
from skyproof.core import numerics
from skyproof.core.progress import Progress
from skyproof.core.seeds import stream

BATCH = 16
BANDS = 3
CHECKPOINT_EVERY = 20  # steps; the default is 100
MEMORY_BANDS = 1
OURS = "ours: streamed, with checkpoints"


@dataclass(frozen=True)
class Size:
    """Shards and rows of both measurements; smallest and largest number of shards for memory."""

    shards: int = 4
    rows: int = 160  # 40 steps an epoch
    repeats: int = 5
    threads: tuple[int, ...] = (1, 2)
    memory_shards: tuple[int, int] = (4, 64)
    memory_rows: int = 512


TINY = Size(
    shards=1, rows=16, repeats=1, threads=(1,), memory_shards=(1, 2), memory_rows=16
)  # fmt: skip


def run(size: Size) -> Result:
    """Measure images per second by threads, and the peak memory for few and many shards."""
    rows = []
    for threads in size.threads:
        seconds = child(size, "speed", threads)
        n_rows = size.shards * size.rows
        rows += [
            Row(f"{what}, {threads} threads", n_rows / value, "images/s")
            for what, value in seconds.items()
        ]
        bare = min(value for what, value in seconds.items() if what.startswith("bare"))
        what = f"time of ours / time of the faster bare loop, {threads} threads"
        rows.append(Row(what, seconds[OURS] / bare, "x", "<= 1.3"))
    peaks = [child(size, "memory", n_shards)["MiB"] for n_shards in size.memory_shards]
    rows += [
        Row(f"peak memory, {n} shards of {size.memory_rows} rows", peak, "MiB")
        for n, peak in zip(size.memory_shards, peaks, strict=True)
    ]
    rows.append(Row("ratio", peaks[1] / peaks[0], "x", "about 1"))
    return Result(f"training: 64 x 64 x {2 * BANDS} stamps in batches of {BATCH}", rows)


def child(size: Size, what: str, number: int) -> dict[str, float]:
    """Run one measurement in a process whose libraries start with the right settings."""
    threads = number if what == "speed" else 1
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks.training", what, str(number), json.dumps(asdict(size))],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **numerics.environment("native", threads)},
    )
    return json.loads(result.stdout)


def speed(threads: int, size: Size) -> dict[str, float]:
    """Return the median seconds of an epoch of this and of plain loops, run alternately."""
    from skyproof.learn import device
    from skyproof.obiwan.network import StampClassifier, initialise

    where = device.configure("cpu", threads, "native")
    network = StampClassifier(BANDS, "code")
    initialise(network, partial(stream, 1))
    with tempfile.TemporaryDirectory() as name:
        files = write_shards(Path(name), size.shards, size.rows, BANDS)
        network.normalise.fit([x for x, _ in files])
        loops: dict[str, Callable[[], object]] = {
            OURS: lambda: streamed(network, files, where, Path(name)),
            "bare loop, channels last": bare_loop(network, files, channels_last=True),
            "bare loop, channels first": bare_loop(network, files, channels_last=False),
        }
        taken: dict[str, list[float]] = {what: [] for what in loops}
        for repeat in range(size.repeats + 1):
            for what, loop in loops.items():
                begin = time.perf_counter()
                loop()
                if repeat:  # the first round warms up
                    taken[what].append(time.perf_counter() - begin)
    return {what: statistics.median(values) for what, values in taken.items()}


def memory(n_shards: int, size: Size) -> dict[str, float]:
    """Return the peak memory of training all rows (by default 32,768) out of `n_shards` shards.

    Rows are read, shuffled and turned as always; the network is one layer, which saves minutes.
    """
    import torch

    from skyproof.learn import device

    where = device.configure("cpu", 1, "native")
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64 * 64 * 2, 2))
    with tempfile.TemporaryDirectory() as name:
        files = write_shards(Path(name), n_shards, size.memory_rows, MEMORY_BANDS)
        epochs = max(size.memory_shards) // n_shards
        rows_in = of_any_float(network)
        streamed(rows_in, files, where, Path(name), bands=MEMORY_BANDS, epochs=epochs)
    status = Path("/proc/self/status").read_text()
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return {"MiB": int(peak.split()[1]) / 1024}


def of_any_float(network: Any) -> Any:
    """Return a network that accepts rows of any float type."""
    import torch

    class Float(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network

        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            return self.inner(rows.float())

    return Float()


def write_shards(folder: Path, n_shards: int, rows: int, bands: int) -> list[tuple[Path, Path]]:
    """Write shards of noise with both labels, float16, as obiwan.split does by default."""
    draw = np.random.default_rng(1)
    files = []
    for shard in range(n_shards):
        x = np.abs(draw.standard_normal((rows, 64, 64, 2 * bands), dtype=np.float32)) + 1
        files.append((folder / f"x{shard:03d}.npy", folder / f"y{shard:03d}.npy"))
        np.save(files[-1][0], x.astype(np.float16))
        np.save(files[-1][1], np.arange(rows) % 2.0)
    return files


def streamed(
    network: Any,
    files: list[tuple[Path, Path]],
    where: Any,
    folder: Path,
    *,
    bands: int = BANDS,
    epochs: int = 1,
) -> None:
    """Train with the project's loop: shards, symmetries, checkpoints, TensorBoard, history."""
    from skyproof.learn.inputs import Symmetries
    from skyproof.learn.settings import TrainingFiles, TrainingSettings
    from skyproof.learn.shards import ClassNumbers, Shards
    from skyproof.learn.trainer import fit
    from skyproof.obiwan.network import OBJECTIVE

    settings = TrainingSettings(
        n_epochs=epochs,
        batch=BATCH,
        micro_batch=BATCH,
        exact=False,
        learning_rate=1e-3,
        schedule="cosine",
        checkpoint_every=CHECKPOINT_EVERY if bands == BANDS else 500,
    )
    with tempfile.TemporaryDirectory(dir=folder) as out:
        fit(
            network,
            Shards(files, (64, 64, 2 * bands), ClassNumbers(2)),
            OBJECTIVE,
            settings,
            TrainingFiles(Path(out), "benchmark", "benchmark"),
            stream=partial(stream, 1),
            device=where,
            log=logging.getLogger("benchmark"),
            progress=partial(Progress, log=logging.getLogger("benchmark")),
            assembly=Symmetries(),
        )


def bare_loop(
    network: Any, files: list[tuple[Path, Path]], *, channels_last: bool
) -> Callable[[], None]:
    """Return a plain PyTorch epoch over normalised arrays in memory, without augmentation."""
    import torch

    from skyproof.obiwan.network import loss_and_accuracy

    form = torch.channels_last if channels_last else torch.contiguous_format
    with torch.no_grad():
        stamps = torch.cat([network.normalise(torch.from_numpy(np.load(x))) for x, _ in files])
    labels = torch.cat([torch.from_numpy(np.load(y)).long() for _, y in files])
    batches = [x.contiguous(memory_format=form) for x in stamps.split(BATCH)]
    pairs = list(zip(batches, labels.split(BATCH), strict=True))

    def epoch() -> None:
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, fused=True)
        for x, y in pairs:
            loss = loss_and_accuracy(network.layers(x), y)["loss"]
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

    return epoch


if __name__ == "__main__":
    measure = {"speed": speed, "memory": memory}[sys.argv[1]]
    sys.stdout.write(json.dumps(measure(int(sys.argv[2]), Size(**json.loads(sys.argv[3])))))
