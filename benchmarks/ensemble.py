"""The batched ensemble compared with single networks: CPU time of an epoch, its parts, memory.

Every measurement is a separate process, under the numerics that it measures. CPU time of all
threads is what counts, the least of some repeats: a shared machine disturbs it least.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import UNCOMPILED, Result, Row
from skyproof.core import numerics
from skyproof.core.seeds import stream

FEATURES, BATCH = 8, 512
STRUCTURE = (4, 20)
WHOLE = "a member's epoch, training and validation"
REST = "remainder: step sizes, statistics, best epoch"


@dataclass(frozen=True)
class Size:
    """Rows of the table and its parts, networks of a group, and repeats (the fastest counts)."""

    rows: int = 41_653
    train: int = 24_991
    valid: int = 8_331
    group: int = 25
    repeats: int = 3
    loader_steps: int = 12  # of the plain loops; an epoch has 49
    members: tuple[int, ...] = (1, 10, 100)
    compiles: bool = True

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return -(-self.train // BATCH)


TINY = Size(
    rows=1200,
    train=600,
    valid=300,
    group=2,
    repeats=1,
    loader_steps=1,
    members=(2,),
    compiles=False,
)


def run(size: Size) -> Result:
    """Measure; each row gives its numerics."""
    measure = partial(child, size)
    portable = measure("portable", "parts")
    native = measure("native", "parts")
    compiled = measure("native", "compiled")
    plain = measure("portable", "plain")
    members = {n: measure("portable", "members", n) for n in size.members}
    twice = measure("portable", "rows", 2)["ms"] / measure("portable", "rows", 1)["ms"]
    rows = [
        Row(f"portable, {what}", value, "CPU-ms", any_sign=what == REST)
        for what, value in portable.items()
    ]
    rows += [
        Row(f"native, {WHOLE}", native[WHOLE], "CPU-ms"),
        Row(f"native, compiled, {WHOLE}", compiled[WHOLE], "CPU-ms"),
        Row("first step of a compiled ensemble", compiled["first"], "s"),
    ]
    rows += [Row(f"{what} (extrapolated)", value, "CPU-ms") for what, value in plain.items()]
    rows += [
        Row(f"{what} / ensemble, portable", value / portable[WHOLE], "x")
        for what, value in plain.items()
    ]
    rows += [
        Row(f"{n} members in groups of {n}, each", found["ms"], "CPU-ms")
        for n, found in members.items()
    ]
    rows += [Row(f"peak memory, {n} members", found["MiB"], "MiB") for n, found in members.items()]
    rows.append(Row("time of twice the rows / time", twice, "x", "about 2"))
    shape = f"{FEATURES} features, {STRUCTURE}, {size.train} rows in batches of {BATCH}"
    return Result(f"ensembles: an epoch of a member; {shape}, groups of {size.group}", rows)


def child(size: Size, profile: str, what: str, number: int = 0) -> dict[str, float]:
    """Run one measurement in a process whose libraries start with the right settings."""
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks.ensemble", what, str(number), json.dumps(asdict(size))],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env={
            **os.environ,
            **numerics.environment(profile, 1),
            **({} if size.compiles else UNCOMPILED),
            "SKYPROOF_PROFILE": profile,
        },
    )
    return json.loads(result.stdout)


def cpu_ms(work: Callable[[], object], repeats: int) -> float:
    """Return the smallest CPU time of some repeats."""
    taken = []
    for _ in range(repeats):
        begin = time.process_time()
        work()
        taken.append(time.process_time() - begin)
    return min(taken) * 1e3


def make_group(size: Size, n: int, scale: int = 1, *, compile: bool = False) -> Any:
    """Return an ensemble of `n` members on noise with a trend."""
    import torch

    from skyproof.learn import device
    from skyproof.learn.ensemble import EnsembleGroup, EnsembleMember, EnsembleSettings
    from skyproof.learn.ensemble.rows import EnsembleRows
    from skyproof.sysnet.network import row_loss, row_slope, shape_of

    where = device.configure("cpu", 1, os.environ["SKYPROOF_PROFILE"])
    rng = np.random.default_rng(1)
    x = rng.standard_normal((size.rows * scale, FEATURES), np.float32)
    weight = rng.uniform(0.2, 1, len(x)).astype(np.float32)
    label = rng.poisson(weight * np.exp(0.2 * x[:, 0])).astype(np.float32)
    rows = EnsembleRows(x, label, weight)
    members = []
    for key in range(n):
        chosen = rng.permutation(len(x))
        train, valid = np.split(chosen, [size.train * scale])[:2]
        members.append(EnsembleMember(key, rows, train, valid[: size.valid * scale], 0.01))
    kind = ("dnnp", "pnll", "poisson")
    settings = EnsembleSettings(
        shape_of("dnnp", STRUCTURE, FEATURES), row_loss(*kind), BATCH, 1, n,
        slope=row_slope(*kind), schedule="cosine", least_rate=1e-5, compile=compile,
    )  # fmt: skip
    group = EnsembleGroup(
        members, settings, partial(stream, 1), where, logging.getLogger("benchmark")
    )
    torch.manual_seed(0)
    return group


def parts(_: int, size: Size) -> dict[str, float]:
    """Return CPU-ms per member of an epoch, and of its parts."""
    group = make_group(size, size.group)
    group.run_epoch()
    taken = list(group.batches())
    found = group.step(group.parameters, taken[0][1])
    rate, active = np.full(size.group, 0.01), np.ones(size.group, bool)
    least = partial(cpu_ms, repeats=size.repeats)
    gathered = least(lambda: list(group.batches()))
    steps = least(lambda: [group.step(group.parameters, batch) for _, batch in taken])
    moves = least(lambda: [group.optimiser.step(found.flat, rate, active) for _ in taken])
    judged = least(group._validate)
    whole = least(group.run_epoch)
    known = {
        "order and gather of the rows": gathered,
        "forward and backward": steps,
        "optimiser": moves,
        "validation": judged,
    }
    rest = {REST: whole - sum(known.values())}
    total = {WHOLE: whole}
    return {what: value / size.group for what, value in (known | rest | total).items()}


def compiled(_: int, size: Size) -> dict[str, float]:
    """Return CPU-ms per member of an epoch with a compiled step, and seconds of the first step."""
    group = make_group(size, size.group, compile=True)
    begin = time.perf_counter()
    next(iter(group.step(group.parameters, batch) for _, batch in group.batches()))
    first = time.perf_counter() - begin
    group.run_epoch()
    whole = cpu_ms(group.run_epoch, size.repeats) / size.group
    return {"first": first, WHOLE: whole}


def members(n: int, size: Size) -> dict[str, float]:
    """Return CPU-ms per member of an epoch of `n` members, and the peak memory."""
    group = make_group(size, n)
    group.run_epoch()
    return {"ms": cpu_ms(group.run_epoch, size.repeats) / n, "MiB": peak_mib()}


def rows(scale: int, size: Size) -> dict[str, float]:
    """Return CPU-ms of an epoch of `scale` times as many rows."""
    group = make_group(size, size.group, scale)
    group.run_epoch()
    return {"ms": cpu_ms(group.run_epoch, size.repeats) / size.group}


def plain(_: int, size: Size) -> dict[str, float]:
    """Return CPU-ms of an epoch of one network by torch's modules, from a few of its steps.

    Once with a loader that takes rows one by one and collates them, as the original's does, once
    with batches sliced from arrays.
    """
    import torch
    from torch import nn

    group = make_group(size, 1)
    rows = group.members[0].rows
    units = STRUCTURE[1]
    layers: list[nn.Module] = []
    for i in range(STRUCTURE[0] - 1):
        layers += [nn.Linear(units if i else FEATURES, units), nn.ReLU(), nn.BatchNorm1d(units)]
    network = nn.Sequential(*layers, nn.Linear(units, 1), nn.Softplus())
    optimiser = torch.optim.AdamW(network.parameters(), lr=0.01, weight_decay=0)
    table = list(zip(rows.x, rows.y, rows.weight, strict=True))
    loader = torch.utils.data.DataLoader(table, BATCH, shuffle=True)

    def steps(batches: Any) -> None:
        for _, (x, y, weight) in zip(range(size.loader_steps), batches, strict=False):
            expected = network(x)[:, 0] * weight
            loss = (weight * (expected - y * torch.log(expected + 1e-8))).sum()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()

    tensors = [torch.from_numpy(values).split(BATCH) for values in (rows.x, rows.y, rows.weight)]
    least = partial(cpu_ms, repeats=size.repeats)
    share = size.steps / size.loader_steps
    return {
        "one network, rows one by one": least(lambda: steps(loader)) * share,
        "one network, sliced arrays": least(lambda: steps(zip(*tensors, strict=True))) * share,
    }


def peak_mib() -> float:
    """Return the peak memory of this process."""
    status = Path("/proc/self/status").read_text()
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(peak.split()[1]) / 1024


if __name__ == "__main__":
    size = Size(**json.loads(sys.argv[3]))
    measures = {f.__name__: f for f in (parts, compiled, members, rows, plain)}
    sys.stdout.write(json.dumps(measures[sys.argv[1]](int(sys.argv[2]), size)))
