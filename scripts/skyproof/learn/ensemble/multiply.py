"""Products of many small matrices, by the library that is fastest at them here."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

Multiply = Callable[[Tensor, Tensor], Tensor]  # [E, a, b], [E, b, c] -> [E, a, c]


def multiply_on(device: torch.device, *, compiled: bool = False) -> Multiply:
    """Return the product for a device.

    One thread of a CPU takes numpy's: torch's library (MKL) must keep to its SSE2 kernels where the
    same bits are wanted on processors of Intel and AMD (`core.numerics`), numpy's (OpenBLAS) to
    those of AVX2, two to three times faster at these sizes; without that wish they are equals. With
    more threads torch's shares the matrices among them.
    """
    if device.type == "cpu" and torch.get_num_threads() == 1 and not compiled:
        return _by_numpy
    return torch.bmm


def _by_numpy(a: Tensor, b: Tensor) -> Tensor:
    if a.shape[2] == 1:
        return a * b
    out = torch.empty(a.shape[0], a.shape[1], b.shape[2])
    with np.errstate(all="ignore"):  # a member that diverges is found by its loss
        np.matmul(a.numpy(), b.numpy(), out=out.numpy())
    return out
