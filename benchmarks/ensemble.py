"""The batched ensemble beside one network at a time: CPU time of an epoch, its parts, memory.

Every measurement is a process of its own, under the numerics that it is about. CPU time of all
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
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from skyproof.core import numerics
from skyproof.core.seeds import stream

ROWS, FEATURES, BATCH = 41_653, 8, 512
STRUCTURE = (4, 20)
TRAIN, VALID = 24_991, 8_331
REPEATS = 3
LOADER_STEPS = 12  # of the plain loops; an epoch has 49
STEPS = -(-TRAIN // BATCH)
GROUP = 25


def run() -> dict[str, Any]:
    """Measure; each row says under which numerics."""
    rows: list[dict[str, Any]] = []
    portable = child("portable", "parts")
    rows += [
        {"what": f"portable, {what}", "value": value, "unit": "CPU-ms"}
        for what, value in portable.items()
    ]
    native = child("native", "parts")
    compiled = child("native", "compiled")
    whole = "a member's epoch, training and validation"
    rows += [
        {"what": f"native, {whole}", "value": native[whole], "unit": "CPU-ms"},
        {"what": f"native, compiled, {whole}", "value": compiled[whole], "unit": "CPU-ms"},
        {"what": "first step of a compiled ensemble", "value": compiled["first"], "unit": "s"},
    ]
    plain = child("portable", "plain")
    rows += [
        {"what": f"{what} (extrapolated)", "value": value, "unit": "CPU-ms"}
        for what, value in plain.items()
    ]
    rows += [
        {"what": f"{what} / ensemble, portable", "value": value / portable[whole]}
        for what, value in plain.items()
    ]
    members = {n: child("portable", "members", n) for n in (1, 10, 100)}
    rows += [
        {"what": f"{n} members in groups of {n}, each", "value": found["ms"], "unit": "CPU-ms"}
        for n, found in members.items()
    ]
    rows += [
        {"what": f"peak memory, {n} members", "value": found["MiB"], "unit": "MiB"}
        for n, found in members.items()
    ]
    twice = child("portable", "rows", 2)["ms"] / child("portable", "rows", 1)["ms"]
    rows.append({"what": "time of twice the rows / time", "value": twice, "target": "about 2"})
    shape = f"{FEATURES} features, {STRUCTURE}, {TRAIN} rows in batches of {BATCH}"
    return {"name": f"ensembles: an epoch of a member; {shape}, groups of {GROUP}", "rows": rows}


def child(profile: str, what: str, number: int = 0) -> dict[str, float]:
    """Run one measurement in a process whose libraries start with the right settings."""
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks.ensemble", what, str(number)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **numerics.environment(profile, 1), "SKYPROOF_PROFILE": profile},
    )
    return json.loads(result.stdout)


def cpu_ms(work: Callable[[], object]) -> float:
    """Return the least CPU time of some repeats."""
    taken = []
    for _ in range(REPEATS):
        begin = time.process_time()
        work()
        taken.append(time.process_time() - begin)
    return min(taken) * 1e3


def make_group(n: int, scale: int = 1, *, compile: bool = False) -> Any:
    """Return an ensemble of `n` members on noise with a trend."""
    import torch

    from skyproof.learn import device
    from skyproof.learn.ensemble import EnsembleGroup, EnsembleMember, EnsembleSettings
    from skyproof.learn.ensemble.rows import EnsembleRows
    from skyproof.sysnet.network import row_loss, row_slope, shape_of

    where = device.configure("cpu", 1, os.environ["SKYPROOF_PROFILE"])
    rng = np.random.default_rng(1)
    x = rng.standard_normal((ROWS * scale, FEATURES), np.float32)
    weight = rng.uniform(0.2, 1, len(x)).astype(np.float32)
    label = rng.poisson(weight * np.exp(0.2 * x[:, 0])).astype(np.float32)
    rows = EnsembleRows(x, label, weight)
    members = []
    for key in range(n):
        chosen = rng.permutation(len(x))
        train, valid = np.split(chosen, [TRAIN * scale])[:2]
        members.append(EnsembleMember(key, rows, train, valid[: VALID * scale], 0.01))
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


def parts(_: int) -> dict[str, float]:
    """Return CPU-ms a member of an epoch, and of its parts."""
    group = make_group(GROUP)
    group.run_epoch()
    taken = list(group.batches())
    found = group.step(group.parameters, taken[0][1])
    rate, active = np.full(GROUP, 0.01), np.ones(GROUP, bool)
    gathered = cpu_ms(lambda: list(group.batches()))
    steps = cpu_ms(lambda: [group.step(group.parameters, batch) for _, batch in taken])
    moves = cpu_ms(lambda: [group.optimiser.step(found.flat, rate, active) for _ in taken])
    judged = cpu_ms(group._validate)
    whole = cpu_ms(group.run_epoch)
    known = {
        "order and gather of the rows": gathered,
        "forward and backward": steps,
        "optimiser": moves,
        "validation": judged,
    }
    rest = {"bookkeeping: step sizes, statistics, best epoch": whole - sum(known.values())}
    total = {"a member's epoch, training and validation": whole}
    return {what: value / GROUP for what, value in (known | rest | total).items()}


def compiled(_: int) -> dict[str, float]:
    """Return CPU-ms a member of an epoch whose step is compiled, and seconds of the first step."""
    group = make_group(GROUP, compile=True)
    begin = time.perf_counter()
    next(iter(group.step(group.parameters, batch) for _, batch in group.batches()))
    first = time.perf_counter() - begin
    group.run_epoch()
    whole = cpu_ms(group.run_epoch) / GROUP
    return {"first": first, "a member's epoch, training and validation": whole}


def members(n: int) -> dict[str, float]:
    """Return CPU-ms a member of an epoch of `n` members, and the peak memory."""
    group = make_group(n)
    group.run_epoch()
    return {"ms": cpu_ms(group.run_epoch) / n, "MiB": peak_mib()}


def rows(scale: int) -> dict[str, float]:
    """Return CPU-ms of an epoch of `scale` times as many rows."""
    group = make_group(GROUP, scale)
    group.run_epoch()
    return {"ms": cpu_ms(group.run_epoch) / GROUP}


def plain(_: int) -> dict[str, float]:
    """Return CPU-ms of an epoch of one network by torch's modules, from a few of its steps.

    Once with a loader that takes rows one by one and collates them, as the original's does, once
    with batches sliced from arrays.
    """
    import torch
    from torch import nn

    group = make_group(1)
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
        for _, (x, y, weight) in zip(range(LOADER_STEPS), batches, strict=False):
            expected = network(x)[:, 0] * weight
            loss = (weight * (expected - y * torch.log(expected + 1e-8))).sum()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()

    tensors = [torch.from_numpy(values).split(BATCH) for values in (rows.x, rows.y, rows.weight)]
    share = STEPS / LOADER_STEPS
    return {
        "one network, rows one by one": cpu_ms(lambda: steps(loader)) * share,
        "one network, sliced arrays": cpu_ms(lambda: steps(zip(*tensors, strict=True))) * share,
    }


def peak_mib() -> float:
    """Return the peak memory of this process."""
    status = Path("/proc/self/status").read_text()
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(peak.split()[1]) / 1024


if __name__ == "__main__":
    measures = {f.__name__: f for f in (parts, compiled, members, rows, plain)}
    sys.stdout.write(json.dumps(measures[sys.argv[1]](int(sys.argv[2]))))
