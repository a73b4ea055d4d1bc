"""What `doctor` wants to know of a node: `python -m skyproof.workflow.probe FOLDER [gpu]`.

Each rank writes one small JSON file into FOLDER, which has to be seen where the doctor waits. This
runs in the environment of the jobs, hence it starts with the standard library only.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from skyproof.workflow.code import package_digest


def probe(with_gpu: bool) -> dict[str, Any]:
    """Return what this rank sees of its world, its node and the package."""
    rank, ranks, problem = _world()
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


def _world() -> tuple[int, int, str]:
    """Return rank and size of the MPI world, or what keeps this process out of it."""
    try:
        from mpi4py import MPI

        return int(MPI.COMM_WORLD.Get_rank()), int(MPI.COMM_WORLD.Get_size()), ""
    except Exception as error:
        return 0, 1, f"{type(error).__name__}: {error}"


def _gpu() -> dict[str, Any]:
    """Return which GPUs the batch system gave, and what torch sees of them."""
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
    """Write the file of this rank; its name is unique even where ranks do not know each other."""
    folder = Path(words[0])
    found = probe(with_gpu="gpu" in words[1:])
    path = folder / f"{found['node']}-{os.getpid()}.json"
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps(found), encoding="utf-8")
    temporary.rename(path)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
