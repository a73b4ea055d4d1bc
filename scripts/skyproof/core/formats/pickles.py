"""Reading arrays of Python objects without executing what is in them.

Some published formats (dictionaries saved with `numpy.save`, `numpy.savez`) hold pickles, and
unpickling runs whatever the file says. Here a pickle may rebuild numpy arrays, numbers, text and
containers, and nothing else.
"""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from skyproof.core.errors import InputError

# Numpy 2 moved its core; files name the one or the other.
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
    """Return the array of a .npy file, or the object that it wraps (InputError if unsafe)."""
    with open(path, "rb") as stream:
        return read_stream(stream, path)


def read_npz(path: str | Path) -> dict[str, Any]:
    """Return the arrays and wrapped objects of a .npz file by name (InputError if unsafe)."""
    found = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                name = member.removesuffix(".npy")
                with archive.open(member) as stream:
                    found[name] = read_stream(stream, path, name)
    except zipfile.BadZipFile:
        raise InputError(
            path, "cannot be read: it is no zip archive", expected="arrays saved by numpy.savez"
        ) from None
    return found


def read_stream(stream: IO[bytes], path: str | Path, field: str | None = None) -> Any:
    """Return the array, or the wrapped object, of an open .npy file; `path` names it in errors."""
    try:
        version = np.lib.format.read_magic(stream)
        header = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        shape, fortran, dtype = header(stream)
        if dtype.hasobject:
            array = _Unpickler(stream, encoding="latin1").load()
            return array.item() if array.shape == () else array
        array = np.frombuffer(stream.read(), dtype, count=int(np.prod(shape)))
    except pickle.UnpicklingError as error:
        raise InputError(
            path, f"holds more than data ({error})", field=field,
            expected="arrays, numbers, text and containers of these",
        ) from None  # fmt: skip
    except (ValueError, EOFError, AttributeError, TypeError, IndexError, KeyError) as error:
        raise InputError(
            path, f"cannot be read: {error}", field=field, expected="numpy's format"
        ) from None
    return array.reshape(shape, order="F" if fortran else "C").copy()
