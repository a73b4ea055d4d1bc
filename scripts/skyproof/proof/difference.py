"""Count and measure the differences of two streams of elements, in constant memory."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from skyproof.core.formats.contents import Element

_NUMBER = re.compile(r"[-+]?(?:\d+\.\d*|\.\d+|\d+(?=[eE]))(?:[eE][-+]?\d+)?")
_SHOWN = 60


@dataclass(frozen=True)
class Tolerance:
    """Largest accepted difference of floats: |a - b| <= atol + rtol |b| for every element.

    Figures are judged as a whole, by the mean absolute difference of their pixels, `mean_pixel`
    (levels of 0 to 255). Integers, names and the text around numbers must be equal; NaN equals only
    NaN.
    """

    rtol: float
    atol: float
    mean_pixel: float = 0.0


@dataclass
class Difference:
    """The difference in one element: a dataset, a column, a header card, the lines of a text."""

    element: str
    problem: str = ""  # other than values: missing, another type or shape
    index: tuple[int, ...] = ()
    values: tuple[str, str] = ("", "")
    count: int = 0
    total: int = 0
    max_abs: float | None = None
    max_rel: float | None = None
    max_ulp: int | None = None
    close: bool = True

    def lines(self) -> list[str]:
        """Return the report: element, first difference, number and size of differences."""
        lines = [f"data     {self.element}" + (f" {self.problem}" if self.problem else "")]
        if self.count:
            where = f"[{', '.join(map(str, self.index))}] " if self.index else ""
            lines.append(f"first    {where}{self.values[0]}, reference {self.values[1]}")
            lines.append(f"extent   {self.count} of {self.total} differ{self._largest()}")
        return lines

    def _largest(self) -> str:
        if self.max_abs is None:
            return ""
        ulp = "" if self.max_ulp is None else f", {self.max_ulp} ulp"
        return f"; largest difference {self.max_abs:.3g}, relative {self.max_rel:.3g}{ulp}"


class Comparison:
    """The running comparison of one element, or of one column of a table."""

    def __init__(self, element: Element, column: str, tolerance: Tolerance | None) -> None:
        name = f"{element.name} column {column}" if column else element.name
        self.found = Difference(name.strip() or "the array")
        self._shape, self._tolerance = element.shape, tolerance
        self._pixels = element.name == "pixels"
        self._seen = 0
        self._sum = 0.0

    def add(self, a: np.ndarray, b: np.ndarray) -> None:
        """Compare the next values; for a column of a table, `a` and `b` are [rows, ...]."""
        inner = a.shape[1:]
        rows, a, b = len(a), a.ravel(), b.ravel()
        different = _different(a, b)
        start, self._seen = self._seen, self._seen + len(a)
        self.found.total = self._seen
        if not different.any():
            return
        if not self.found.count:
            first = int(np.argmax(different))
            self.found.values = _shown(a[first], b[first]), _shown(b[first], a[first])
            self.found.index = self._index(start + first, inner, rows)
        self.found.count += int(different.sum())
        self._measure(a[different], b[different])

    def difference(self) -> Difference:
        """Return the difference found so far."""
        if self._pixels and self._tolerance is not None and self._seen:
            self.found.close = self._sum / self._seen <= self._tolerance.mean_pixel
        return self.found

    def _index(self, offset: int, inner: tuple[int, ...], rows: int) -> tuple[int, ...]:
        if inner:
            shape = (offset + rows * int(np.prod(inner)), *inner)
            return tuple(int(i) for i in np.unravel_index(offset, shape))
        if len(self._shape) < 2:
            return (offset,) if self._shape else ()
        return tuple(int(i) for i in np.unravel_index(offset, self._shape))

    def _measure(self, a: np.ndarray, b: np.ndarray) -> None:
        if a.dtype.kind in "OSU":
            self._measure_text([str(v) for v in a.tolist()], [str(v) for v in b.tolist()])
        elif a.dtype.kind == "f":
            self._measure_floats(a, b)
        elif a.dtype.kind in "iub":
            gaps = [abs(int(x) - int(y)) for x, y in zip(a.tolist(), b.tolist(), strict=True)]
            self._sum += sum(gaps)
            largest = [g / abs(y) if y else np.inf for g, y in zip(gaps, b.tolist(), strict=True)]
            self._widen(max(gaps), max(largest), None)
            self.found.close = False
        else:
            self.found.close = False

    def _measure_floats(self, a: np.ndarray, b: np.ndarray) -> None:
        with np.errstate(all="ignore"):
            wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
            both = np.isfinite(wide_a) & np.isfinite(wide_b)
            gap = np.where(both, np.abs(wide_a - wide_b), np.inf)
            gap = np.where(np.isnan(wide_a) & np.isnan(wide_b) | (wide_a == wide_b), 0.0, gap)
            relative = np.where(gap == 0, 0.0, gap / np.abs(wide_b))
            relative = np.where(np.isnan(relative), np.inf, relative)
            ulp = int(_ulps(a[both], b[both]).max()) if both.any() else 0
            self._widen(float(gap.max()), float(relative.max()), ulp)
            t = self._tolerance
            if (
                t is None
                or not (gap <= t.atol + t.rtol * np.abs(wide_b)).all()
                or np.isinf(gap).any()
            ):
                self.found.close = False

    def _measure_text(self, a: list[str], b: list[str]) -> None:
        numbers = [pair for pair in zip(a, b, strict=True) if all(map(_is_float, pair))]
        if numbers:
            left, right = np.array(numbers, dtype=np.float64).T
            self._measure_floats(left, right)
        for x, y in zip(a, b, strict=True):
            if not text_is_close(x, y, self._tolerance):
                self.found.close = False

    def _widen(self, gap: float, relative: float, ulp: int | None) -> None:
        self.found.max_abs = max(self.found.max_abs or 0.0, gap)
        self.found.max_rel = max(self.found.max_rel or 0.0, relative)
        if ulp is not None:
            self.found.max_ulp = max(self.found.max_ulp or 0, ulp)


def _different(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return where the bits of a [n] and b [n] differ: 0 and -0 differ, equal NaNs do not."""
    if a.dtype.hasobject or a.dtype != b.dtype or a.dtype.itemsize == 0:
        return np.array([type(x) is not type(y) or x != y for x, y in zip(a, b, strict=True)])
    size = a.dtype.itemsize
    unit = np.dtype(f"u{size}" if size in (1, 2, 4, 8) else "u1")
    left, right = (np.ascontiguousarray(v).view(unit).reshape(len(v), -1) for v in (a, b))
    return (left != right).any(axis=1)


def _ulps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the distance of finite floats a [n] and b [n] in units in the last place."""
    bits = np.dtype(f"u{a.dtype.itemsize}")
    sign = np.array(1 << (8 * bits.itemsize - 1), bits)

    def order(values: np.ndarray) -> np.ndarray:
        raw = np.ascontiguousarray(values.astype(values.dtype.newbyteorder("="))).view(bits)
        return np.where(raw & sign, sign - (raw & ~sign), sign + raw)

    left, right = order(a), order(b)
    return np.where(left > right, left - right, right - left)


def text_is_close(a: str, b: str, tolerance: Tolerance | None) -> bool:
    """Return whether two lines differ only in floats within the tolerance.

    Floats are numbers with a point or an exponent.
    """
    if a == b:
        return True
    if tolerance is None or _NUMBER.sub("#", a) != _NUMBER.sub("#", b):
        return False
    pairs = zip(_NUMBER.findall(a), _NUMBER.findall(b), strict=True)
    return all(
        abs(float(x) - float(y)) <= tolerance.atol + tolerance.rtol * abs(float(y))
        for x, y in pairs
    )


def _is_float(word: str) -> bool:
    return _NUMBER.fullmatch(word) is not None


def _shown(value: Any, other: Any) -> str:
    """Return a value as text: a float with its bits, a long text around the first difference."""
    if isinstance(value, np.floating):
        bits = np.asarray(value, value.dtype.newbyteorder(">")).tobytes().hex()
        return f"{value!s} (0x{bits})"
    text, beside = (repr(v.item() if isinstance(v, np.generic) else v) for v in (value, other))
    pairs = enumerate(zip(text, beside, strict=False))
    first = next((place for place, (x, y) in pairs if x != y), min(len(text), len(beside)))
    start = max(0, first - _SHOWN // 3)
    before, after = "..." * (start > 0), "..." * (len(text) > start + _SHOWN)
    return f"{before}{text[start : start + _SHOWN]}{after}"
