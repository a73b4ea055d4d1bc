"""The network of the Obiwan project's `dplearn`: three 7x7 convolutions and two dense layers.

The layers of a 64 x 64 x 6 stamp, with 353,786 parameters:

    convolution 7x7, ReLU   64 x 64 x 18      average pooling   32 x 32 x 18
    convolution 7x7, ReLU   32 x 32 x 36      average pooling   16 x 16 x 36
    convolution 7x7, ReLU   16 x 16 x 54      average pooling    8 x  8 x 54
    dense, ReLU             64                dense              2 (logits: real, fake)

Pooling is 2x2 with stride 2 as in the original's code, or 7x7 with stride 2 as in its published
table (whose ReLU after it changes nothing: averages of non-negative numbers).

Its first layer normalises nanomaggies and inverse variances to numbers of order one, with scales
of the training part:

Image:             (asinh(image x sqrt(m) / 3) - mean) / std, where m is the band's typical inverse
                   variance: linear up to 3 sigma of the noise, logarithmic in bright cores.
Inverse variance:  (log1p(ivar) - mean) / std, kept within +-3, times 0.1.
A masked pixel (ivar = 0) has image 0 and the value -0.4, which no other pixel has.

The factor 0.1 keeps the edges of exposures in the inverse variance, which both classes have, from
dominating the galaxies. Without it and without the softening of 3 sigma, the area under the ROC
curve on the default simulation was 0.897 instead of 0.914.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import nn

from skyproof.core.errors import InputError
from skyproof.core.seeds import Stream
from skyproof.learn.settings import Objective
from skyproof.learn.shards import check_finite, open_rows
from skyproof.obiwan.stamps.geometry import STAMP

MODEL = "skyproof-obiwan-model-1"  # the format of a model file
CLASSES = 2
_WIDTHS = (18, 36, 54)
_DENSE = 64

# A sample is enough for the statistics: 64 rows (which are shuffled) of each of 64 files, evenly
# spaced over the sorted list, are 16 million pixels per channel for a survey of any size.
_FILES, _ROWS = 64, 64
_SOFTENING = 3.0  # sigma
_LARGEST, _MASKED, _STRENGTH = 3.0, -4.0, 0.1
# A part of uniform depth has almost no spread; depths that differ by 10 % are then 1 apart.
_LEAST_SPREAD = 0.1


class StampClassifier(nn.Module):
    """Maps stamps as stored [n, 64, 64, 2 x bands] to logits [n, 2] (real, fake)."""

    def __init__(self, n_bands: int, pool: str) -> None:
        super().__init__()
        self.normalise = Normalise(n_bands)
        widths = (2 * n_bands, *_WIDTHS)
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise(widths):
            layers += [nn.Conv2d(n_in, n_out, 7, padding=3), nn.ReLU(), _pooling(pool)]
        side = STAMP // 2 ** len(_WIDTHS)
        layers += [nn.Flatten(), nn.Linear(side * side * _WIDTHS[-1], _DENSE), nn.ReLU()]
        layers += [nn.Linear(_DENSE, CLASSES)]
        self.layers = nn.Sequential(*layers)

    def forward(self, stamps: torch.Tensor) -> torch.Tensor:
        return self.layers(self.normalise(stamps))


def _pooling(pool: str) -> nn.Module:
    if pool == "code":
        return nn.AvgPool2d(2)
    return nn.AvgPool2d(7, stride=2, padding=3, count_include_pad=False)


def initialise(network: nn.Module, stream: Stream) -> None:
    """Draw the weights of every layer from `stream("weights", name)`; biases are zero.

    He et al. (2015, arXiv:1502.01852): uniform in +-sqrt(6 / fan_in), which keeps the variance
    through layers with ReLU. torch's generator is not used: equal seeds give equal weights,
    independent of earlier draws.
    """
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim == 1:
                parameter.zero_()
                continue
            bound = math.sqrt(6 / math.prod(parameter.shape[1:]))
            draws = stream("weights", name).uniform(-bound, bound, tuple(parameter.shape))
            parameter.copy_(torch.from_numpy(draws.astype(np.float32)))


def loss_and_accuracy(logits: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the mean cross-entropy (nats) and the fraction of rows whose larger logit is right."""
    loss = nn.functional.cross_entropy(logits.float(), labels)
    return {"loss": loss, "accuracy": (logits.argmax(1) == labels).float().mean()}


OBJECTIVE = Objective(loss_and_accuracy, fractions=("accuracy",))


class Normalise(nn.Module):
    """[n, 64, 64, 2 x bands] as stored, any float type, to float32 [n, 2 x bands, 64, 64].

    The result has the memory layout of the input, channels last, which suits convolutions.
    """

    scale: torch.Tensor
    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, n_bands: int) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(n_bands))  # sqrt(m), nanomaggies^-1
        self.register_buffer("mean", torch.zeros(2, n_bands))  # of image, of inverse variance
        self.register_buffer("std", torch.ones(2, n_bands))

    def forward(self, stamps: torch.Tensor) -> torch.Tensor:
        image, ivar = self.stretched(stamps)
        masked = ivar == 0
        image = ((image - self.mean[0]) / self.std[0]).masked_fill(masked, 0.0)
        ivar = ((ivar - self.mean[1]) / self.std[1]).clamp(-_LARGEST, _LARGEST)
        ivar = ivar.masked_fill(masked, _MASKED) * _STRENGTH
        return torch.stack((image, ivar), dim=-1).flatten(-2).permute(0, 3, 1, 2)

    def stretched(self, stamps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return asinh(image x sqrt(m) / 3) and log1p(ivar), both [n, 64, 64, bands]."""
        stamps = stamps.float()
        ivar = stamps[..., 1::2].clamp(min=0)
        image = torch.asinh(stamps[..., 0::2] * (self.scale / _SOFTENING))
        return image, torch.log1p(ivar)

    @torch.no_grad()
    def fit(self, files: Sequence[Path]) -> None:
        """Set the scales from a sample of the training files [n, 64, 64, 2 x bands].

        The result does not depend on the order of the files. Raises InputError where a pixel is
        not finite, or where a band is masked in every file.
        """
        n_bands = len(self.scale)
        chosen = _spread(sorted(files), _FILES)
        typical = np.array([_typical_ivar(_sample(path, n_bands)) for path in chosen])
        if np.isnan(typical).all(axis=0).any():
            band = int(np.flatnonzero(np.isnan(typical).all(axis=0))[0])
            raise InputError(
                chosen[0].parent, f"band {band} is masked in all training files",
                expected="pixels with inverse variance > 0",
            )  # fmt: skip
        self.scale.copy_(torch.from_numpy(np.sqrt(np.nanmedian(typical, axis=0))))
        sums = np.array([self._sums(_sample(path, n_bands)) for path in chosen])
        # fsum rounds once, so the order of the files does not matter.
        count, total, squares = np.apply_along_axis(math.fsum, 0, sums)
        mean = total / count
        spread = np.sqrt(np.maximum(squares / count - mean**2, 0.0))
        self.mean.copy_(torch.from_numpy(mean))
        self.std.copy_(torch.from_numpy(np.maximum(spread, _LEAST_SPREAD)))

    def _sums(self, stamps: np.ndarray) -> np.ndarray:
        """Return number, sum and sum of squares [3, 2, bands] of the unmasked stretched values."""
        image, ivar = (
            part.double().numpy().reshape(-1, len(self.scale))
            for part in self.stretched(torch.from_numpy(stamps))
        )
        good = ivar > 0
        values = np.stack([image, ivar]) * good
        count = np.broadcast_to(good.sum(axis=0), values.shape[::2])
        return np.stack([count, values.sum(axis=1), (values**2).sum(axis=1)])


def _spread(items: list[Path], count: int) -> list[Path]:
    """Return at most `count` items, evenly spaced over the list."""
    if len(items) <= count:
        return items
    return [items[(2 * k + 1) * len(items) // (2 * count)] for k in range(count)]


def _sample(path: Path, n_bands: int) -> np.ndarray:
    rows = np.array(open_rows(path, (STAMP, STAMP, 2 * n_bands))[:_ROWS])
    check_finite(path, rows)
    return rows


def _typical_ivar(stamps: np.ndarray) -> list[float]:
    """Return the median inverse variance of the unmasked pixels by band; NaN where none is."""
    ivar = stamps[..., 1::2].astype(np.float64).reshape(-1, stamps.shape[-1] // 2).T
    return [float(np.median(band[band > 0])) if (band > 0).any() else math.nan for band in ivar]
