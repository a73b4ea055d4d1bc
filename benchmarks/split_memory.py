"""Peak memory of the split: it must not grow with the number of bricks."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from skyproof.core import blocks
from skyproof.core.atomic import sha256_of
from skyproof.core.formats import write
from skyproof.obiwan import survey
from skyproof.obiwan.bricks import grid
from skyproof.obiwan.stamps.geometry import HALF, STAMP
from skyproof.obiwan.stamps.reader import CLASSES
from skyproof.obiwan.stamps.writer import write_stamps
from skyproof.sky.tan import Tan, footprint_info

BANDS = "grz"
N_BRICKS = (4, 64)
N_STAMPS = 40  # of each class and brick
PIXELS = 1000

# A parent of its own: the peak of a child begins at the size of the process that started it.
_MEASURE = (
    "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True);"
    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
)


def run() -> dict[str, Any]:
    """Split 4 and 64 bricks of equal size, each in one process, and compare the peaks."""
    peaks = []
    for n_bricks in N_BRICKS:
        with tempfile.TemporaryDirectory() as name:
            peaks.append(peak_mib(Path(name), n_bricks))
    rows: list[dict[str, Any]] = [
        {"what": f"peak memory, {n} bricks in one block", "value": peak, "unit": "MiB"}
        for n, peak in zip(N_BRICKS, peaks, strict=True)
    ]
    rows.append({"what": "ratio", "value": peaks[1] / peaks[0], "target": "about 1"})
    name = f"split: memory with {N_STAMPS} stamps of each class a brick, bands {BANDS}"
    return {"name": name, "rows": rows}


def peak_mib(folder: Path, n_bricks: int) -> float:
    """Write the stamps of so many bricks, split them; return the peak of the split [MiB]."""
    record, table = write_stamp_tree(folder, n_bricks), folder / "membership.csv"
    stage("obiwan.assign", "--in", f"cutouts={record}", "--out", f"membership={table}")
    words = ["--in", f"cutouts={record}", f"membership={table}", "--out"]
    return stage("obiwan.split", *words, f"split={folder / 'split.json'}", "--bands", BANDS)


def write_stamp_tree(folder: Path, n_bricks: int) -> Path:
    """Write random stamps as obiwan.cutouts does; return the record."""
    items = {
        name: {
            "info": footprint_info(tan) | {f"n_{kind}": N_STAMPS for kind in CLASSES},
            "files": [write_class(folder, name, tan, label) for label in range(len(CLASSES))],
        }
        for name, tan in grid.synthetic_bricks(n_bricks, PIXELS)
    }
    record = folder / "cutouts.json"
    write.json(record, {"format": blocks.FORMAT, "items": items})
    return record


def write_class(folder: Path, brick: str, tan: Tan, label: int) -> dict[str, Any]:
    """Write the stamps of one class of a brick; return the file's entry in the record."""
    draw = np.random.default_rng([label, *brick.encode()])
    table = np.zeros(N_STAMPS, survey.stamp_dtype(BANDS))
    table["id"], table["brick"], table["label"] = np.arange(N_STAMPS), brick.encode(), label
    for name in "xy":
        table[name] = draw.uniform(HALF, PIXELS - HALF - 1, N_STAMPS)
    table["ra"], table["dec"] = tan.sky(table["x"], table["y"])
    shape = (N_STAMPS, STAMP, STAMP, len(BANDS))
    img = draw.standard_normal(shape, dtype=np.float32)
    relative = f"{CLASSES[label]}/hdf5/{survey.brick_folder(brick)}/{brick}/img_ivar_{BANDS}.hdf5"
    path = folder / relative
    path.parent.mkdir(parents=True, exist_ok=True)
    write_stamps(path, img, np.ones_like(img), table, "array")
    return {"path": relative, "size": path.stat().st_size, "sha256": sha256_of(path)}


def stage(*words: str) -> float:
    """Run a stage in a process of its own and return its peak memory [MiB]."""
    package = Path(write.__file__).parents[2]
    result = subprocess.run(
        [sys.executable, "-c", _MEASURE, sys.executable, "-m", "skyproof", *words],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(package)},
    )
    return int(result.stdout) / 1024  # Linux counts in KiB
