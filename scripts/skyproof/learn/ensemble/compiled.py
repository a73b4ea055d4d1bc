"""The training step of an ensemble, compiled if requested and if a C++ compiler is available."""

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
    """Return the function that computes the gradient of a step, compiled if `settings.compile`."""
    if settings.compile and not can_compile():
        why = "compiled results would be wrong here" if narrowed() else "no C++ compiler was found"
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

    A compiled step gives other bits: the compiler of the machine fuses operations. The first
    compilation takes about half a minute. torch caches the result for later processes in
    TORCHINDUCTOR_CACHE_DIR, or else in torchinductor_<user> in the folder for temporary files.
    """
    torch.use_deterministic_algorithms(True)  # of the compiler also
    step = partial(gradient, shape, slope or by_autograd(loss), mean, multiply)
    return torch.compile(step, dynamic=False)


def narrowed() -> bool:
    """Return whether torch is limited to narrower vectors than the processor has (portable).

    With torch 2.13 on a processor with AVX-512, a step compiled under ATEN_CPU_CAPABILITY=avx2 gave
    wrong numbers or failed.
    """
    kernels = torch.backends.cpu.get_cpu_capability()
    return bool(torch.cpu._is_avx512_supported()) and "AVX512" not in kernels


@cache
def can_compile() -> bool:
    """Return whether a step can be compiled: there is a C++ compiler, and not `narrowed`."""
    if narrowed():
        return False
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except (InvalidCxxCompiler, OSError):
        return False
    return True
