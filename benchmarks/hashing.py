"""Speed of hashing in `verify`, compared with OpenSSL's SHA-256 in the same run."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks import Result, Row
from skyproof.core import atomic
from skyproof.proof import inventory, manifest
from skyproof.proof.verify import verify


@dataclass(frozen=True)
class Size:
    """Number and size of files, and number of alternating repeats."""

    file_mib: int = 256
    rounds: int = 5


TINY = Size(file_mib=1, rounds=1)


def run(size: Size) -> Result:
    """Verify files that are in the page cache, on one core and on all.

    The rates are for a second of processor time, as `openssl speed` counts, and the programs take
    turns: other load on the machine disturbs them little, and all alike.
    """
    with tempfile.TemporaryDirectory() as name:
        folder, cores = Path(name), inventory.cores()
        write_run(folder, n_files=max(2, cores), file_mib=size.file_mib)
        openssl, one, every, elapsed = [], [], [], []
        for _ in range(size.rounds):
            openssl.append(openssl_rate())
            one.append(verify_rates(folder, 1)[0])
            a_core, whole = verify_rates(folder, cores)
            every.append(a_core)
            elapsed.append(whole)

    def row(what: str, rates: list[float]) -> Row:
        return Row(what, statistics.median(rates), "MB/s")

    def share(what: str, rates: list[float]) -> Row:
        ratio = statistics.median(a / b for a, b in zip(rates, openssl, strict=True))
        return Row(f"  {what}, of OpenSSL", 100 * ratio, "%", ">= 80")

    rows = [
        row("OpenSSL, one thread", openssl),
        row("verify, one thread", one),
        share("one thread", one),
        row(f"verify, {cores} threads, a core", every),
        share(f"{cores} threads", every),
        row(f"verify, {cores} threads, by the clock", elapsed),
    ]
    name = f"hashing: verify of files of {size.file_mib} MiB in the page cache"
    return Result(name, rows)


def write_run(folder: Path, n_files: int, file_mib: int) -> None:
    """Write files of random bytes and a manifest of them."""
    entries = []
    for number in range(n_files):
        path = folder / f"file{number}.npy"
        path.write_bytes(os.urandom(1 << 20) * file_mib)
        entry = {"size": path.stat().st_size, "sha256": atomic.sha256_of(path), "step": 0}
        entries.append({"path": path.name, "stage": "x.y", "class": "bytes", **entry})
    stage = {"code": "", "options": {}, "numerics": "portable", "device": "cpu"}
    outputs = [entry["path"] for entry in entries]
    step = {"stage": "x.y", "options": {}, "inputs": [], "external": [], "outputs": outputs}
    content = {
        "stages": {"x.y": stage},
        "libraries": {},
        "locks": {},
        "steps": [step],
        "trees": {},
        "files": entries,
    }
    manifest.write(folder, content, {})


def verify_rates(folder: Path, threads: int) -> tuple[float, float]:
    """Return the rate of a whole verification by processor time and by the clock [MB/s]."""
    clock, processor = time.perf_counter(), time.process_time()
    report = verify(folder, workers=threads)
    assert report.code == 0
    megabytes = report.found.n_bytes / 1e6
    return megabytes / (time.process_time() - processor), megabytes / (time.perf_counter() - clock)


def openssl_rate() -> float:
    """Return the rate of `openssl speed` on one block of 1 MiB, over and over [MB/s]."""
    program = shutil.which("openssl")
    if program is None:
        raise SystemExit("hashing: needs the program openssl")
    words = ["speed", "-mr", "-seconds", "1", "-bytes", str(1 << 20), "-evp", "sha256"]
    result = subprocess.run([program, *words], capture_output=True, text=True, check=True)
    last = next(line for line in result.stdout.splitlines() if line.startswith("+F:"))
    return float(last.split(":")[-1]) / 1e6
