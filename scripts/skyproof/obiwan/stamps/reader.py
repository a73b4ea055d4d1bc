"""Files of stamps (64 x 64 pixels around each source): which there are, and reading them.

Axes are (row, x, y, band), x before y as in the original, while a FITS plane is [ny, nx].
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from skyproof.core.blocks import Item
from skyproof.core.errors import InputError
from skyproof.obiwan.stamps.geometry import STAMP

CLASSES = ("real", "fake")  # the index of a class is its label
KINDS = ("img", "ivar")

# Factors that make a nanomaggie look alike in each band, after the surveys' sky viewer.
_RGB_SCALES = {"g": 6.0, "r": 3.4, "i": 3.0, "z": 2.2}
_RGB_SOFTENING = 20.0
_RGB_PEDESTAL = 0.08  # of 1: sky noise shows on both sides of zero


def bands_of(table: np.ndarray) -> str:
    """Return the bands of a table of stamps, as its columns name them."""
    return "".join(n[-1] for n in table.dtype.names or () if n.startswith("mag_"))


def group_names(table: np.ndarray) -> list[str]:
    """Return the names of the sources' groups in the original layout."""
    if len(np.unique(table["rs"])) > 1:
        return [f"{row['rs'].decode()}-{row['id']}" for row in table]
    return [str(number) for number in table["id"]]


def stamp_files(item: Item, kind: str) -> list[Path]:
    """Return the files of a brick's stamps of one class: one, or none.

    The separate file of stamps that extend beyond the image (`_onedge`) is left out.
    """
    found = item.matching(f"{kind}/hdf5/*/{item.name}/img_ivar_*.hdf5")
    return [path for path in found if not path.stem.endswith("_onedge")]


def read_stamps(path: str | Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read a stamp file of either layout: img, ivar [n, 64, 64, band] float32, and table [n].

    InputError where it is missing, truncated, no HDF5, or not a file of stamps.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(path, "does not exist", expected="a file of stamps")
    try:
        with h5py.File(path, "r") as file:
            return _read(path, file)
    except PermissionError:
        raise
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            path, f"is truncated, corrupt or no HDF5 ({reason})", expected="a file of stamps"
        ) from None


def _read(path: Path, file: h5py.File) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    table = _dataset(path, file, "table")[()]
    if table.dtype.names is None or not {"id", "rs"} <= set(table.dtype.names):
        raise InputError(
            path, "is no table of stamps", field="table", expected="columns id, rs, ..."
        )
    if "img" in file:
        img, ivar = _dataset(path, file, "img")[()], _dataset(path, file, "ivar")[()]
    else:
        groups = group_names(table)
        img, ivar = (_stacked(path, file, groups, kind, len(bands_of(table))) for kind in KINDS)
    for name, array in (("img", img), ("ivar", ivar)):
        if array.ndim != 4 or array.shape[:3] != (len(table), STAMP, STAMP):
            raise InputError(
                path, f"has shape {array.shape}", field=name,
                expected=f"({len(table)}, {STAMP}, {STAMP}, bands), a stamp for each table row",
            )  # fmt: skip
    if img.shape != ivar.shape:
        raise InputError(path, f"has shape {ivar.shape}", field="ivar", expected=f"{img.shape}")
    return img.astype("f4", copy=False), ivar.astype("f4", copy=False), table


def _stacked(
    path: Path, file: h5py.File, groups: Sequence[str], kind: str, n_bands: int
) -> np.ndarray:
    stamps = np.empty((len(groups), STAMP, STAMP, n_bands), "f4")
    for row, group in enumerate(groups):
        data = _dataset(path, file, f"{group}/{kind}")
        if data.shape != stamps.shape[1:]:
            raise InputError(
                path, f"has shape {data.shape}", field=data.name, expected=f"{stamps.shape[1:]}"
            )
        data.read_direct(stamps[row])
    return stamps


def _dataset(path: Path, file: h5py.File, name: str) -> h5py.Dataset:
    data = file.get(name)
    if not isinstance(data, h5py.Dataset):
        raise InputError(path, "has no such dataset", field=name, expected="a file of stamps")
    return data


def read_stamp_table(path: Path) -> np.ndarray:
    """Return the table of a stamp file, structured [n]; the pixels stay on disk."""
    try:
        with h5py.File(path, "r") as file:
            table = file["table"][()]
    except PermissionError:
        raise
    except (OSError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            path, f"has no readable table ({reason})", expected="a file of stamps"
        ) from None
    for name in ("id", "rs", "label", "x", "y"):
        if name not in (table.dtype.names or ()):
            raise InputError(path, "has no such column", field=name, expected="a table of stamps")
    return table


def rgb(img: np.ndarray, bands: str) -> np.ndarray:
    """Return stamps [n, 64, 64, band] in nanomaggies as 8-bit colours [n, 64, 64, 3].

    The asinh stretch of Lupton et al. 2004 (PASP 116, 133), which keeps colours where a channel
    saturates. Red, green and blue are the reddest, the middle and the bluest band.
    """
    chosen = [len(bands) - 1, len(bands) // 2 if len(bands) > 2 else 0, 0]
    scales = np.array([_RGB_SCALES[bands[band]] for band in chosen], "f4")
    channels = img[..., chosen] * scales
    intensity = np.maximum(channels.mean(axis=-1, keepdims=True), 1e-6)
    stretched = np.arcsinh(_RGB_SOFTENING * intensity) / np.arcsinh(_RGB_SOFTENING)
    channels = channels * (stretched / intensity) + np.float32(_RGB_PEDESTAL)
    # One factor for the three channels of a pixel where one is too bright: the hue stays.
    channels /= np.maximum(channels.max(axis=-1, keepdims=True), 1)
    return (np.clip(channels, 0, 1) * 255).astype("u1")
