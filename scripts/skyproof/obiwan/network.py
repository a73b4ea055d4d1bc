"""The network of the Obiwan project's `dplearn`: three 7x7 convolutions and two dense layers.

The layers of a 64 x 64 x 6 stamp, with 353,786 parameters:

    convolution 7x7, ReLU   64 x 64 x 18      average pooling   32 x 32 x 18
    convolution 7x7, ReLU   32 x 32 x 36      average pooling   16 x 16 x 36
    convolution 7x7, ReLU   16 x 16 x 54      average pooling    8 x  8 x 54
    dense, ReLU             64                dense              2 (logits: real, fake)

Pooling is 2x2 with stride 2 as in the original's code, or 7x7 with stride 2 as in its published
table (whose ReLU after it changes nothing: averages of non-negative numbers).
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import torch
from torch import nn

from skyproof.learn.settings import Objective
from skyproof.learn.shards import Stream
from skyproof.obiwan.normalise import STAMP, Normalise

MODEL = "skyproof-obiwan-model-1"  # the format of a model file
CLASSES = 2
_WIDTHS = (18, 36, 54)
_DENSE = 64


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
