"""Collect facts about a node: `python -m skyproof.workflow.doctor.probe FOLDER [gpu]`.

Each rank writes one small JSON file into FOLDER, which `doctor` must be able to read. This module
runs in the environment of the jobs; therefore its first imports are of the standard library only.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import socket
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from skyproof.core import mpi
from skyproof.workflow.code import package_digest

# Time limit of the start of MPI, shorter than the default of --patience.
_START_S = "60"


def probe(world: tuple[int, int, str], with_gpu: bool) -> dict[str, Any]:
    """Return the facts of this rank: its world (rank, ranks, problem), node and package."""
    rank, ranks, problem = world
    return {
        "rank": rank,
        "ranks": ranks,
        "mpi_problem": problem,
        "node": os.environ.get("SLURMD_NODENAME") or socket.gethostname(),
        "time": time.time(),
        "package": package_digest(),
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)),
        "apptainer": shutil.which("apptainer") or "",
        "fuse": os.access("/dev/fuse", os.R_OK | os.W_OK),
        "gpu": _gpu() if with_gpu else {},
    }


def _world(give_up: Callable[[Exception], None]) -> tuple[int, int, str]:
    """Return rank and size of the MPI world, and the problem if it could not be started."""
    os.environ.setdefault(mpi.LIMIT_NAME, _START_S)
    try:
        world = mpi.start("the ranks", give_up).COMM_WORLD
        return int(world.Get_rank()), int(world.Get_size()), ""
    except Exception as error:
        return 0, 1, f"{type(error).__name__}: {error}"


def _gpu() -> dict[str, Any]:
    """Return the GPUs that the batch system assigned, and those that torch sees."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    try:
        import torch
    except Exception as error:
        return {"given": given, "seen": [], "problem": f"{type(error).__name__}: {error}"}
    seen: list[str] = []
    with suppress(Exception):
        seen = [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())]
    build = "" if torch.version.cuda else "torch is a build without CUDA"
    return {"given": given, "seen": seen, "problem": build}


def main(words: list[str]) -> int:
    """Write the file of this rank. Its name is unique also for ranks of separate worlds."""
    folder, with_gpu = Path(words[0]), "gpu" in words[1:]

    def give_up(problem: Exception) -> None:
        _write(folder, probe((0, 1, str(problem)), with_gpu))
        os._exit(0)

    _write(folder, probe(_world(give_up), with_gpu))
    return 0


def _write(folder: Path, found: Mapping[str, Any]) -> None:
    path = folder / f"{found['node']}-{os.getpid()}.json"
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps(found), encoding="utf-8")
    temporary.rename(path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
