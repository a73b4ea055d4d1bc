"""Configuration of torch: device, threads, determinism, precision."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from skyproof.core import cuda
from skyproof.core.errors import EnvironmentProblem

if TYPE_CHECKING:
    from skyproof.core.options import StageOptions
    from skyproof.core.stage import Context


def prepare(context: Context, options: StageOptions) -> torch.device:
    """Configure torch for a call of a stage and return the device of this rank.

    All ranks call this. Raises EnvironmentProblem (exit 4) if torch can use no GPU.
    """
    return configure(
        context.device, context.threads, options.numerics, context.comm.local_rank
    )  # fmt: skip


def configure(device: str, threads: int, numerics: str, local_rank: int = 0) -> torch.device:
    """Make torch deterministic in this process and return the device to compute on.

    `device` is 'cpu' or 'cuda'. Raises EnvironmentProblem (exit 4) if torch can use no GPU. The
    ranks of a node share its GPUs by `local_rank`. If the batch system shows one GPU to each rank,
    the rank uses that one. `threads` is the number of threads of one rank. With `numerics`
    'portable', float32 is computed as float32; with 'native', a GPU may use TF32. `core.numerics`
    has set the environment variables that libraries read at start.
    """
    if device == "cuda":
        _expect_gpu()
    torch.set_num_threads(threads)
    # The same as use_deterministic_algorithms(True), which also loads torch's compiler (2 s).
    torch.set_deterministic_debug_mode("error")
    # Filling new memory with NaN would only find errors of torch, and costs time in every layer.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    tensor_float = device == "cuda" and numerics == "native"
    torch.backends.cudnn.allow_tf32 = tensor_float
    torch.set_float32_matmul_precision("high" if tensor_float else "highest")
    if device == "cuda":
        torch.cuda.set_device(local_rank % torch.cuda.device_count())
    return torch.device(device)


def _expect_gpu() -> None:
    """Raise EnvironmentProblem if no GPU can be used; the message names build, driver or GPU."""
    built = torch.version.cuda
    if built is None:
        raise EnvironmentProblem(
            "device=cuda: this torch is the CPU build; use device=cpu, or the CUDA build "
            "(TORCH=cuda make run; TORCH=cuda make images)"
        )
    major, minor = built.split(".")[:2]
    cuda.expect_cuda((int(major), int(minor)), f"torch {torch.__version__}")
    if not torch.cuda.is_available():
        raise EnvironmentProblem("device=cuda: torch finds no GPU here; use device=cpu")
