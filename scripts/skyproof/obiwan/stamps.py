"""Stamps: 64 x 64 pixels around each source, gathered from the planes of a brick, and their files.

Axes are (row, x, y, band), x before y as in the original, while a FITS plane is [ny, nx].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import h5py
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from skyproof.core import products
from skyproof.core.errors import InputError
from skyproof.obiwan.survey import HALF, STAMP

KINDS = ("img", "ivar")

# Stamps in memory at a time: few enough to stay in the cache until they are written. 64 is the
# fastest of 16, 64, 256 and all.
BLOCK = 64

# Factors that make a nanomaggie look alike in each band, after the surveys' sky viewer.
_RGB_SCALES = {"g": 6.0, "r": 3.4, "i": 3.0, "z": 2.2}
_RGB_SOFTENING = 20.0
_RGB_PEDESTAL = 0.08  # of 1: sky noise shows on both sides of zero


def centre_pixel(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the 0-based pixels (x, y) in which positions lie; pixel 3 covers [2.5, 3.5).

    Rounded, not truncated: both classes lie in [-0.5, 0.5) of the stamp's centre pixel, 32.
    """
    return np.floor(x + 0.5).astype("i8"), np.floor(y + 0.5).astype("i8")


def on_image(cx: np.ndarray, cy: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Say which centre pixels lie on an image [ny, nx]."""
    return (cx >= 0) & (cx < shape[1]) & (cy >= 0) & (cy < shape[0])


def stamp_inside(cx: np.ndarray, cy: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Say which stamps, pixels c-32 to c+31 in x and y, lie wholly on an image [ny, nx]."""
    last = STAMP - HALF - 1
    return on_image(cx - HALF, cy - HALF, shape) & on_image(cx + last, cy + last, shape)


def gather(plane: np.ndarray, cx: np.ndarray, cy: np.ndarray, out: np.ndarray) -> None:
    """Copy the stamps around pixels cx, cy [n] of a plane [ny, nx] to `out` [n, x, y].

    All stamps must lie inside; `out` may be strided, one band of [n, 64, 64, band].
    """
    if len(cx):
        windows = sliding_window_view(plane, (STAMP, STAMP))
        out[...] = windows[cy - HALF, cx - HALF].transpose(0, 2, 1)


def gather_edge(plane: np.ndarray, cx: np.ndarray, cy: np.ndarray, out: np.ndarray) -> None:
    """As `gather`, for stamps that reach over the edge: pixels outside the image become 0.

    0 is no NaN that would spread through a network, and an inverse variance of 0 marks them.
    """
    ny, nx = plane.shape
    out[...] = 0
    for row, x0, y0 in zip(range(len(cx)), cx - HALF, cy - HALF, strict=True):
        x = slice(max(x0, 0), min(x0 + STAMP, nx))
        y = slice(max(y0, 0), min(y0 + STAMP, ny))
        out[row, x.start - x0 : x.stop - x0, y.start - y0 : y.stop - y0] = plane[y, x].T


def typical(stamps: np.ndarray) -> np.ndarray:
    """Return the median of every fourth pixel each way, [n, band], of stamps [n, 64, 64, band].

    Weights vary slowly, so that 256 pixels tell as much as 4096, whose sorting would take longer
    than cutting the stamp.
    """
    few = stamps[:, ::4, ::4]
    few = np.moveaxis(few, -1, 1).reshape(len(stamps), stamps.shape[-1], STAMP**2 // 16)
    middle = STAMP**2 // 32
    # numpy's median asks for two middle elements, which is slow; one is vectorised.
    parted = np.partition(few, middle, axis=-1)
    return (parted[..., :middle].max(axis=-1) + parted[..., middle]) / 2


class StampWriter:
    """Writes a stamp file block by block, so that memory holds one block of stamps.

    `table` [n] (`survey.stamp_dtype`) is given at the start, and its `ivar_*` are set as stamps
    come. Layout `array`: datasets `img`, `ivar` [n, 64, 64, band], `table`. Layout `original`:
    `table`, and for each source `<id>/img` and `<id>/ivar` [64, 64, band]; with several
    realisations `<rs>-<id>/...`, as each counts its sources anew.
    """

    def __init__(self, path: str | Path, table: np.ndarray, bands: str, layout: str) -> None:
        self._table, self._bands, self._next = table, bands, 0
        self._groups = None if layout == "array" else group_names(table)
        stamp = (STAMP, STAMP, len(bands))
        datasets: dict[str, tuple[tuple[int, ...], np.dtype]] = {
            "table": ((len(table),), table.dtype)
        }
        for kind in KINDS:
            if self._groups is None:
                datasets[kind] = ((len(table), *stamp), np.dtype("f4"))
            for group in self._groups or []:
                datasets[f"{group}/{kind}"] = (stamp, np.dtype("f4"))
        self._stack = ExitStack()
        self._file = self._stack.enter_context(products.filling_hdf5(path, datasets))

    def __enter__(self) -> StampWriter:
        return self

    def cut(self, planes: Mapping[str, Sequence[np.ndarray]], table: np.ndarray) -> None:
        """Cut the stamps of the next rows out of planes, kind -> one [ny, nx] a band, and add them.

        `table` is those rows, all wholly inside the image, or all at its edge.
        """
        cx, cy = centre_pixel(table["x"], table["y"])
        inside = stamp_inside(cx, cy, planes["img"][0].shape)
        work = gather if inside.all() else gather_edge
        room = {
            kind: np.empty((min(BLOCK, len(cx)), STAMP, STAMP, len(self._bands)), "f4")
            for kind in KINDS
        }
        for start in range(0, len(cx), BLOCK):
            rows = slice(start, start + BLOCK)
            block = {kind: stamps[: len(cx[rows])] for kind, stamps in room.items()}
            for kind, stamps in block.items():
                for band, plane in enumerate(planes[kind]):
                    work(plane, cx[rows], cy[rows], stamps[..., band])
            self.add(block["img"], block["ivar"])

    def add(self, img: np.ndarray, ivar: np.ndarray) -> None:
        """Write the next stamps, img and ivar [k, 64, 64, band]."""
        rows = slice(self._next, self._next + len(img))
        self._next = rows.stop
        for band, median in zip(self._bands, typical(ivar).T, strict=True):
            self._table[f"ivar_{band}"][rows] = median
        for kind, stamps in (("img", img), ("ivar", ivar)):
            if self._groups is None:
                self._file[kind][rows] = stamps
                continue
            for group, stamp in zip(self._groups[rows], stamps, strict=True):
                self._file[f"{group}/{kind}"][...] = stamp

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        with self._stack:
            if kind is None:
                if self._next != len(self._table):
                    raise ValueError(f"{self._next} stamps for {len(self._table)} rows")
                self._file["table"][...] = self._table


def write_stamps(
    path: str | Path, img: np.ndarray, ivar: np.ndarray, table: np.ndarray, layout: str
) -> None:
    """Write img, ivar [n, 64, 64, band] and the table [n] at once; `StampWriter` says how.

    The table's `ivar_*` become those of `ivar`, in the file; `table` stays as it is.
    """
    with StampWriter(path, table.copy(), bands_of(table), layout) as writer:
        writer.add(img, ivar)


def bands_of(table: np.ndarray) -> str:
    """Return the bands of a table of stamps, as its columns name them."""
    return "".join(n[-1] for n in table.dtype.names or () if n.startswith("mag_"))


def group_names(table: np.ndarray) -> list[str]:
    """Return the names of the sources' groups in the original layout."""
    if len(np.unique(table["rs"])) > 1:
        return [f"{row['rs'].decode()}-{row['id']}" for row in table]
    return [str(number) for number in table["id"]]


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
