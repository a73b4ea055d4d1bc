"""The rows of an ensemble: one table on the device, and for each step one index per member.

The order of the rows of a member in an epoch and its dropped units are functions of its key and the
epoch, and not of the other members.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from skyproof.core.seeds import Stream
from skyproof.learn.ensemble.network import EnsembleBatch
from skyproof.learn.ensemble.shape import Shape

EVALUATION_ROWS = 512  # per forward pass; fixed, because kernels depend on the number of rows
_LEVELS = 1 << 16  # of the random numbers that drop a unit


@dataclass(frozen=True, eq=False)
class EnsembleRows:
    """Inputs of a network: features [n, F], label [n], weight [n] (>= 0), float32.

    Members that share an instance share its memory.
    """

    x: np.ndarray
    y: np.ndarray
    weight: np.ndarray


class DeviceTable:
    """The distinct rows of all members on the device: features, label, weight."""

    def __init__(self, rows: Sequence[EnsembleRows], device: torch.device) -> None:
        distinct = list({id(one): one for one in rows}.values())
        starts = np.cumsum([0, *(len(one.x) for one in distinct[:-1])])
        begin = {id(one): int(start) for one, start in zip(distinct, starts, strict=True)}
        self.offsets = [begin[id(one)] for one in rows]
        columns = [np.column_stack([one.x, one.y, one.weight]) for one in distinct]
        table = np.concatenate(columns).astype(np.float32, copy=False)
        self.rows = torch.from_numpy(table).to(device)

    def take(self, index: Tensor, n_members: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return x [E, rows, F], y [E, rows], weight [E, rows] of the rows `index` [E x rows]."""
        taken = self.rows.index_select(0, index).unflatten(0, (n_members, -1))
        return taken[:, :, :-2], taken[:, :, -2].contiguous(), taken[:, :, -1].contiguous()


@dataclass(frozen=True)
class Steps:
    """Rows by step; if a member has fewer rows, the last ones of a step are padding."""

    index: Tensor  # [steps, E x rows], into the table
    counts: np.ndarray  # [steps, E], rows of each member
    width: int  # rows of a step

    def __len__(self) -> int:
        return len(self.counts)

    def mask(self, step: int) -> Tensor | None:
        """Return 1 for rows and 0 for padding [E, rows]; None without padding."""
        if (self.counts[step] == self.width).all():
            return None
        here = np.arange(self.width) < self.counts[step][:, None]
        return torch.from_numpy(here.astype(np.float32)).to(self.index.device)


def in_steps(
    rows: Sequence[np.ndarray], width: int, table: DeviceTable, *, whole: bool = False
) -> Steps:
    """Divide each member's rows into steps of `width`; `whole` as for `usable`."""
    used = [usable(len(own), width, whole) for own in rows]
    n_steps = -(-max(used) // width)
    index = np.zeros((len(rows), n_steps * width), np.int64)
    for e, own in enumerate(rows):
        index[e, : used[e]] = own[: used[e]]
        index[e] += table.offsets[e]
    begin = np.arange(n_steps)[:, None] * width
    counts = np.clip(np.array(used)[None, :] - begin, 0, width)
    by_step = index.reshape(len(rows), n_steps, width).transpose(1, 0, 2).reshape(n_steps, -1)
    return Steps(torch.from_numpy(by_step).to(table.rows.device), counts, width)


def usable(n_rows: int, width: int, whole: bool) -> int:
    """Return the number of rows of a member that an epoch uses.

    With `whole`, a single row in the last step is left out of the epoch, because batch
    normalisation needs a variance. The order changes, so it is another row in each epoch.
    """
    return n_rows - 1 if whole and n_rows % width == 1 else n_rows


def order(rows: np.ndarray, stream: Stream, key: object, epoch: int) -> np.ndarray:
    """Return a member's training rows in the order of an epoch (from 0)."""
    return rows[stream("order", key, epoch).permutation(len(rows))]


def batches(
    steps: Steps,
    table: DeviceTable,
    shape: Shape,
    keys: Sequence[tuple[object, int]],
    stream: Stream,
    *,
    masked: bool = False,
) -> Iterator[EnsembleBatch]:
    """Yield the batches of an epoch; `keys` are each member's key and epoch.

    With `masked` every batch has a mask, so that all have the same form (compiled steps).
    """
    n_members, device = len(keys), table.rows.device
    for step in range(len(steps)):
        counts = np.maximum(steps.counts[step], 2 if shape.normalised else 1)
        factors = np.array([1 / counts, counts / np.maximum(counts - 1, 1)], np.float32)
        inverse, unbias = torch.from_numpy(factors).to(device)[:, :, None, None]
        mask = steps.mask(step)
        if masked and mask is None:
            mask = torch.ones(n_members, steps.width, device=device)
        yield EnsembleBatch(
            *table.take(steps.index[step], n_members),
            inverse,
            unbias,
            None if mask is None else mask[:, None],
            tuple(dropout_factors(shape, steps.width, keys, step, stream, device)),
        )


def dropout_factors(
    shape: Shape,
    width: int,
    keys: Sequence[tuple[object, int]],
    step: int,
    stream: Stream,
    device: torch.device,
) -> Iterator[Tensor | None]:
    """Yield for each hidden layer 0 for dropped units and 1/(1 - p) for the others, or None.

    p is rounded to a multiple of 1/65,536.
    """
    for i in range(shape.n_hidden):
        dropped = round(shape.dropout[i] * _LEVELS) if shape.dropout else 0
        if not dropped:
            yield None
            continue
        size = (shape.widths[i + 1], width)
        factors = np.zeros((len(keys), *size), np.float32)
        for e, (key, epoch) in enumerate(keys):
            draws = stream("dropout", key, epoch, step, i).integers(0, _LEVELS, size, np.uint16)
            factors[e][draws >= dropped] = _LEVELS / (_LEVELS - dropped)
        yield torch.from_numpy(factors).to(device)
