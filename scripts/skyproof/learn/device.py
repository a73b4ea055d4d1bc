"""The one place that sets how torch computes: device, threads, determinism, precision."""

from __future__ import annotations

import torch

from skyproof.core import cuda
from skyproof.core.errors import EnvironmentProblem


def prepare(device: str, threads: int, numerics: str, local_rank: int = 0) -> torch.device:
    """Make torch deterministic in this process and return the device to compute on.

    `device` is 'cpu' or 'cuda'; EnvironmentProblem (exit 4) where torch can use no GPU. The ranks
    of a node share its GPUs by `local_rank`; where the batch system shows each rank one GPU only,
    that is the one. `threads` are those of one rank. `numerics`: 'portable' computes float32 as
    float32; 'native' lets a GPU use TF32. The variables that libraries read at start are set
    before, by `core.numerics`.
    """
    if device == "cuda":
        _expect_gpu()
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    # Filling new memory with NaN finds faults in torch, not in us, and costs time in every layer.
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
    """Refuse where no GPU can be used, and say which of build, driver and GPU is the reason."""
    built = torch.version.cuda
    if built is None:
        raise EnvironmentProblem(
            "device=cuda: this torch is its CPU build; take device=cpu, or its CUDA build "
            "(TORCH=cuda make run; TORCH=cuda make images)"
        )
    major, minor = built.split(".")[:2]
    cuda.expect_cuda((int(major), int(minor)), f"torch {torch.__version__}")
    if not torch.cuda.is_available():
        raise EnvironmentProblem("device=cuda: torch finds no GPU here; take device=cpu")
