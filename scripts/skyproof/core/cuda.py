"""What this machine's NVIDIA driver offers, asked of its own library; torch is not loaded."""

from __future__ import annotations

import ctypes

from skyproof.core.errors import EnvironmentProblem


def cuda_of_driver() -> tuple[int, int] | None:
    """Return the newest CUDA version that the driver runs; nothing where there is no driver."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    number = ctypes.c_int()
    if library.cuDriverGetVersion(ctypes.byref(number)) != 0:
        return None
    return number.value // 1000, number.value % 1000 // 10


def expect_cuda(wanted: tuple[int, int], what: str) -> None:
    """Refuse a driver that is too old for `what`, which was built for CUDA `wanted`.

    Within one major version an older driver runs what a newer CUDA built. EnvironmentProblem.
    """
    offered = cuda_of_driver()
    if offered is None:
        raise EnvironmentProblem(
            "device=cuda: no NVIDIA driver is to be seen here (libcuda.so.1); run on a machine "
            "with one (in an image: with --nv), or take device=cpu"
        )
    if offered[0] < wanted[0]:
        raise EnvironmentProblem(
            f"{what} is for CUDA {_dotted(wanted)} and the NVIDIA driver of this machine runs no "
            f"more than CUDA {_dotted(offered)}; ask for a newer driver, or take device=cpu"
        )


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
