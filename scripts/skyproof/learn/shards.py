"""Training and validation rows in pairs of `.npy` files: inputs x [n, ...], targets y [n, ...].

Training rows are streamed in a random order that is a function of the seed. The order of epoch e:
all shards in a random order; consecutive shards form windows of at least two shards and `window`
rows; the rows of a window in a random order. A batch may span several windows. Each shard is read
once per epoch, and memory holds two windows (one in use, one being read ahead), independent of the
number of shards. The step number is the only state, so a training can start at any step.

Validation rows are read in the order of the files.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
import torch

from skyproof.core.errors import InputError
from skyproof.core.formats import read
from skyproof.core.seeds import Stream

T = TypeVar("T")
# (generator of an epoch and a shard, rows of the shard) -> random numbers [rows, ...]
Draw = Callable[[np.random.Generator, int], np.ndarray]
Piece = tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]  # x, y, random numbers of a few rows

WINDOW_ROWS = 2048
_WINDOWS_AHEAD, _BATCHES_AHEAD = 1, 4
_NUMBERS = "biuf"  # kinds of numpy types


class Targets(Protocol):
    """Form of the targets: y [n, *row_shape], in memory of type `dtype`."""

    @property
    def row_shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype: ...

    def check(self, path: Path, y: np.ndarray, first: int = 0) -> None:
        """Raise InputError for invalid targets in y, as stored; `first` is its first row."""


@dataclass(frozen=True)
class ClassNumbers:
    """One class number per row, 0 to `n_classes` - 1, stored in any numeric type."""

    n_classes: int
    row_shape = ()
    dtype = np.dtype(np.int64)

    def check(self, path: Path, y: np.ndarray, first: int = 0) -> None:
        wrong = np.flatnonzero(~np.isin(y, np.arange(self.n_classes)))
        if len(wrong):
            raise InputError(
                path, f"holds {y[wrong[0]]}", record=f"row {first + wrong[0]}",
                expected=f"a class number below {self.n_classes}",
            )  # fmt: skip


@dataclass(frozen=True)
class Values:
    """Finite numbers per row: a scalar, the bins of a distribution, a map [h, w, c], ..."""

    row_shape: tuple[int, ...] = ()
    dtype: np.dtype = np.dtype(np.float32)  # noqa: RUF009  (immutable)

    def check(self, path: Path, y: np.ndarray, first: int = 0) -> None:
        # A float64 beyond the range of float32 would become infinite.
        with np.errstate(over="ignore"):
            check_finite(path, y.astype(self.dtype, copy=False), first)


class Share(NamedTuple):
    """The part of a batch that a rank computes: every size-th of its micro-batches of `rows`."""

    rows: int
    rank: int = 0
    size: int = 1

    def mine(self, start: int, count: int) -> np.ndarray:
        """Return a mask [count] of this rank's rows among those of a batch from `start`."""
        return np.arange(start, start + count) // self.rows % self.size == self.rank


class Batch(NamedTuple):
    """This rank's rows of one step (counted from 0 over all epochs).

    x [n, ...] as stored, y [n, ...], and, if requested, the random numbers of the rows in this
    epoch [n, ...]. `n_rows` is the number of rows of all ranks.
    """

    step: int
    epoch: int
    n_rows: int
    x: torch.Tensor
    y: torch.Tensor
    drawn: torch.Tensor | None = None

    def pieces(self, rows: int) -> Iterator[Piece]:
        """Yield this rank's micro-batches of `rows` rows; the last one may be smaller."""
        for start in range(0, len(self.y), rows):
            part = slice(start, start + rows)
            yield self.x[part], self.y[part], None if self.drawn is None else self.drawn[part]


@dataclass
class Window:
    """The rows of a few shards in memory, and their order of use."""

    epoch: int
    last_of_epoch: bool
    arrays: tuple[np.ndarray, ...]  # x, y and, if there are any, random numbers: [rows, ...] each
    order: np.ndarray

    def rows(self, start: int, wanted: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return the rows from position `start` of the order, selected by the mask `wanted`."""
        chosen = self.order[start : start + len(wanted)][wanted]
        return tuple(array[chosen] for array in self.arrays)


class Shards:
    """Pairs of files with x [n, *row_shape] of any numeric type and y as `targets` describes.

    The constructor reads the headers. It raises InputError for the first file that lacks rows, has
    another shape or type, is truncated or not .npy. Values are checked when they are read. With
    `resident` all rows stay in memory after the first read, for small sets that are used often.
    """

    def __init__(
        self,
        files: Sequence[tuple[Path, Path]],
        row_shape: tuple[int, ...],
        targets: Targets,
        *,
        window: int = WINDOW_ROWS,
        resident: bool = False,
    ) -> None:
        self.files = [(Path(x), Path(y)) for x, y in files]
        self.row_shape, self.targets, self.window = row_shape, targets, window
        self.reads: Counter[Path] = Counter()  # how often each x file was read completely
        self.counts: list[int] = []
        self.dtype = np.dtype(np.float32)
        self._resident: dict[int, tuple[np.ndarray, np.ndarray]] | None = {} if resident else None
        for number, (x_path, y_path) in enumerate(self.files):
            x, y = open_rows(x_path, row_shape), open_rows(y_path, targets.row_shape)
            if len(x) != len(y):
                raise InputError(y_path, f"has {len(y)} rows", expected=f"{len(x)}, as {x_path}")
            if number and x.dtype != self.dtype:
                raise InputError(x_path, f"holds {x.dtype}", expected=f"{self.dtype}, as others")
            self.dtype = x.dtype
            self.counts.append(len(x))
        self.n_rows = sum(self.counts)
        if self.n_rows == 0:
            where = self.files[0][0].parent if self.files else "no file"
            raise InputError(where, "holds no rows", expected="shards with rows")

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
        draw: Draw | None = None,
        share: Share | None = None,
    ) -> Iterator[Batch]:
        """Yield the batches of steps `first`, first + 1, ... until `n_epochs` are complete.

        `draw` returns the random numbers of the rows: `draw(stream("augment", epoch, shard), n)`
        for the n rows of a shard, so they are a function of (seed, epoch, row). `share` selects a
        rank's rows of each batch; every rank reads all windows. Windows and batches are made ahead
        in other threads, which does not change them.
        """
        windows = ahead(self._windows(stream, batch, n_epochs, first, draw), _WINDOWS_AHEAD)
        # At most one window of rows is made ahead.
        depth = max(1, min(_BATCHES_AHEAD, self.window // batch)) if _BATCHES_AHEAD else 0
        return ahead(self._cut(windows, batch, first, share or Share(batch)), depth)

    def in_order(self, share: Share) -> Iterator[Piece]:
        """Yield this rank's micro-batches of at most `share.rows` rows, by file and row.

        A micro-batch has rows of one file only. Ranks read only their own rows.
        """
        number = 0
        for shard, (x_path, y_path) in enumerate(self.files):
            whole = self._opened(shard)
            for start in range(0, self.counts[shard], share.rows):
                if number % share.size == share.rank:
                    part = slice(start, start + share.rows)
                    x, y = (np.array(array[part]) for array in whole)
                    check_finite(x_path, x, start)
                    self.targets.check(y_path, y, start)
                    y = y.astype(self.targets.dtype, copy=False)
                    yield torch.from_numpy(x), torch.from_numpy(y), None
                number += 1

    def _opened(self, shard: int) -> tuple[np.ndarray, np.ndarray]:
        """Return x and y of a shard, from memory if resident, else as mapped files."""
        if self._resident is None:
            x_path, y_path = self.files[shard]
            return open_rows(x_path, self.row_shape), open_rows(y_path, self.targets.row_shape)
        if shard not in self._resident:
            n_rows = self.counts[shard]
            x = np.empty((n_rows, *self.row_shape), self.dtype)
            y = np.empty((n_rows, *self.targets.row_shape), self.targets.dtype)
            self._read_shard(shard, x, y)
            self._resident[shard] = x, y
        return self._resident[shard]

    def _windows(
        self, stream: Stream, batch: int, n_epochs: int, first: int, draw: Draw | None
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
                yield self._read(group, stream, epoch, last, order[seen:], draw)

    def _groups(self, shards: np.ndarray) -> list[list[int]]:
        """Divide the sequence of shards into windows; the remainder is added to the last one."""
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
        draw: Draw | None,
    ) -> Window:
        # Files in the order of their names: sequential reads on the disk.
        group = sorted(group)
        total = sum(self.counts[shard] for shard in group)
        x = np.empty((total, *self.row_shape), self.dtype)
        y = np.empty((total, *self.targets.row_shape), self.targets.dtype)
        start = 0
        for shard in group:
            stop = start + self.counts[shard]
            if self._resident is None:
                self._read_shard(shard, x[start:stop], y[start:stop])
            else:
                x[start:stop], y[start:stop] = self._opened(shard)
            start = stop
        if draw is None:
            return Window(epoch, last, (x, y), order)
        drawn = [draw(stream("augment", epoch, shard), self.counts[shard]) for shard in group]
        return Window(epoch, last, (x, y, np.concatenate(drawn)), order)

    def _read_shard(self, shard: int, x: np.ndarray, y: np.ndarray) -> None:
        x_path, y_path = self.files[shard]
        self.reads[x_path] += 1
        x[...] = open_rows(x_path, self.row_shape)
        check_finite(x_path, x)
        stored = open_rows(y_path, self.targets.row_shape)
        self.targets.check(y_path, stored)
        y[...] = stored

    @staticmethod
    def _cut(windows: Iterator[Window], batch: int, step: int, share: Share) -> Iterator[Batch]:
        """Cut the rows of consecutive windows into batches; an epoch's last one may be smaller."""
        pieces: list[tuple[np.ndarray, ...]] = []
        have = 0  # rows of the batch so far, on all ranks
        for window in windows:
            start = 0
            while start < len(window.order):
                count = min(batch - have, len(window.order) - start)
                pieces.append(window.rows(start, share.mine(have, count)))
                start, have = start + count, have + count
                if have == batch or (window.last_of_epoch and start == len(window.order)):
                    rows = (torch.from_numpy(np.concatenate(p)) for p in zip(*pieces, strict=True))
                    yield Batch(step, window.epoch, have, *rows)
                    pieces, have, step = [], 0, step + 1


def open_rows(path: Path, row_shape: tuple[int, ...]) -> np.ndarray:
    """Map a .npy file [n, *row_shape] of numbers into memory. Raise InputError if it is invalid."""
    return read.npy(path, shape=(None, *row_shape), dtypes=_NUMBERS, mapped=True)


def check_finite(path: Path, x: np.ndarray, first: int = 0) -> None:
    """Raise InputError with the first row of x [n, ...] that has NaN or infinity.

    `first` is the number of the first row in the file.
    """
    good = np.isfinite(x).reshape(len(x), -1).all(axis=1)
    if not good.all():
        row = first + int(np.flatnonzero(~good)[0])
        raise InputError(
            path, "holds NaN or infinity", record=f"row {row}", expected="finite numbers"
        )


def ahead(source: Iterator[T], depth: int) -> Iterator[T]:
    """Yield the items of `source` in order; another thread computes up to `depth` of them ahead."""
    if depth == 0:
        yield from source
        return
    end = object()
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as pool:
        waiting = deque(pool.submit(next, source, end) for _ in range(depth))
        while (item := waiting.popleft().result()) is not end:
            waiting.append(pool.submit(next, source, end))
            yield item  # type: ignore[misc]
