"""Writers of the product formats. Equal content gives equal bytes: no time, host or path inside.

Each function writes to the given path. The caller makes this atomic (`atomic.replacing`, or the
stage runner). The settings avoid defaults of the libraries that were measured to put a time stamp,
a memory address or a random order into a file.
"""

from __future__ import annotations

import errno
import gzip
import io
import math
import os
import re
import tarfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import h5py
    from matplotlib.figure import Figure


def json(path: str | Path, value: Any) -> None:
    """Write sorted, indented JSON. Raise ValueError for NaN and infinity."""
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
    """Write named arrays as `numpy.savez` does; arrays of objects are pickled.

    numpy itself writes members of unknown size, whose headers changed in Python 3.11.4.
    """
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, array, allow_pickle=True)
            entry = zipfile.ZipInfo(f"{name}.npy")  # dated 1980
            entry.create_system = 3  # unix, on every platform
            entry.external_attr = 0o600 << 16
            archive.writestr(entry, member.getvalue())


def tar_gz(path: str | Path, files: Iterable[tuple[str, bytes]]) -> None:
    """Write a .tar.gz of files, (name, content) in the given order, without times and owners."""
    with (
        open(path, "wb") as stream,
        gzip.GzipFile(filename="", fileobj=stream, mode="wb", mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for name, content in files:
            entry = tarfile.TarInfo(name)  # time 0, no owner
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))


def little_endian(array: np.ndarray) -> np.ndarray:
    """Return the array in little-endian byte order, without a copy if it has that order."""
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
        # HDF5 reports a failed write (a full disk) only in the text of a later error, often that of
        # closing the file.
        failed = re.search(r"errno = (\d+)|\[Errno (\d+)\]", str(error))
        if failed is None:
            raise
        number = int(failed[1] or failed[2])
        raise OSError(number, os.strerror(number), str(path)) from None


@contextmanager
def filling_hdf5(
    path: str | Path, datasets: Mapping[str, tuple[tuple[int, ...], np.dtype]]
) -> Iterator[h5py.File]:
    """Open plain HDF5 with datasets, name -> (shape, type), which the caller fills in any order.

    For data larger than memory: the offset of each dataset and the disk space are allocated first.
    All elements must be filled; others are undefined.
    """
    import h5py

    n_bytes = sum(math.prod(shape) * dtype.itemsize for shape, dtype in datasets.values())

    with _new_hdf5(path) as file:
        for name in sorted(datasets):
            shape, dtype = datasets[name]
            layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
            layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
            little = dtype.newbyteorder("<")
            file.create_dataset(name, shape, little, track_times=False, dcpl=layout)
        _allocate(path, n_bytes)
        yield file


class RowWriter:
    """Writes rows of a dataset of `filling_hdf5` directly at their offset in the file.

    HDF5 itself takes longer to select the rows than to write them.
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
        offset = self._start + first * rows[:1].nbytes
        while data:
            written = os.pwrite(self._descriptor, data, offset)
            data, offset = data[written:], offset + written


def _allocate(path: str | Path, n_bytes: int) -> None:
    """Allocate the disk space of a file now: HDF5 crashes if the disk fills up later."""
    if n_bytes == 0 or not hasattr(os, "posix_fallocate"):
        return
    with open(path, "rb+") as stream:
        try:
            os.posix_fallocate(stream.fileno(), 0, n_bytes)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise  # other errors: this file system cannot allocate


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

    `quantize` is the q level of cfitsio: 0 keeps floats exactly (needs 'GZIP_2'); with q >= 4 the
    quantisation step is noise/q ('RICE'). The dither seed is computed from the data, not from the
    clock.
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
    """Write columns of equal length as Parquet, without pandas metadata (library versions)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({name: pa.array(values) for name, values in columns.items()})
    pq.write_table(table, path, compression="zstd", version="2.6")


def safetensors(
    path: str | Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any] | None = None
) -> None:
    """Write named arrays; the metadata is one JSON string, as the order of keys is random."""
    from safetensors.numpy import save

    text = dumps(dict(metadata or {}), sort_keys=True, separators=(",", ":"))
    contiguous = {name: np.asarray(arrays[name], order="C") for name in sorted(arrays)}
    Path(path).write_bytes(save(contiguous, metadata={"json": text}))


def figure(path: str | Path, figure: Figure, *, dpi: int = 110) -> None:
    """Write a matplotlib figure as PNG without the software tag, and close it."""
    import matplotlib.pyplot as plt

    figure.savefig(path, format="png", dpi=dpi, metadata={"Software": None})
    plt.close(figure)
