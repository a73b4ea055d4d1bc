"""Writers of the product formats. Equal content gives equal bytes: no time, host or path inside.

Each function writes to the path it is given; making that atomic is the caller's business
(`atomic.replacing`, or the stage runner). The settings follow measurements of each library: which
defaults put a time stamp, an address or a random order into a file.
"""

from __future__ import annotations

import errno
import io
import math
import os
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import h5py
    from matplotlib.figure import Figure


def json(path: str | Path, value: Any) -> None:
    """Write sorted, indented JSON; NaN and infinity are refused (ValueError)."""
    text = dumps(value, sort_keys=True, indent=1, allow_nan=False, default=_plain)
    Path(path).write_text(text + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Path):
        return value.as_posix()
    raise TypeError(f"{type(value).__name__} has no JSON form")


def npy(path: str | Path, array: np.ndarray) -> None:
    """Write one array, C-contiguous and little-endian."""
    with open(path, "wb") as stream:
        np.save(stream, little_endian(np.ascontiguousarray(array)), allow_pickle=False)


def npz(path: str | Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write named arrays as `numpy.savez` does; those of objects are pickled.

    (numpy writes them as members of unknown size, for which Python 3.11.4 changed the headers.)
    """
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, array, allow_pickle=True)
            entry = zipfile.ZipInfo(f"{name}.npy")  # of 1980
            entry.create_system = 3  # unix, wherever it is written
            entry.external_attr = 0o600 << 16
            archive.writestr(entry, member.getvalue())


def little_endian(array: np.ndarray) -> np.ndarray:
    """Return the array with little-endian bytes (the array itself where it has them)."""
    return array.astype(array.dtype.newbyteorder("<"), copy=False)


def hdf5(
    path: str | Path,
    datasets: Mapping[str, np.ndarray],
    attributes: Mapping[str, str | int | float] | None = None,
) -> None:
    """Write plain HDF5: contiguous datasets in name order, default file version, no times."""
    with _new_hdf5(path) as file:
        for name in sorted(datasets):
            file.create_dataset(name, data=little_endian(datasets[name]), track_times=False)
        for name, value in sorted((attributes or {}).items()):
            file.attrs[name] = value


@contextmanager
def _new_hdf5(path: str | Path) -> Iterator[h5py.File]:
    import h5py

    try:
        with h5py.File(path, "w", track_order=False) as file:
            yield file
    except (OSError, RuntimeError) as error:
        # HDF5 hides a refused write (a full disk) in the text of whatever fails last, often the
        # closing of the file.
        refused = re.search(r"errno = (\d+)|\[Errno (\d+)\]", str(error))
        if refused is None:
            raise
        number = int(refused[1] or refused[2])
        raise OSError(number, os.strerror(number), str(path)) from None


@contextmanager
def filling_hdf5(
    path: str | Path, datasets: Mapping[str, tuple[tuple[int, ...], np.dtype]]
) -> Iterator[h5py.File]:
    """Open plain HDF5 with datasets, name -> (shape, type), that the block fills in any order.

    For what is too large to hold: each dataset's place in the file is settled before any is
    filled, and the disk's space taken. All elements must be filled; else they are undefined.
    """
    import h5py

    n_bytes = sum(math.prod(shape) * dtype.itemsize for shape, dtype in datasets.values())

    with _new_hdf5(path) as file:
        for name in sorted(datasets):
            shape, dtype = datasets[name]
            place = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            place.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
            place.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
            little = dtype.newbyteorder("<")
            file.create_dataset(name, shape, little, track_times=False, dcpl=place)
        _take_space(path, n_bytes)
        yield file


class RowWriter:
    """Writes rows of a dataset that `filling_hdf5` opened, straight to their place in the file.

    HDF5's own way takes longer to find the place than to write.
    """

    def __init__(self, dataset: h5py.Dataset) -> None:
        self._shape, self._dtype = dataset.shape, dataset.dtype
        self._descriptor = dataset.file.id.get_vfd_handle()
        self._start = dataset.id.get_offset()

    def write(self, first: int, rows: np.ndarray) -> None:
        """Write `rows` [k, ...], of the file's type, as rows `first`, `first` + 1, ..."""
        if rows.dtype != self._dtype or rows.shape[1:] != self._shape[1:]:
            raise ValueError(f"rows are {self._dtype} {self._shape[1:]}, not {rows.shape[1:]}")
        if not 0 <= first <= self._shape[0] - len(rows):
            raise ValueError(f"the dataset has {self._shape[0]} rows")
        if len(rows) == 0:
            return
        data = np.ascontiguousarray(rows).data.cast("B")
        place = self._start + first * rows[:1].nbytes
        while data:
            written = os.pwrite(self._descriptor, data, place)
            data, place = data[written:], place + written


def _take_space(path: str | Path, n_bytes: int) -> None:
    """Let a file have its space on the disk now: HDF5 crashes where a disk fills up later."""
    if n_bytes == 0 or not hasattr(os, "posix_fallocate"):
        return
    with open(path, "rb+") as stream:
        try:
            os.posix_fallocate(stream.fileno(), 0, n_bytes)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise  # other numbers: this file system cannot reserve


def fits_table(
    path: str | Path,
    columns: Mapping[str, np.ndarray] | np.ndarray,
    *,
    extname: str = "",
    header: Mapping[str, Any] | None = None,
) -> None:
    """Write one binary table in HDU 1, from a structured array or name -> [n, ...] arrays."""
    import fitsio

    if isinstance(columns, np.ndarray):
        data: Any = columns
    else:
        names = list(columns)
        data = np.zeros(
            len(columns[names[0]]),
            dtype=[(n, columns[n].dtype, columns[n].shape[1:]) for n in names],
        )
        for name in names:
            data[name] = columns[name]
    with fitsio.FITS(str(path), "rw", clobber=True) as file:
        file.write(data, extname=extname or None, header=_cards(header))


def fits_image(
    path: str | Path,
    image: np.ndarray,
    *,
    header: Mapping[str, Any] | None = None,
    compress: str | None = None,
    quantize: float = 0.0,
) -> None:
    """Write an image [ny, nx] to HDU 1 (compressed, as `.fits.fz`) or HDU 0 (compress=None).

    `quantize` is cfitsio's q level: 0 keeps floats exactly (needs 'GZIP_2'), 4 and more trade
    noise/q for size ('RICE'). The dither seed comes from the data, never from the clock.
    """
    import fitsio

    extra: dict[str, Any] = {}
    if compress is not None:
        extra = {"compress": compress, "qlevel": quantize, "dither_seed": "checksum"}
        if quantize > 0:
            extra["qmethod"] = "SUBTRACTIVE_DITHER_2"
    with fitsio.FITS(str(path), "rw", clobber=True) as file:
        file.write(image, header=_cards(header), **extra)


def _cards(header: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    return [{"name": name, "value": value} for name, value in (header or {}).items()]


def csv(path: str | Path, columns: Mapping[str, Sequence[Any] | np.ndarray]) -> None:
    """Write columns of equal length as CSV; floats in the shortest form that reads back equal."""
    names = list(columns)
    lines = [",".join(names)]
    lines += [",".join(_cell(v) for v in row) for row in zip(*columns.values(), strict=True)]
    Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _cell(value: Any) -> str:
    if isinstance(value, (float, np.floating)):
        return repr(float(value)) if isinstance(value, (float, np.float64)) else str(value)
    text = str(value)
    if any(mark in text for mark in ',"\n'):
        return '"' + text.replace('"', '""') + '"'
    return text


def parquet(path: str | Path, columns: Mapping[str, np.ndarray]) -> None:
    """Write columns of equal length as Parquet, without the pandas note about library versions."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({name: pa.array(values) for name, values in columns.items()})
    pq.write_table(table, path, compression="zstd", version="2.6")


def safetensors(
    path: str | Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any] | None = None
) -> None:
    """Write named arrays; the metadata is one JSON string, as several keys come in random order."""
    from safetensors.numpy import save

    text = dumps(dict(metadata or {}), sort_keys=True, separators=(",", ":"))
    contiguous = {name: np.asarray(arrays[name], order="C") for name in sorted(arrays)}
    Path(path).write_bytes(save(contiguous, metadata={"json": text}))


def figure(path: str | Path, figure: Figure, *, dpi: int = 110) -> None:
    """Write a matplotlib figure as PNG without the software tag, and close it."""
    import matplotlib.pyplot as plt

    figure.savefig(path, format="png", dpi=dpi, metadata={"Software": None})
    plt.close(figure)
