"""Receipts of jobs: outputs, inputs, code, options, time and host, beside the first output.

The process that commits the outputs writes the receipt once, while they are in the page cache. It
is of class "log": it contains times and hosts and is not hashed. The manifest is collected from the
receipts and the block indexes (see `proof/collect.py`).
"""

from __future__ import annotations

import logging
import os
import platform
import shlex
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from skyproof.core import atomic
from skyproof.core.blocks import LOG_FOLDER
from skyproof.core.call import Call
from skyproof.core.errors import is_machine_problem
from skyproof.core.formats import contents
from skyproof.core.formats import write as writers
from skyproof.core.options import affects_results, home_of

FORMAT = "skyproof-receipt-2"
SUFFIX = ".receipt.json"

# Variables that describe the batch job, the container and the command of the whole workflow.
_JOB_VARIABLES = (
    *("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_CLUSTER_NAME"),
    "SLURM_STEP_NODELIST",
    *("PBS_JOBID", "APPTAINER_CONTAINER", "SINGULARITY_CONTAINER", "SKYPROOF_WORKFLOW"),
)


def path_of(output: Path) -> Path:
    """Return the path of the receipt of a job with this first output."""
    return output.parent / LOG_FOLDER / f"{output.name}{SUFFIX}"


def write(
    call: Call,
    made: Mapping[Path, Path],
    identities: Mapping[str, Sequence[str]],
    started: datetime,
    notes: Mapping[str, Any],
    log: logging.Logger,
) -> None:
    """Write the receipt of a job; `made` maps the temporary outputs to their final names.

    `notes` describes how the stage computed (`Context.note`).

    A failed write (full disk, permissions) raises OSError, as for any output. No other error here
    may fail a stage: it is logged, and the manifest reports the missing receipt.
    """
    try:
        first = call.first_output()
        receipt = _receipt(call, made, identities, started, first.parent)
        receipt["notes"] = dict(notes)
        with atomic.replacing(path_of(first)) as temporary:
            writers.json(temporary, receipt)
    except Exception as error:
        if is_machine_problem(error):
            raise
        log.warning("no receipt was written: %s: %s", type(error).__name__, error)


def _receipt(
    call: Call,
    made: Mapping[Path, Path],
    identities: Mapping[str, Sequence[str]],
    started: datetime,
    folder: Path,
) -> dict[str, Any]:
    temporary = {final: path for path, final in made.items()}
    options = call.options.deciding()
    fields = type(call.options).model_fields
    others = {
        name: value
        for name, value in call.options.model_dump(mode="json").items()
        if not affects_results(fields[name])
    }
    return {
        "format": FORMAT,
        "stage": call.stage,
        "code": call.code,
        "options": {k: v for k, v in options.items() if home_of(fields[k]) != "job"},
        "job_options": {k: v for k, v in options.items() if home_of(fields[k]) == "job"},
        "numerics": call.options.numerics,
        "device": call.device,
        "libraries": dict(call.libraries),
        "inputs": [
            {"name": name, "path": _relative(path, folder), **_input(path, identity)}
            for name, paths in call.inputs.items()
            for path, identity in zip(paths, identities[name], strict=True)
        ],
        "outputs": [
            {"name": name, "path": _relative(path, folder), **contents.fingerprint(temporary[path])}
            for name, paths in call.outputs.items()
            for path in paths
        ],
        "run": {"grain": others, **_run(call, started)},
    }


def _relative(path: Path, folder: Path) -> str:
    """Return a path relative to the folder of the first output, so that a run can be moved."""
    return Path(os.path.relpath(path.absolute(), folder.absolute())).as_posix()


def _input(path: Path, identity: str) -> dict[str, Any]:
    if path.is_dir():
        return {"folder": True}
    known = {"sha256": identity} if len(identity) == 64 else {}
    return {"size": path.stat().st_size, **known}


def _run(call: Call, started: datetime) -> dict[str, Any]:
    """Return the values that differ between runs; they do not enter the root of a manifest."""
    return {
        "started": started.isoformat(timespec="milliseconds"),
        "ended": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "wildcards": dict(call.wildcards),
        "ranks": call.ranks,
        "threads": call.threads,
        "host": socket.gethostname(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": _processor(),
        "python": platform.python_version(),
        "gpu": _gpu() if call.device == "cuda" else None,
        "command": shlex.join(["python", "-m", "skyproof", *sys.argv[1:]]),
        "environment": {name: os.environ[name] for name in _JOB_VARIABLES if name in os.environ},
    }


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def _gpu() -> str | None:
    torch = sys.modules.get("torch")  # imported by the stage, else no GPU was used
    with suppress(Exception):
        return str(torch.cuda.get_device_name(0)) if torch else None
    return None
