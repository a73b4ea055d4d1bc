"""Find and read files of stamps (64 x 64 pixels around each source).

Axes are (row, x, y, band), x before y as in the original, while a FITS plane is [ny, nx].
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from skyproof.core.blocks import Item
from skyproof.core.formats import read
from skyproof.obiwan.stamps.geometry import STAMP

CLASSES = ("real", "fake")  # the index of a class is its label
KINDS = ("img", "ivar")

# Scale factors of a nanomaggie in each band, from the sky viewer of the surveys.
_RGB_SCALES = {"g": 6.0, "r": 3.4, "i": 3.0, "z": 2.2}
_RGB_SOFTENING = 20.0
_RGB_PEDESTAL = 0.08  # value of zero flux (maximum 1), so that negative sky noise is visible


def bands_of(table: np.ndarray) -> str:
    """Return the bands of a table of stamps, from the names of its columns."""
    return "".join(n[-1] for n in table.dtype.names or () if n.startswith("mag_"))


def group_names(table: np.ndarray) -> list[str]:
    """Return the names of the HDF5 groups of the sources in the original layout."""
    if len(np.unique(table["rs"])) > 1:
        return [f"{row['rs'].decode()}-{row['id']}" for row in table]
    return [str(number) for number in table["id"]]


def stamp_files(item: Item, kind: str) -> list[Path]:
    """Return the files of a brick's stamps of one class: one or none.

    The separate file of stamps that extend beyond the image (`_onedge`) is not returned.
    """
    found = item.matching(f"{kind}/hdf5/*/{item.name}/img_ivar_*.hdf5")
    return [path for path in found if not path.stem.endswith("_onedge")]


def read_stamps(path: str | Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read a stamp file of either layout: img, ivar [n, 64, 64, band] float32, and table [n].

    Raise InputError if it is not a complete HDF5 file or not a file of stamps.
    """
    found = read.hdf5(path, ["table"], optional=KINDS, expected="a file of stamps")
    table = found["table"]
    read.check_names(path, table.dtype.names or (), ("id", "rs"))
    if "img" in found:
        read.check_names(path, found, KINDS, what="dataset")
        img, ivar = found["img"], found["ivar"]
    else:
        img, ivar = _read_groups(path, table)
    read.check_array(path, img, field="img", shape=(len(table), STAMP, STAMP, None))
    read.check_array(path, ivar, field="ivar", shape=img.shape)
    return img.astype("f4", copy=False), ivar.astype("f4", copy=False), table


def _read_groups(path: str | Path, table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return img, ivar [n, 64, 64, band] of the original's layout, one group per source."""
    shape = STAMP, STAMP, len(bands_of(table))
    names = {kind: [f"{group}/{kind}" for group in group_names(table)] for kind in KINDS}
    found = read.hdf5(path, [name for kind in KINDS for name in names[kind]])
    for name, stamp in found.items():
        read.check_array(path, stamp, field=name, shape=shape)
    img, ivar = (
        np.array([found[name] for name in names[kind]], "f4").reshape(-1, *shape) for kind in KINDS
    )
    return img, ivar


def read_stamp_table(path: Path) -> np.ndarray:
    """Return the table of a stamp file, structured [n]; the pixels are not read."""
    table = read.hdf5(path, ["table"], expected="a file of stamps")["table"]
    read.check_names(path, table.dtype.names or (), ("id", "rs", "label", "x", "y"))
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
    # If one channel of a pixel saturates, all three have the same factor: the hue is preserved.
    channels /= np.maximum(channels.max(axis=-1, keepdims=True), 1)
    return (np.clip(channels, 0, 1) * 255).astype("u1")
