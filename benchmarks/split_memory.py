"""Peak memory of the split: it must not grow with the number of bricks."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import Result, Row
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
PIXELS = 1000


@dataclass(frozen=True)
class Size:
    """Bricks of the small and of the large split; stamps of each class and brick."""

    n_bricks: tuple[int, int] = (4, 64)
    n_stamps: int = 40


TINY = Size(n_bricks=(2, 3), n_stamps=4)

# A separate parent: the peak of a child starts at the size of the process that started it.
_MEASURE = (
    "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True);"
    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
)


def run(size: Size) -> Result:
    """Split two numbers of bricks of equal size, each in one process, and compare the peaks."""
    peaks = []
    for n_bricks in size.n_bricks:
        with tempfile.TemporaryDirectory() as name:
            peaks.append(peak_mib(Path(name), n_bricks, size.n_stamps))
    rows = [
        Row(f"peak memory, {n} bricks in one block", peak, "MiB")
        for n, peak in zip(size.n_bricks, peaks, strict=True)
    ]
    rows.append(Row("ratio", peaks[1] / peaks[0], "x", "about 1"))
    name = f"split: memory with {size.n_stamps} stamps of each class a brick, bands {BANDS}"
    return Result(name, rows)


def peak_mib(folder: Path, n_bricks: int, n_stamps: int) -> float:
    """Write the stamps of the bricks, split them; return the peak of the split [MiB]."""
    index, table = write_bricks(folder, n_bricks, n_stamps), folder / "membership.csv"
    stage("obiwan.assign", "--in", f"cutouts={index}", "--out", f"membership={table}")
    words = ["--in", f"cutouts={index}", f"membership={table}", "--out"]
    return stage("obiwan.split", *words, f"split={folder / 'split.json'}", "--bands", BANDS)


def write_bricks(folder: Path, n_bricks: int, n_stamps: int) -> Path:
    """Write random stamps as obiwan.cutouts does; return the block index."""
    items = {
        name: {
            "info": footprint_info(tan) | {f"n_{kind}": n_stamps for kind in CLASSES},
            "files": [
                write_class(folder, name, tan, label, n_stamps) for label in range(len(CLASSES))
            ],
        }
        for name, tan in (
            (brick.name, grid.brick_tan(brick, PIXELS)) for brick in grid.survey_bricks(n_bricks)
        )
    }
    index = folder / "cutouts.json"
    write.json(index, {"format": blocks.FORMAT, "items": items})
    return index


def write_class(folder: Path, brick: str, tan: Tan, label: int, n_stamps: int) -> dict[str, Any]:
    """Write the stamps of one class of a brick; return the file's entry of the block index."""
    draw = np.random.default_rng([label, *brick.encode()])
    table = np.zeros(n_stamps, survey.stamp_dtype(BANDS))
    table["id"], table["brick"], table["label"] = np.arange(n_stamps), brick.encode(), label
    for name in "xy":
        table[name] = draw.uniform(HALF, PIXELS - HALF - 1, n_stamps)
    table["ra"], table["dec"] = tan.sky(table["x"], table["y"])
    shape = (n_stamps, STAMP, STAMP, len(BANDS))
    img = draw.standard_normal(shape, dtype=np.float32)
    relative = f"{CLASSES[label]}/hdf5/{survey.brick_folder(brick)}/{brick}/img_ivar_{BANDS}.hdf5"
    path = folder / relative
    path.parent.mkdir(parents=True, exist_ok=True)
    write_stamps(path, img, np.ones_like(img), table, "array")
    return {"path": relative, "size": path.stat().st_size, "sha256": sha256_of(path)}


def stage(*words: str) -> float:
    """Run a stage in a separate process and return its peak memory [MiB]."""
    package = Path(write.__file__).parents[2]
    result = subprocess.run(
        [sys.executable, "-c", _MEASURE, sys.executable, "-m", "skyproof", *words],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(package)},
    )
    return int(result.stdout) / 1024  # Linux counts in KiB
