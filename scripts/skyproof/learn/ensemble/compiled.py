"""The step of an ensemble, compiled where that was asked for and a C++ compiler is at hand."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache, partial
from typing import TYPE_CHECKING

import torch

from skyproof.learn.ensemble.multiply import Multiply, multiply_on
from skyproof.learn.ensemble.network import (
    EnsembleBatch,
    Gradient,
    RowLoss,
    Slope,
    by_autograd,
    gradient,
)
from skyproof.learn.ensemble.shape import Pack, Shape

if TYPE_CHECKING:
    from skyproof.learn.ensemble.members import EnsembleSettings

Step = Callable[[Pack, EnsembleBatch], Gradient]


def maker(settings: EnsembleSettings, device: torch.device, log: logging.Logger) -> Step:
    """Return the function that finds a step's gradient, compiled if `settings.compile`."""
    if settings.compile and not can_compile():
        why = "its numbers would be wrong here" if narrowed() else "no C++ compiler was found"
        log.warning("%s: the training step is not compiled", why)
    compiled = settings.compile and can_compile()
    shape, loss, slope, mean = settings.shape, settings.loss, settings.slope, settings.mean
    multiply = multiply_on(device, compiled=compiled)
    if compiled:
        return _compiled(shape, loss, slope, mean, multiply)
    return partial(gradient, shape, slope or by_autograd(loss), mean, multiply)


@cache
def _compiled(
    shape: Shape, loss: RowLoss, slope: Slope | None, mean: bool, multiply: Multiply
) -> Step:
    """Compile a step, once for all groups of the same networks.

    A compiled step has other bits (operations are fused, by the compiler that is there). Compiling
    takes about half a minute the first time; torch keeps the result in TORCHINDUCTOR_CACHE_DIR, or
    else in torchinductor_<user> below the folder for temporary files, for the next process.
    """
    step = partial(gradient, shape, slope or by_autograd(loss), mean, multiply)
    return torch.compile(step, dynamic=False)


def narrowed() -> bool:
    """Say whether torch is held to narrower vectors than this processor has (portable numerics).

    With torch 2.13 on a processor with AVX-512 a step compiled under ATEN_CPU_CAPABILITY=avx2 gave
    wrong numbers, or none.
    """
    kernels = torch.backends.cpu.get_cpu_capability()
    return bool(torch.cpu._is_avx512_supported()) and "AVX512" not in kernels


@cache
def can_compile() -> bool:
    """Say whether a step can be compiled: torch needs a C++ compiler, and see `narrowed`."""
    if narrowed():
        return False
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except (InvalidCxxCompiler, OSError):
        return False
    return True
