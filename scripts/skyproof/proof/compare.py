"""Compare two files element by element: first difference, number and size of differences."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from skyproof.core.formats.contents import CHUNK_BYTES, Element, elements, suffix_of
from skyproof.proof.difference import Comparison, Difference, Tolerance

Source = Callable[[], Iterator[Element]]


def compare(path: Path, reference: Path, tolerance: Tolerance | None) -> list[Difference]:
    """Return the differences of a file from its reference, in the file's order.

    `Difference.close` is True within the tolerance, and never without a tolerance. Files of an
    unknown format, and files that their library cannot read, are compared byte by byte.
    """
    try:
        return list(
            compare_elements(lambda: elements(path), lambda: elements(reference), tolerance)
        )
    except Exception as error:
        found = _by_byte(path, reference)
        found.element = f"bytes (not readable as {suffix_of(path) or 'data'}: {error})"
        return [found] if found.count or found.problem else []


def compare_elements(
    left: Source, right: Source, tolerance: Tolerance | None
) -> Iterator[Difference]:
    """Yield the differences of elements from the reference's elements.

    `left` and `right` are called several times.
    """
    mine = {e.name: e for e in left()}
    theirs = {e.name: e for e in right()}
    for name in mine:
        if name not in theirs:
            yield Difference(name, "is not in the reference", close=False)
    for name in theirs:
        if name not in mine:
            yield Difference(name, "is missing", close=False)
    common = mine.keys() & theirs.keys()
    for a, b in _paired(left, right, common):
        yield from _values(a, b, tolerance)


def _paired(left: Source, right: Source, names: set[str]) -> Iterator[tuple[Element, Element]]:
    """Yield pairs of elements of the same name, while their files are open."""
    others = (e for e in right() if e.name in names)
    for a in left():
        if a.name not in names:
            continue
        b = next(others, None)
        if b is None or b.name != a.name:  # columns or cards are in another order
            again = right()
            yield a, next(e for e in again if e.name == a.name)
        else:
            yield a, b


def _values(left: Element, right: Element, tolerance: Tolerance | None) -> Iterator[Difference]:
    same_rows = left.shape[1:] == right.shape[1:] and len(left.shape) == len(right.shape)
    if left.dtype != right.dtype or not same_rows:
        problem = f"is {_form(left)}, in the reference {_form(right)}"
        yield Difference(left.name, problem, close=False)
        return
    comparisons: dict[str, Comparison] = {}
    for a, b in _aligned(left.chunks(), right.chunks()):
        for name in a.dtype.names or ("",):
            comparison = comparisons.setdefault(name, Comparison(left, name, tolerance))
            comparison.add(a[name], b[name]) if name else comparison.add(a, b)
    found = [t.difference() for t in comparisons.values() if t.found.count]
    if left.shape != right.shape:
        problem = f"has {left.shape[0]} rows, the reference {right.shape[0]}"
        yield replace(found[0] if found else Difference(left.name), problem=problem, close=False)
        found = found[1:]
    yield from found


def _form(element: Element) -> str:
    return f"{element.dtype} {list(element.shape)}"


def _aligned(
    left: Iterator[np.ndarray], right: Iterator[np.ndarray]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield pairs of pieces of equal length of two streams of flat arrays.

    Ends with the shorter stream.
    """
    a = b = np.empty(0)
    while True:
        if not len(a):
            a = next(left, np.empty(0))
        if not len(b):
            b = next(right, np.empty(0))
        n = min(len(a), len(b))
        if n == 0:
            return
        yield a[:n], b[:n]
        a, b = a[n:], b[n:]


def _by_byte(path: Path, reference: Path) -> Difference:
    def chunks(name: Path) -> Iterator[np.ndarray]:
        with open(name, "rb") as stream:
            while data := stream.read(CHUNK_BYTES):
                yield np.frombuffer(data, np.uint8)

    sizes = path.stat().st_size, reference.stat().st_size
    whole = Element("bytes", "|u1", (sizes[0],), lambda: chunks(path))
    comparison = Comparison(whole, "", None)
    for a, b in _aligned(chunks(path), chunks(reference)):
        comparison.add(a, b)
    found = comparison.difference()
    if sizes[0] != sizes[1]:
        found.problem = f"has {sizes[0]} bytes, the reference {sizes[1]}"
    return replace(found, close=False)
