"""The CUDA version of the NVIDIA driver, from the driver's library, without torch."""

from __future__ import annotations

import ctypes

from skyproof.core.errors import EnvironmentProblem


def cuda_of_driver() -> tuple[int, int] | None:
    """Return (major, minor) of the newest CUDA that the driver supports; None without a driver."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    number = ctypes.c_int()
    if library.cuDriverGetVersion(ctypes.byref(number)) != 0:
        return None
    return number.value // 1000, number.value % 1000 // 10


def expect_cuda(wanted: tuple[int, int], what: str) -> None:
    """Raise EnvironmentProblem if the driver is too old for `what`, built for CUDA `wanted`.

    Within one major version, an older driver runs programs built with a newer CUDA.
    """
    offered = cuda_of_driver()
    if offered is None:
        raise EnvironmentProblem(
            "device=cuda: no NVIDIA driver was found here (libcuda.so.1); run on a machine "
            "with one (in an image: with --nv), or use device=cpu"
        )
    if offered[0] < wanted[0]:
        raise EnvironmentProblem(
            f"{what} is for CUDA {_dotted(wanted)}, but the NVIDIA driver of this machine runs "
            f"at most CUDA {_dotted(offered)}; install a newer driver, or use device=cpu"
        )


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
