"""Batched products of small matrices, by the fastest library."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

Multiply = Callable[[Tensor, Tensor], Tensor]  # [E, a, b], [E, b, c] -> [E, a, c]


def multiply_on(device: torch.device, *, compiled: bool = False) -> Multiply:
    """Return the product for a device.

    With one CPU thread it is numpy's. In portable numerics (`core.numerics`), torch's library (MKL)
    is limited to SSE2 kernels, because only these give equal bits on processors of Intel and AMD;
    numpy's (OpenBLAS) is limited to AVX2 kernels, two to three times faster at these sizes. In
    native numerics both are equally fast. With more threads, torch distributes the matrices.
    """
    if device.type == "cpu" and torch.get_num_threads() == 1 and not compiled:
        return _by_numpy
    return torch.bmm


def _by_numpy(a: Tensor, b: Tensor) -> Tensor:
    if a.shape[2] == 1:
        return a * b
    out = torch.empty(a.shape[0], a.shape[1], b.shape[2])
    with np.errstate(all="ignore"):  # a diverged member is detected by its loss
        np.matmul(a.numpy(), b.numpy(), out=out.numpy())
    return out
