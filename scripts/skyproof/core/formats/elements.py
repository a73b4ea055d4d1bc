"""Readers of the formats whose bytes are their content, so that they too can be compared."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np

from skyproof.core.formats import contents
from skyproof.core.formats.contents import CHUNK_ROWS, Element, make_element, make_value, pieces


def elements(path: str | Path) -> Iterator[Element]:
    """Yield the elements of a product in its order, or by name (ValueError: not readable)."""
    suffix = contents.suffix_of(path)
    if suffix not in _READERS:
        raise ValueError(f"no reader of {suffix or 'files without a suffix'}")
    yield from _READERS[suffix](Path(path))


def _of_npy(path: Path) -> Iterator[Element]:
    def opened() -> IO[bytes]:
        return open(path, "rb")

    yield contents.read_npy("", opened)


def _of_safetensors(path: Path) -> Iterator[Element]:
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        for key, value in sorted((file.metadata() or {}).items()):
            yield make_value(f"@{key}", value)
        for name in sorted(file.keys()):
            cut = file.get_slice(name)
            shape = tuple(cut.get_shape())
            tensor = np.asarray(cut[tuple(slice(0, 1) for _ in shape)] if shape else 0)

            def chunks(
                cut: Any = cut, name: str = name, shape: Any = shape, size: int = tensor.itemsize
            ) -> Iterator[np.ndarray]:
                if not shape:
                    yield file.get_tensor(name).ravel()
                for index in pieces(shape, size) if shape else ():
                    yield np.asarray(cut[index]).ravel()

            dtype = tensor.dtype if shape else file.get_tensor(name).dtype
            yield make_element(name, dtype, shape, chunks)


def _of_csv(path: Path) -> Iterator[Element]:
    """A column an element; the file is read once a column, so that no column is held whole."""
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


def leaves(value: Any) -> Iterator[Element]:
    """Yield the leaves of plain nested values, each under its path."""
    for name, leaf in _leaves("", value):
        yield make_value(name, leaf)


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the leaves of JSON; a list of numbers is one leaf."""
    if isinstance(value, dict):
        for key in sorted(value):
            yield from _leaves(f"{name}.{key}" if name else key, value[key])
        if not value:
            yield name, "{}"
    elif isinstance(value, list) and not _numbers(value):
        for number, item in enumerate(value):
            yield from _leaves(f"{name}[{number}]", item)
        if not value:
            yield name, "[]"
    else:
        yield name, value if isinstance(value, (int, float, list)) else json.dumps(value)


def _numbers(values: list[Any]) -> bool:
    kinds = {type(v) for v in values}
    return len(kinds) == 1 and kinds <= {int, float}


def _of_text(path: Path) -> Iterator[Element]:
    def chunks() -> Iterator[np.ndarray]:
        with open(path, encoding="utf-8") as stream:
            for line in stream:
                yield np.array([line.rstrip("\n")], dtype=object)

    with open(path, encoding="utf-8") as stream:
        count = sum(1 for _ in stream)
    yield Element("line", "text", (count,), chunks)


_READERS: dict[str, Callable[[Path], Iterator[Element]]] = {
    **contents.READERS,
    ".npy": _of_npy,
    ".safetensors": _of_safetensors,
    ".csv": _of_csv,
    ".json": _of_json,
    ".md": _of_text,
    ".txt": _of_text,
}
