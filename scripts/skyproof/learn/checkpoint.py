"""Tensors and metadata in one safetensors file: equal content gives equal bytes.

Reading executes no code. `torch.save` is not used: its bytes change after a resume, and reading
unpickles.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from skyproof.core import atomic
from skyproof.core.errors import InputError
from skyproof.core.formats import read as reader
from skyproof.core.formats import write as writers

_KEEP = 2


def write(path: str | Path, tensors: Mapping[str, torch.Tensor], about: Mapping[str, Any]) -> None:
    """Write named tensors and `about` (plain JSON values); a checksum of the tensors is added."""
    arrays = {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}
    writers.safetensors(path, arrays, {**about, "sha256": _digest(arrays)})


def read(path: str | Path, kind: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Return tensors and metadata of a file that `write` made with `about["format"] = kind`.

    Raises InputError if the file has another format or kind, is truncated, or has changed.
    """
    arrays, about = reader.safetensors(path, expected=f"{kind} (.safetensors)")
    if about.get("format") != kind:
        raise InputError(path, f"is {about.get('format', 'of no known format')}", expected=kind)
    if about.pop("sha256", None) != _digest(arrays):
        raise InputError(path, "has changed since it was written", expected="its checksum")
    return {name: torch.from_numpy(array) for name, array in arrays.items()}, about


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype.str} {arrays[name].shape}".encode())
        digest.update(np.ascontiguousarray(arrays[name]).data)
    return digest.hexdigest()


class Checkpoints:
    """The checkpoints of one training, `step-<n>.safetensors` in its own folder.

    `kind` names what the tensors are; a checkpoint of another kind cannot be loaded.
    """

    def __init__(
        self,
        folder: Path,
        configuration: str,
        log: logging.Logger,
        *,
        kind: str = "skyproof-checkpoint-1",
    ) -> None:
        self.folder, self.configuration, self.log, self.kind = folder, configuration, log, kind

    def save(self, step: int, tensors: Mapping[str, torch.Tensor]) -> None:
        """Write the state after `step` steps, atomically; the last two files are kept."""
        about = {"format": self.kind, "configuration": self.configuration, "step": step}
        with atomic.replacing(self.folder / f"step-{step:012d}.safetensors") as temporary:
            write(temporary, tensors, about)
        for path in self._newest_first()[_KEEP:]:
            path.unlink(missing_ok=True)

    def load(self, path: Path) -> tuple[int, dict[str, torch.Tensor]]:
        """Return step and tensors of a checkpoint (InputError if of another configuration)."""
        tensors, about = read(path, self.kind)
        if about["configuration"] != self.configuration:
            raise InputError(
                path, f"is a checkpoint of another configuration ({about['configuration'][:12]})",
                expected=f"{self.configuration[:12]}, the same options, data, device and threads",
            )  # fmt: skip
        return about["step"], tensors

    def newest(self) -> tuple[int, dict[str, torch.Tensor]] | None:
        """Return the newest intact checkpoint; damaged ones are logged and skipped."""
        for path in self._newest_first():
            try:
                return self.load(path)
            except InputError as error:
                self.log.warning("%s; using the checkpoint before it", error)
        return None

    def _newest_first(self) -> list[Path]:
        return sorted(self.folder.glob("step-*.safetensors"), reverse=True)
