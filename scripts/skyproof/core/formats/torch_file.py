"""Files of `torch.save`: writing them, and reading them without executing their content.

A module apart from `read` and `write`, so that only stages that use such files import torch.
"""

from __future__ import annotations

import io
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np

from skyproof.core.errors import InputError
from skyproof.core.formats.read import reading


def read(path: str | Path, *, expected: str) -> Any:
    """Return the saved object, with all tensors on the CPU.

    torch's restricted unpickler is used, with numpy's arrays and numbers allowed. Raise InputError
    if the file cannot be read or contains other than tensors, arrays, numbers, text and containers.
    """
    import torch

    with reading(path, expected):
        try:
            with torch.serialization.safe_globals(_allowed()):
                return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            named = re.search(r"GLOBAL ([\w.]+)", str(error))
            if named is None:
                raise ValueError("torch.save has not written it") from None
            raise InputError(
                path, f"cannot be read as data (names {named[1]})",
                expected="tensors, arrays, numbers and text",
            ) from None  # fmt: skip


def saved(content: Any) -> bytes:
    """Return the bytes of a file, written to memory: torch.save stores the name of a file in it."""
    import torch

    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


def _allowed() -> list[Any]:
    """Return the constructors of numpy's arrays and numbers in a pickle, by old and new names.

    Numpy 2 moved its core from numpy.core to numpy._core; files may contain either name.
    """
    parts: list[Any] = [np.ndarray, np.dtype, *{type(np.dtype(kind)) for kind in "fdilqILQ?"}]
    core = np.arange(1).__reduce__()[0]
    scalar = np.float64(0).__reduce__()[0]
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        parts += [(core, f"{module}._reconstruct"), (scalar, f"{module}.scalar")]
    # Pickles of torch's protocol store the bytes of a number as encoded text.
    encode = b"".__reduce_ex__(2)[0]
    return [*parts, encode]
