"""Monitoring of a training: scalars for TensorBoard, profiler traces of a few steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from skyproof.learn.reduce import Team

WriteScalars = Callable[[Mapping[str, float], int], None]  # (values by name, steps done)


@contextmanager
def scalars(folder: Path, first: int, team: Team) -> Iterator[WriteScalars]:
    """Yield a writer of TensorBoard scalars; a resume hides values after its checkpoint."""
    if team.rank:
        yield lambda values, step: None
        return
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder), purge_step=first + 1 if first else None)

    def write(values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, step)

    try:
        yield write
    finally:
        writer.close()


@contextmanager
def profiler(folder: Path, steps: int, device: torch.device, team: Team) -> Iterator[Any]:
    """Trace a few steps of rank 0, after one warm-up step, in a file for chrome://tracing."""
    if steps == 0 or team.rank:
        yield _NoProfiler()
        return
    folder.mkdir(parents=True, exist_ok=True)
    kinds = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        kinds.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(
        activities=kinds,
        schedule=torch.profiler.schedule(wait=0, warmup=1, active=steps, repeat=1),
        on_trace_ready=lambda done: done.export_chrome_trace(str(folder / "trace.json")),
    ) as running:
        yield running


class _NoProfiler:
    def step(self) -> None:
        pass
