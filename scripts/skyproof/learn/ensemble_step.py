"""The step of an ensemble, compiled where that was asked for and a C++ compiler is at hand."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache, partial
from typing import TYPE_CHECKING

import torch

from skyproof.learn.ensemble_network import Batch, Gradient, by_autograd, gradient
from skyproof.learn.ensemble_shape import Pack

if TYPE_CHECKING:
    from skyproof.learn.ensemble_members import Settings

Step = Callable[[Pack, Batch], Gradient]


def maker(settings: Settings, log: logging.Logger) -> Step:
    """Return the function that finds a step's gradient, compiled if `settings.compile`.

    A compiled step has other bits (operations are fused, by the compiler that is there). Compiling
    takes 20 to 60 s the first time; torch keeps the result in TORCHINDUCTOR_CACHE_DIR (else in
    torchinductor_<user> below the folder for temporary files).
    """
    slope = settings.slope or by_autograd(settings.loss)
    plain = partial(gradient, settings.shape, slope, settings.mean)
    if not settings.compile:
        return plain
    if not can_compile():
        log.warning("no C++ compiler was found: the training step is not compiled")
        return plain
    return torch.compile(plain, dynamic=False)


@cache
def can_compile() -> bool:
    """Say whether torch finds a C++ compiler, which it needs on a CPU."""
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except (InvalidCxxCompiler, OSError):
        return False
    return True
