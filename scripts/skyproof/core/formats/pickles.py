"""Readers of arrays of Python objects that execute no code from the file.

Some published formats (dictionaries saved with `numpy.save`, `numpy.savez`) contain pickles, and
unpickling can execute any code. Here a pickle may only contain numpy arrays, numbers, text and
containers.
"""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from skyproof.core.errors import InputError

# numpy 2 renamed its core; files may use either name.
_CORES = ("numpy.core", "numpy._core")
_ALLOWED = {
    *((f"{core}.multiarray", name) for core in _CORES for name in ("_reconstruct", "scalar")),
    *((f"{core}.numeric", "_frombuffer") for core in _CORES),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),  # bytes in pickles of protocol 2
    ("collections", "OrderedDict"),
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"names {module}.{name}")
        return super().find_class(module, name)


def read_npy(path: str | Path) -> Any:
    """Return the array of a .npy file, or the wrapped object. Raise InputError if it is unsafe."""
    with open(path, "rb") as stream:
        return read_stream(stream, path)


def read_npz(path: str | Path) -> dict[str, Any]:
    """Return the arrays and wrapped objects of a .npz file by name. Raise InputError if unsafe."""
    found = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                name = member.removesuffix(".npy")
                with archive.open(member) as stream:
                    found[name] = read_stream(stream, path, name)
    except zipfile.BadZipFile:
        raise InputError(
            path, "cannot be read: it is not a zip archive", expected="arrays saved by numpy.savez"
        ) from None
    return found


def read_stream(stream: IO[bytes], path: str | Path, field: str | None = None) -> Any:
    """Return the array, or the wrapped object, of an open .npy file; `path` names it in errors."""
    try:
        shape, fortran, dtype = read_header(stream)
        if dtype.hasobject:
            array = _Unpickler(stream, encoding="latin1").load()
            return array.item() if array.shape == () else array
        array = np.frombuffer(stream.read(), dtype, count=int(np.prod(shape)))
    except pickle.UnpicklingError as error:
        raise InputError(
            path, f"contains more than data ({error})", field=field,
            expected="arrays, numbers, text and containers of these",
        ) from None  # fmt: skip
    except (ValueError, EOFError, AttributeError, TypeError, IndexError, KeyError) as error:
        raise InputError(
            path, f"cannot be read: {error}", field=field, expected="numpy's format"
        ) from None
    return array.reshape(shape, order="F" if fortran else "C").copy()


def read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Return shape, whether in Fortran order, and type of the array of an open .npy file."""
    if np.lib.format.read_magic(stream) == (1, 0):
        return np.lib.format.read_array_header_1_0(stream)
    return np.lib.format.read_array_header_2_0(stream)
