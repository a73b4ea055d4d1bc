"""A GPU that cannot be used: one line that says which of build, driver and device is the reason."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest
import torch

from skyproof.core.driver import cuda_of_driver
from skyproof.core.errors import EnvironmentProblem
from skyproof.learn import device


@pytest.mark.parametrize(
    ("built", "driver", "line"),
    [
        (None, (13, 0), "this torch is its CPU build"),
        ("13.0", None, "no NVIDIA driver is to be seen"),
        ("13.0", (12, 8), r"is for CUDA 13\.0 and .* runs no more than CUDA 12\.8"),
        ("13.0", (13, 1), "torch finds no GPU"),
        (
            "13.2",
            (13, 0),
            "torch finds no GPU",
        ),  # the major version counts
    ],
)
def test_a_gpu_that_cannot_be_used_is_a_problem_of_the_machine(monkeypatch, built, driver, line):
    """With stand-ins for what torch was built for and for the driver."""
    monkeypatch.setattr(torch.version, "cuda", built)
    monkeypatch.setattr("skyproof.core.driver.cuda_of_driver", lambda: driver)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EnvironmentProblem, match=line):
        device.prepare("cuda", 1, "portable")


class Driver:
    """Stands in for libcuda.so.1."""

    def __init__(self, code: int, version: int) -> None:
        self.code, self.version = code, version

    def cuDriverGetVersion(self, number: Any) -> int:
        number._obj.value = self.version
        return self.code


@pytest.mark.parametrize(
    ("code", "version", "expected"), [(0, 12080, (12, 8)), (0, 13000, (13, 0)), (999, 0, None)]
)
def test_the_driver_says_which_cuda_it_runs(monkeypatch, code, version, expected):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Driver(code, version))
    assert cuda_of_driver() == expected
