"""What a product file holds, read in pieces: the named arrays and values behind its bytes.

Serves two ends. A *content digest* says that two files hold the same data although another version
of a library wrote other bytes around it. And where two files differ, their elements are compared
one by one. Memory does not grow with the size of a file.
"""

from __future__ import annotations

import hashlib
import math
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np

from skyproof.core import atomic
from skyproof.core.formats import pickles

CHUNK_BYTES = 1 << 22
CHUNK_ROWS = 1 << 16

Chunks = Callable[[], Iterator[np.ndarray]]


@dataclass(frozen=True)
class Element:
    """A named array (a dataset, a table, a column) or value (a header card) of a file.

    `chunks()` yields the values in C order as flat arrays; a table's have named fields.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    chunks: Chunks


def fingerprint(path: Path) -> dict[str, Any]:
    """Return size, SHA-256 and, where the format has a container, content digest of a file."""
    found = {"size": path.stat().st_size, "sha256": atomic.sha256_of(path)}
    if has_container(path):
        # A file that its own library cannot read back is for a later stage to complain of.
        with suppress(Exception):
            found["content"] = content_digest(path)
    return found


def suffix_of(path: str | Path) -> str:
    """Return the suffix that tells the format; compression and packing suffixes do not count."""
    name = Path(path).name.lower().removesuffix(".gz").removesuffix(".fz")
    return Path(name).suffix


def has_container(path: str | Path) -> bool:
    """Say whether the format wraps its data in bytes that a library decides.

    Of the others (npy, safetensors, CSV, JSON, text) the bytes are the content.
    """
    return suffix_of(path) in READERS


def content_digest(path: str | Path) -> str:
    """Return the SHA-256 over names, little-endian types, shapes and values of all elements."""
    lines = []
    for element in READERS[suffix_of(path)](Path(path)):
        digest = hashlib.sha256(f"{element.dtype}|{element.shape}|".encode())
        for chunk in element.chunks():
            digest.update(_canonical_bytes(chunk))
        lines.append(f"{element.name}|{digest.hexdigest()}")
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def _canonical_bytes(chunk: np.ndarray) -> bytes | memoryview:
    if chunk.dtype.hasobject:
        return "".join(f"{len(repr(v))}:{v!r}" for v in chunk.tolist()).encode()
    little = np.ascontiguousarray(chunk.astype(chunk.dtype.newbyteorder("<"), copy=False))
    return little.view(np.uint8).data if little.size else b""


def make_element(name: str, dtype: np.dtype, shape: tuple[int, ...], chunks: Chunks) -> Element:
    """Return an element of `dtype`, whose name does not depend on the machine's byte order."""
    little = dtype.newbyteorder("<")
    text = str(little.descr) if little.names else little.str
    return Element(name, text, tuple(shape), chunks)


def make_value(name: str, value: Any) -> Element:
    """An attribute, a header card, a leaf of JSON: an array without dimensions, or a short one."""
    array = np.asarray(value)
    if array.dtype.kind in "USO":
        array = np.array([str(v) for v in array.ravel()] or [""], dtype=object).reshape(array.shape)
    return make_element(name, array.dtype, array.shape, lambda: iter([array.ravel()]))


def pieces(shape: tuple[int, ...], itemsize: int) -> Iterator[tuple[int | slice, ...]]:
    """Yield indices that cut an array in C order into pieces of at most about CHUNK_BYTES."""
    if 0 in shape:
        return
    inner = itemsize * math.prod(shape[1:])
    if not shape:
        yield ()
    elif inner > CHUNK_BYTES and len(shape) > 1:
        for row in range(shape[0]):
            yield from ((row, *rest) for rest in pieces(shape[1:], itemsize))
    else:
        step = max(1, CHUNK_BYTES // max(inner, 1))
        for start in range(0, shape[0], step):
            yield (slice(start, min(start + step, shape[0])),)


def _of_hdf5(path: Path) -> Iterator[Element]:
    import h5py

    with h5py.File(path, "r") as file:
        names: list[str] = []
        file.visit(names.append)
        for name in ["/", *sorted(names)]:
            thing = file[name]
            shown = "" if name == "/" else name
            yield from (
                make_value(f"{shown}@{key}", thing.attrs[key]) for key in sorted(thing.attrs)
            )
            if isinstance(thing, h5py.Dataset) and thing.shape is not None:
                yield make_element(name, thing.dtype, thing.shape, _hdf5_chunks(thing))


def _hdf5_chunks(dataset: Any) -> Chunks:
    def chunks() -> Iterator[np.ndarray]:
        for index in pieces(dataset.shape, dataset.dtype.itemsize):
            yield np.asarray(dataset[index]).ravel()

    return chunks


# Cards of the layout and the compression, and those that cfitsio adds by itself.
LAYOUT_CARDS = (
    *("SIMPLE", "XTENSION", "BITPIX", "NAXIS", "EXTEND", "PCOUNT", "GCOUNT", "TFIELDS"),
    *("TTYPE", "TFORM", "TDIM", "THEAP", "CHECKSUM", "DATASUM", "COMMENT", "END"),
    *("ZIMAGE", "ZTABLE", "ZCMPTYPE", "ZBITPIX", "ZNAXIS", "ZTILE", "ZNAME", "ZVAL", "ZQUANTIZ"),
    *("ZDITHER0", "ZTENSION", "ZSIMPLE", "ZPCOUNT", "ZGCOUNT", "ZHECKSUM", "ZDATASUM", "ZBLANK"),
)


def _of_fits(path: Path) -> Iterator[Element]:
    import fitsio

    with fitsio.FITS(str(path), "r") as file:
        for number, hdu in enumerate(file):
            yield from _fits_cards(f"HDU {number}", hdu.read_header())
            info = hdu.get_info()
            if hdu.get_exttype() == "IMAGE_HDU":
                if info["ndims"]:
                    yield _fits_image(f"HDU {number}", hdu)
            elif hdu.get_nrows():
                yield _fits_table(f"HDU {number}", hdu)


def _fits_cards(hdu: str, header: Any) -> Iterator[Element]:
    seen: dict[str, int] = {}
    for record in header.records():
        name = record["name"]
        if name and not name.startswith(LAYOUT_CARDS):
            seen[name] = seen.get(name, 0) + 1
            repeated = f" ({seen[name]})" if seen[name] > 1 else ""
            yield make_value(f"{hdu} card {name}{repeated}", record["value"])


def _fits_image(name: str, hdu: Any) -> Element:
    shape = tuple(int(n) for n in hdu.get_dims())
    first = np.asarray(hdu[tuple(slice(0, 1) for _ in shape)])

    def chunks() -> Iterator[np.ndarray]:
        for index in pieces(shape, first.dtype.itemsize):
            cut = [slice(i, i + 1) if isinstance(i, int) else i for i in index]
            cut += [slice(0, n) for n in shape[len(cut) :]]
            yield np.asarray(hdu[tuple(cut)]).ravel()

    return make_element(name, first.dtype, shape, chunks)


def _fits_table(name: str, hdu: Any) -> Element:
    rows = int(hdu.get_nrows())
    first = hdu[0:1]

    def chunks() -> Iterator[np.ndarray]:
        step = max(1, CHUNK_BYTES // max(first.dtype.itemsize, 1))
        for start in range(0, rows, step):
            yield hdu[start : min(start + step, rows)]

    return make_element(name, first.dtype, (rows,), chunks)


def _of_npz(path: Path) -> Iterator[Element]:
    with zipfile.ZipFile(path) as archive:
        for member in sorted(archive.namelist()):
            name = member.removesuffix(".npy")
            with archive.open(member) as stream:
                wraps = _npy_header(stream)[2].hasobject
            if wraps:
                with archive.open(member) as stream:
                    yield from _leaves(name, pickles.read_stream(stream, path, name))
            else:
                yield read_npy(name, partial(archive.open, member))


def _leaves(name: str, value: Any) -> Iterator[Element]:
    """Yield the arrays and values in nested containers; a list of numbers is one array."""
    objects = isinstance(value, np.ndarray) and value.dtype.hasobject
    if isinstance(value, dict):
        for key in value:
            yield from _leaves(f"{name}.{key}", value[key])
    elif (isinstance(value, (list, tuple)) or objects) and not _numbers(value):
        for number, item in enumerate(value):
            yield from _leaves(f"{name}[{number}]", item)
    else:
        yield make_value(name, value)


def _numbers(values: Any) -> bool:
    return len(values) > 0 and all(isinstance(v, (int, float, np.number)) for v in values)


def read_npy(name: str, opened: Callable[[], IO[bytes]]) -> Element:
    """One array of numpy's format; one in Fortran order appears with its axes reversed."""
    with opened() as stream:
        shape, fortran, dtype = _npy_header(stream)
    if dtype.hasobject:
        raise ValueError("an array of Python objects")

    def chunks() -> Iterator[np.ndarray]:
        with opened() as stream:
            _npy_header(stream)
            left = math.prod(shape) * dtype.itemsize
            step = max(1, CHUNK_BYTES // max(dtype.itemsize, 1)) * dtype.itemsize
            while left:
                data = stream.read(min(step, left))
                left -= len(data)
                if len(data) % dtype.itemsize or not data:
                    raise ValueError("ends before its last element")
                yield np.frombuffer(data, dtype)

    return make_element(name, dtype, shape[::-1] if fortran else shape, chunks)


def _npy_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(stream)
    return np.lib.format.read_array_header_2_0(stream)


def _of_parquet(path: Path) -> Iterator[Element]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        rows = file.metadata.num_rows
        for field in file.schema_arrow:

            def chunks(name: str = field.name) -> Iterator[np.ndarray]:
                for batch in file.iter_batches(batch_size=CHUNK_ROWS, columns=[name]):
                    yield batch.column(0).to_numpy(zero_copy_only=False)

            yield Element(field.name, str(field.type), (rows,), chunks)


def _of_png(path: Path) -> Iterator[Element]:
    from PIL import Image

    with Image.open(path) as image:
        image.load()
        for key, value in sorted(image.info.items()):
            if isinstance(value, str):
                yield make_value(f"@{key}", value)
        pixels = np.asarray(image)
    yield make_element("pixels", pixels.dtype, pixels.shape, lambda: iter([pixels.ravel()]))


# The formats with a container; proof/elements.py reads the others too.
READERS: dict[str, Callable[[Path], Iterator[Element]]] = {
    ".hdf5": _of_hdf5,
    ".h5": _of_hdf5,
    ".fits": _of_fits,
    ".npz": _of_npz,
    ".parquet": _of_parquet,
    ".png": _of_png,
}
