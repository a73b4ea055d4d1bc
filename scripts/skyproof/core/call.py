"""One call of a stage, as given on the command line, and the cache key of its products."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from skyproof.core import atomic
from skyproof.core.numerics import threads_of
from skyproof.core.options import StageOptions

# Larger inputs enter the cache key by size and time; block indexes and catalogues by content.
_HASHED_INPUT_BYTES = 16 << 20


@dataclass(frozen=True)
class Call:
    """The arguments of one call of a stage."""

    stage: str
    inputs: dict[str, list[Path]]
    outputs: dict[str, list[Path]]
    options: StageOptions
    ranks: int = 1
    threads: int = 1
    device: str = "cpu"
    code: str = ""
    libraries: Mapping[str, str] = field(default_factory=dict)
    wildcards: Mapping[str, str] = field(default_factory=dict)  # of the workflow's job
    debug: bool = False

    def first_output(self) -> Path:
        """Return the first path of the first declared output that was given."""
        declared = type(self.options).outputs
        return next(path for name in declared for path in self.outputs.get(name, []))


def input_identities(call: Call) -> dict[str, list[str]]:
    """Return the identities of the input files, by the name of the input.

    The identity is the SHA-256 of a file of at most 16 MiB, size and modification time of a larger
    file, and the name of a folder.
    """
    return {name: [_identity(path) for path in paths] for name, paths in call.inputs.items()}


def _identity(path: Path) -> str:
    if path.is_dir():
        return path.name
    status = path.stat()
    if status.st_size <= _HASHED_INPUT_BYTES:
        return atomic.sha256_of(path)
    return f"{status.st_size} bytes at {status.st_mtime_ns}"


def cache_key(call: Call, inputs: Mapping[str, Sequence[str]]) -> str:
    """Return the SHA-256 of everything that determines the products of a call.

    This is the stage, its code, its options, the identities of its `inputs`, and the device. The
    number of threads enters if it changes the result. A killed job therefore does not continue
    from the products of another device.
    """
    content = {
        "stage": call.stage,
        "code": call.code,
        "options": call.options.deciding(),
        "inputs": dict(inputs),
        "device": call.device,
        "threads": threads_of(call.options.numerics, call.threads),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
