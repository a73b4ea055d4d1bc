"""Assembly of a network's inputs on the device: normalise, mirror, rotate.

An assembly draws random numbers for each row as a function of (seed, epoch, row), on the host, and
applies them to the rows once these are on the device. Therefore the transform of a row
does not depend on the batch, the rank or the step at which a training was resumed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

_SYMMETRIES = 8  # of a square: four quarter turns, each with and without a mirror


class Assembly(Protocol):
    """Makes a network's input and target from rows as stored."""

    def draw(self, generator: np.random.Generator, n_rows: int) -> np.ndarray:
        """Return the random numbers [n_rows, ...] of a shard's rows in an epoch."""

    def __call__(self, x: Tensor, y: Tensor, drawn: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return input and target of the rows x [n, ...], y [n, ...], on their device.

        `drawn` are their random numbers [n, ...], None in validation.
        """


@dataclass(frozen=True)
class Symmetries:
    """Maps each square image x [n, s, s, ...] by a random symmetry of the square.

    `kinds`: 8 for all symmetries, 4 for mirrors of the two axes only. With `maps` the targets are
    maps [n, t, t, ...] of the same field and are transformed with x. Validation rows are not
    changed.
    """

    kinds: int = _SYMMETRIES
    maps: bool = False

    def draw(self, generator: np.random.Generator, n_rows: int) -> np.ndarray:
        return generator.integers(0, self.kinds, n_rows)

    def __call__(self, x: Tensor, y: Tensor, drawn: Tensor | None) -> tuple[Tensor, Tensor]:
        if drawn is None:
            return x, y
        return transformed(x, drawn), transformed(y, drawn) if self.maps else y


@dataclass(frozen=True)
class NormaliseChannels:
    """Maps x [n, ..., c] to (x - mean) / scale by channel, in float32; targets stay.

    `mean` and `scale` have c values. `before` is applied first, to the rows as stored. Raise
    ValueError if the numbers of values differ or a scale is not positive.
    """

    mean: tuple[float, ...]
    scale: tuple[float, ...]
    before: Assembly | None = None

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.scale) or not all(value > 0 for value in self.scale):
            raise ValueError(f"mean {self.mean} and scale {self.scale} do not normalise channels")

    def draw(self, generator: np.random.Generator, n_rows: int) -> np.ndarray:
        return self.before.draw(generator, n_rows) if self.before else np.zeros(n_rows, np.uint8)

    def __call__(self, x: Tensor, y: Tensor, drawn: Tensor | None) -> tuple[Tensor, Tensor]:
        if self.before:
            x, y = self.before(x, y, drawn)
        mean, scale = (_on_device(values, x.device) for values in (self.mean, self.scale))
        if x.shape[-1] != len(mean):
            raise ValueError(f"{x.shape[-1]} channels, but {len(mean)} means")
        return (x.float() - mean) / scale, y


@cache
def _on_device(values: tuple[float, ...], device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=device)


def transformed(x: Tensor, symmetry: Tensor) -> Tensor:
    """Return the square images x [n, s, s, ...], each mapped by one of its 8 symmetries [n].

    Bit 0 of the symmetry mirrors the first axis, bit 1 the second, bit 2 then exchanges them.
    """
    n, side = x.shape[:2]
    if x.shape[2] != side:
        raise ValueError(f"images of {side} x {x.shape[2]} are not square")
    first = torch.arange(n, device=x.device)[:, None] * side**2
    index = (first + _sources(side, x.device)[symmetry]).flatten()
    return x.reshape(n * side**2, -1).index_select(0, index).view(x.shape)


@cache
def _sources(side: int, device: torch.device) -> Tensor:
    """Return for each symmetry and pixel the pixel that its value comes from, [8, side^2]."""
    pixels = np.arange(side**2).reshape(side, side)
    rows = []
    for kind in range(_SYMMETRIES):
        image = pixels[:: -1 if kind & 1 else 1, :: -1 if kind & 2 else 1]
        rows.append((image.T if kind & 4 else image).flatten())
    return torch.from_numpy(np.stack(rows)).to(device)
