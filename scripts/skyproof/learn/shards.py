"""Training rows in many `.npy` files, streamed in a random order that is a function of the seed.

The order of epoch e: all shards in a random order; consecutive shards form windows of at least two
shards and `window` rows; the rows of a window in a random order. A batch may span two windows. Each
shard is read once an epoch, and memory holds two windows (one in use, one being read ahead)
however many shards there are. Nothing is remembered between batches but the step, so that a
training can go on at any step of any epoch.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch

from skyproof.core.errors import InputError

T = TypeVar("T")
Stream = Callable[..., np.random.Generator]

WINDOW_ROWS = 2048
_WINDOWS_AHEAD, _BATCHES_AHEAD = 1, 4
_SYMMETRIES = 8  # of a square: four quarter turns, each with and without a mirror


class Share(NamedTuple):
    """Which rows of a batch a rank computes: every size-th of the micro-batches of `rows` rows."""

    rows: int
    rank: int = 0
    size: int = 1

    def mine(self, start: int, count: int) -> np.ndarray:
        """Say which of the rows `start`, `start` + 1, ... of a batch are this rank's, [count]."""
        return np.arange(start, start + count) // self.rows % self.size == self.rank


class Batch(NamedTuple):
    """One step, counted from 0 over all epochs: this rank's rows, x [n, ...] as stored, y [n].

    `n_rows` counts the rows of all ranks.
    """

    step: int
    epoch: int
    n_rows: int
    x: torch.Tensor
    y: torch.Tensor

    def pieces(self, rows: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield this rank's micro-batches of `rows` rows; the batch's last one may be smaller."""
        if len(self.y):
            yield from zip(self.x.split(rows), self.y.split(rows), strict=True)


@dataclass
class Window:
    """The rows of a few shards in memory, with the order in which they are used."""

    epoch: int
    last_of_epoch: bool
    x: np.ndarray
    y: np.ndarray
    order: np.ndarray
    symmetry: np.ndarray | None

    def rows(self, start: int, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the wanted of the rows from position `start` of the order, turned if asked for."""
        chosen = self.order[start : start + len(wanted)]
        chosen = chosen[wanted]
        if self.symmetry is None:
            return self.x[chosen], self.y[chosen]
        return turned(self.x, chosen, self.symmetry[chosen]), self.y[chosen]


class Shards:
    """Pairs of files: x [n, *row_shape] and y [n] with class numbers below `n_classes`.

    The headers are read at once; InputError names the first file that is missing rows, of another
    shape or type, truncated or not .npy. Values are checked (finite, class numbers) when read.
    """

    def __init__(
        self,
        files: Sequence[tuple[Path, Path]],
        row_shape: tuple[int, ...],
        n_classes: int,
        *,
        window: int = WINDOW_ROWS,
    ) -> None:
        self.files = [(Path(x), Path(y)) for x, y in files]
        self.row_shape, self.n_classes, self.window = row_shape, n_classes, window
        self.reads: Counter[Path] = Counter()  # how often each x file was read
        self.counts: list[int] = []
        self.dtype = np.dtype(np.float32)
        for number, (x_path, y_path) in enumerate(self.files):
            x, y = open_npy(x_path, row_shape), open_npy(y_path, ())
            if len(x) != len(y):
                raise InputError(y_path, f"has {len(y)} rows", expected=f"{len(x)}, as {x_path}")
            if number and x.dtype != self.dtype:
                raise InputError(x_path, f"holds {x.dtype}", expected=f"{self.dtype}, as others")
            self.dtype = x.dtype
            self.counts.append(len(x))
        self.n_rows = sum(self.counts)
        if self.n_rows == 0:
            raise InputError(self.files[0][0].parent, "holds no rows", expected="shards with rows")

    def steps(self, batch: int) -> int:
        """Return the number of steps of an epoch; the last one may have fewer rows."""
        return -(-self.n_rows // batch)

    def batches(
        self,
        stream: Stream,
        batch: int,
        n_epochs: int,
        *,
        first: int = 0,
        augment: bool = False,
        share: Share | None = None,
    ) -> Iterator[Batch]:
        """Yield the batches of steps `first`, first + 1, ... until `n_epochs` are complete.

        `stream(*names)` gives the random generator of these names. `share` picks a rank's rows of
        each batch; the windows are read by every rank. Windows and batches are made ahead in
        threads of their own, which changes nothing but the time.
        """
        windows = ahead(self._windows(stream, batch, n_epochs, first, augment), _WINDOWS_AHEAD)
        return ahead(self._cut(windows, batch, first, share or Share(batch)), _BATCHES_AHEAD)

    def _windows(
        self, stream: Stream, batch: int, n_epochs: int, first: int, augment: bool
    ) -> Iterator[Window]:
        first_epoch, step = divmod(first, self.steps(batch))
        for epoch in range(first_epoch, n_epochs):
            skip = step * batch if epoch == first_epoch else 0
            groups = self._groups(stream("shards", epoch).permutation(len(self.files)))
            ends = list(accumulate(sum(self.counts[shard] for shard in group) for group in groups))
            for number, group in enumerate(groups):
                if ends[number] <= skip:
                    continue
                order = stream("rows", epoch, number).permutation(
                    ends[number] - (ends[number - 1] if number else 0)
                )
                seen = max(0, skip - (ends[number] - len(order)))
                last = number == len(groups) - 1
                yield self._read(group, stream, epoch, last, order[seen:], augment)

    def _groups(self, shards: np.ndarray) -> list[list[int]]:
        """Cut the sequence of shards into windows; what is left over joins the last one."""
        groups: list[list[int]] = [[]]
        rows = 0
        for shard in map(int, shards):
            if len(groups[-1]) >= 2 and rows >= self.window:
                groups.append([])
                rows = 0
            groups[-1].append(shard)
            rows += self.counts[shard]
        return groups

    def _read(
        self,
        group: list[int],
        stream: Stream,
        epoch: int,
        last: bool,
        order: np.ndarray,
        augment: bool,
    ) -> Window:
        # Files in the order of their names, not of the epoch: neighbours on disk stay neighbours.
        group = sorted(group)
        total = sum(self.counts[shard] for shard in group)
        x = np.empty((total, *self.row_shape), self.dtype)
        y = np.empty(total, np.int64)
        start = 0
        for shard in group:
            stop = start + self.counts[shard]
            self._read_shard(shard, x[start:stop], y[start:stop])
            start = stop
        symmetry = None
        if augment:
            draws = [
                stream("augment", epoch, shard).integers(0, _SYMMETRIES, self.counts[shard])
                for shard in group
            ]
            symmetry = np.concatenate(draws)
        return Window(epoch, last, x, y, order, symmetry)

    def _read_shard(self, shard: int, x: np.ndarray, y: np.ndarray) -> None:
        x_path, y_path = self.files[shard]
        self.reads[x_path] += 1
        x[...] = open_npy(x_path, self.row_shape)
        refuse_non_finite(x_path, x)
        labels = open_npy(y_path, ())
        wrong = np.flatnonzero(~np.isin(labels, np.arange(self.n_classes)))
        if len(wrong):
            raise InputError(
                y_path, f"holds {labels[wrong[0]]}", record=f"row {wrong[0]}",
                expected=f"a class number below {self.n_classes}",
            )  # fmt: skip
        y[...] = labels

    @staticmethod
    def _cut(windows: Iterator[Window], batch: int, step: int, share: Share) -> Iterator[Batch]:
        """Cut the rows of consecutive windows into batches; an epoch's last one may be smaller."""
        pieces: list[tuple[np.ndarray, np.ndarray]] = []
        have = 0  # rows of the batch so far, on all ranks
        for window in windows:
            start = 0
            while start < len(window.order):
                count = min(batch - have, len(window.order) - start)
                pieces.append(window.rows(start, share.mine(have, count)))
                start, have = start + count, have + count
                if have == batch or (window.last_of_epoch and start == len(window.order)):
                    x, y = (
                        torch.from_numpy(np.concatenate(parts))
                        for parts in zip(*pieces, strict=True)
                    )
                    yield Batch(step, window.epoch, have, x, y)
                    pieces, have, step = [], 0, step + 1


def open_npy(path: Path, row_shape: tuple[int, ...]) -> np.ndarray:
    """Map a .npy file [n, *row_shape] of numbers into memory; InputError says what is wrong."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise InputError(path, "does not exist") from None
    except (ValueError, EOFError) as error:
        reason = " ".join(str(error).split())
        raise InputError(path, f"cannot be read ({reason})", expected="a whole .npy file") from None
    if array.ndim == 0 or array.shape[1:] != row_shape:
        wanted = ", ".join(["n", *map(str, row_shape)])
        raise InputError(path, f"has shape {list(array.shape)}", expected=f"[{wanted}]")
    if array.dtype.kind not in "fiu":
        raise InputError(path, f"is of type {array.dtype}", expected="numbers")
    return array


def refuse_non_finite(path: Path, x: np.ndarray) -> None:
    """Raise InputError, with the row, where x [n, ...] holds NaN or infinity."""
    good = np.isfinite(x).reshape(len(x), -1).all(axis=1)
    if not good.all():
        row = int(np.flatnonzero(~good)[0])
        raise InputError(
            path, "holds NaN or infinity", record=f"row {row}", expected="finite numbers"
        )


def turned(x: np.ndarray, rows: np.ndarray, symmetry: np.ndarray) -> np.ndarray:
    """Return x[rows], each square image [s, s, ...] mapped by one of its 8 symmetries.

    Bit 0 of the symmetry mirrors the first axis, bit 1 the second, bit 2 exchanges them.
    """
    out = np.empty((len(rows), *x.shape[1:]), x.dtype)
    for kind in range(_SYMMETRIES):
        here = np.flatnonzero(symmetry == kind)
        if len(here):
            image = x[rows[here]]
            image = image[:, :: -1 if kind & 1 else 1, :: -1 if kind & 2 else 1]
            out[here] = image.swapaxes(1, 2) if kind & 4 else image
    return out


def ahead(source: Iterator[T], depth: int) -> Iterator[T]:
    """Yield the items of `source` in order, up to `depth` of them made ahead in another thread."""
    if depth == 0:
        yield from source
        return
    end = object()
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as pool:
        waiting = deque(pool.submit(next, source, end) for _ in range(depth))
        while (item := waiting.popleft().result()) is not end:
            waiting.append(pool.submit(next, source, end))
            yield item  # type: ignore[misc]
