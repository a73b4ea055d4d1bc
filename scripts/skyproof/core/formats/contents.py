"""The contents of product files: their elements by format, and digests of these.

An element is a named array or value of a file. The *content digest* of a file is computed from its
elements, so two files with the same data have the same digest although another version of a library
wrote other bytes around it. Files that differ are compared element by element. Elements are read in
pieces, so the memory does not grow with the size of a file.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import zipfile
from collections.abc import Callable, Iterator, Sequence
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
        # The stage that reads the file raises the error of one that its library cannot read.
        with suppress(Exception):
            found["content"] = content_digest(path)
    return found


def suffix_of(path: str | Path) -> str:
    """Return the suffix of the format; suffixes of compression and packing do not count."""
    name = Path(path).name.lower().removesuffix(".gz").removesuffix(".fz")
    return Path(name).suffix


def has_container(path: str | Path) -> bool:
    """Return whether a library decides some of the bytes of the format.

    Of the others (npy, safetensors, CSV, JSON, text) the bytes are the content.
    """
    return suffix_of(path) in _CONTAINERS


def elements(path: str | Path) -> Iterator[Element]:
    """Yield the elements of a file in its order, or by name (ValueError: not readable)."""
    suffix = suffix_of(path)
    if suffix not in _READERS:
        raise ValueError(f"no reader of {suffix or 'files without a suffix'}")
    yield from _READERS[suffix](Path(path))


def content_digest(path: str | Path) -> str:
    """Return the SHA-256 over names, little-endian types, shapes and values of all elements."""
    lines = []
    for element in elements(path):
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


def _element(name: str, dtype: np.dtype, shape: tuple[int, ...], chunks: Chunks) -> Element:
    """Return an element of `dtype`, whose name does not depend on the machine's byte order."""
    little = dtype.newbyteorder("<")
    text = str(little.descr) if little.names else little.str
    return Element(name, text, tuple(shape), chunks)


def _value(name: str, value: Any) -> Element:
    """Return an attribute, a header card or a leaf as an element of no or one dimension."""
    array = np.asarray(value)
    if array.dtype.kind in "USO":
        array = np.array([str(v) for v in array.ravel()] or [""], dtype=object).reshape(array.shape)
    return _element(name, array.dtype, array.shape, lambda: iter([array.ravel()]))


def _pieces(shape: tuple[int, ...], itemsize: int) -> Iterator[tuple[int | slice, ...]]:
    """Yield indices that cut an array in C order into pieces of at most about CHUNK_BYTES."""
    if 0 in shape:
        return
    inner = itemsize * math.prod(shape[1:])
    if not shape:
        yield ()
    elif inner > CHUNK_BYTES and len(shape) > 1:
        for row in range(shape[0]):
            yield from ((row, *rest) for rest in _pieces(shape[1:], itemsize))
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
            yield from (_value(f"{shown}@{key}", thing.attrs[key]) for key in sorted(thing.attrs))
            if isinstance(thing, h5py.Dataset) and thing.shape is not None:
                yield _element(name, thing.dtype, thing.shape, _hdf5_chunks(thing))


def _hdf5_chunks(dataset: Any) -> Chunks:
    def chunks() -> Iterator[np.ndarray]:
        for index in _pieces(dataset.shape, dataset.dtype.itemsize):
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
            yield _value(f"{hdu} card {name}{repeated}", record["value"])


def _fits_image(name: str, hdu: Any) -> Element:
    shape = tuple(int(n) for n in hdu.get_dims())
    first = np.asarray(hdu[tuple(slice(0, 1) for _ in shape)])

    def chunks() -> Iterator[np.ndarray]:
        for index in _pieces(shape, first.dtype.itemsize):
            cut = [slice(i, i + 1) if isinstance(i, int) else i for i in index]
            cut += [slice(0, n) for n in shape[len(cut) :]]
            yield np.asarray(hdu[tuple(cut)]).ravel()

    return _element(name, first.dtype, shape, chunks)


def _fits_table(name: str, hdu: Any) -> Element:
    rows = int(hdu.get_nrows())
    first = hdu[0:1]

    def chunks() -> Iterator[np.ndarray]:
        step = max(1, CHUNK_BYTES // max(first.dtype.itemsize, 1))
        for start in range(0, rows, step):
            yield hdu[start : min(start + step, rows)]

    return _element(name, first.dtype, (rows,), chunks)


def _of_npz(path: Path) -> Iterator[Element]:
    with zipfile.ZipFile(path) as archive:
        for member in sorted(archive.namelist()):
            name = member.removesuffix(".npy")
            with archive.open(member) as stream:
                wraps = pickles.read_header(stream)[2].hasobject
            if wraps:
                with archive.open(member) as stream:
                    yield from leaves(pickles.read_stream(stream, path, name), name, str)
            else:
                yield _npy(name, partial(archive.open, member))


def leaves(
    value: Any, name: str = "", text: Callable[[str | None], str] = json.dumps
) -> Iterator[Element]:
    """Yield the arrays and values in nested containers, each under its path.

    A list of numbers of one type is one array. `text` gives the form of text and of None.
    """
    is_list = isinstance(value, (list, tuple))
    if isinstance(value, dict) and value:
        for key in sorted(value, key=str):
            yield from leaves(value[key], f"{name}.{key}" if name else str(key), text)
    elif _holds_objects(value) or (is_list and value and not _is_numbers(value)):
        for number, item in enumerate(value):
            yield from leaves(item, f"{name}[{number}]", text)
    elif isinstance(value, (dict, list, tuple)) and not value:
        yield _value(name, "{}" if isinstance(value, dict) else "[]")
    else:
        yield _value(name, text(value) if value is None or isinstance(value, str) else value)


def _holds_objects(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.hasobject


def _is_numbers(values: Sequence[Any]) -> bool:
    first, *others = {type(value) for value in values}
    return not others and first is not bool and issubclass(first, (int, float, np.number))


def _npy(name: str, opened: Callable[[], IO[bytes]]) -> Element:
    """One array of numpy's format; one in Fortran order appears with its axes reversed."""
    with opened() as stream:
        shape, fortran, dtype = pickles.read_header(stream)
    if dtype.hasobject:
        raise ValueError("an array of Python objects")

    def chunks() -> Iterator[np.ndarray]:
        with opened() as stream:
            pickles.read_header(stream)
            left = math.prod(shape) * dtype.itemsize
            step = max(1, CHUNK_BYTES // max(dtype.itemsize, 1)) * dtype.itemsize
            while left:
                data = stream.read(min(step, left))
                left -= len(data)
                if len(data) % dtype.itemsize or not data:
                    raise ValueError("ends before its last element")
                yield np.frombuffer(data, dtype)

    return _element(name, dtype, shape[::-1] if fortran else shape, chunks)


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
                yield _value(f"@{key}", value)
        pixels = np.asarray(image)
    yield _element("pixels", pixels.dtype, pixels.shape, lambda: iter([pixels.ravel()]))


def _of_npy(path: Path) -> Iterator[Element]:
    yield _npy("", lambda: path.open("rb"))


def _of_safetensors(path: Path) -> Iterator[Element]:
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        for key, value in sorted((file.metadata() or {}).items()):
            yield _value(f"@{key}", value)
        for name in sorted(file.keys()):
            cut = file.get_slice(name)
            shape = tuple(cut.get_shape())
            tensor = np.asarray(cut[tuple(slice(0, 1) for _ in shape)] if shape else 0)

            def chunks(
                cut: Any = cut, name: str = name, shape: Any = shape, size: int = tensor.itemsize
            ) -> Iterator[np.ndarray]:
                if not shape:
                    yield file.get_tensor(name).ravel()
                for index in _pieces(shape, size) if shape else ():
                    yield np.asarray(cut[index]).ravel()

            dtype = tensor.dtype if shape else file.get_tensor(name).dtype
            yield _element(name, dtype, shape, chunks)


def _of_csv(path: Path) -> Iterator[Element]:
    """Yield each column; the file is read once for each, so that no column is in memory whole."""
    with open(path, encoding="utf-8", newline="") as stream:
        reader = csv.reader(stream)
        names = next(reader, [])
        rows = sum(1 for _ in reader)

    def chunks(number: int) -> Iterator[np.ndarray]:
        with open(path, encoding="utf-8", newline="") as stream:
            reader = csv.reader(stream)
            next(reader, None)
            cells: list[str] = []
            for row in reader:
                cells.append(row[number] if number < len(row) else "")
                if len(cells) == CHUNK_ROWS:
                    yield np.array(cells, dtype=object)
                    cells = []
            if cells:
                yield np.array(cells, dtype=object)

    for number, name in enumerate(names):
        yield Element(f"column {name}", "text", (rows,), partial(chunks, number))


def _of_json(path: Path) -> Iterator[Element]:
    return leaves(json.loads(path.read_text(encoding="utf-8")))


def _of_text(path: Path) -> Iterator[Element]:
    def chunks() -> Iterator[np.ndarray]:
        with open(path, encoding="utf-8") as stream:
            for line in stream:
                yield np.array([line.rstrip("\n")], dtype=object)

    with open(path, encoding="utf-8") as stream:
        count = sum(1 for _ in stream)
    yield Element("line", "text", (count,), chunks)


_CONTAINERS: dict[str, Callable[[Path], Iterator[Element]]] = {
    ".hdf5": _of_hdf5,
    ".h5": _of_hdf5,
    ".fits": _of_fits,
    ".npz": _of_npz,
    ".parquet": _of_parquet,
    ".png": _of_png,
}
_READERS = {
    **_CONTAINERS,
    ".npy": _of_npy,
    ".safetensors": _of_safetensors,
    ".csv": _of_csv,
    ".json": _of_json,
    ".md": _of_text,
    ".txt": _of_text,
}
