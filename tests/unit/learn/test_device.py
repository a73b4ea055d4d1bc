"""The device of a rank, and the errors if a GPU cannot be used."""

from __future__ import annotations

import ctypes
import importlib
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from skyproof.core.comm import SerialComm
from skyproof.core.cuda import cuda_of_driver
from skyproof.core.errors import EnvironmentProblem
from skyproof.core.stage import Context
from skyproof.learn import device


@pytest.mark.parametrize(
    ("local_rank", "visible", "chosen"), [(0, 4, 0), (3, 4, 3), (5, 4, 1), (0, 1, 0), (3, 1, 0)]
)
def test_the_ranks_of_a_node_share_the_gpus_that_they_see(monkeypatch, local_rank, visible, chosen):
    """A batch system may show each rank one GPU, as the only one."""
    found = []
    monkeypatch.setattr(device, "_expect_gpu", lambda: None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: visible)
    monkeypatch.setattr(torch.cuda, "set_device", found.append)
    device.configure("cuda", 1, "portable", local_rank)
    assert found == [chosen]


class Asked(Exception):
    """Carries the local rank that a stage asked a device for."""


@pytest.mark.parametrize("stage", ["obiwan.train", "obiwan.infer", "sysnet.train", "sysnet.infer"])
def test_stages_of_several_ranks_take_the_gpu_of_their_local_rank(monkeypatch, stage):
    def configure(kind: str, threads: int, numerics: str, local_rank: int = 0) -> torch.device:
        raise Asked(local_rank)

    module = importlib.import_module(f"skyproof.{stage}")
    monkeypatch.setattr(device, "configure", configure)
    monkeypatch.setattr(module, "_training_part", lambda *given: [], raising=False)
    comm = SerialComm()
    comm.local_rank = 2
    inputs = SimpleNamespace(split=["record"], stamps=None)
    with pytest.raises(Asked) as asked:
        module.run(inputs, None, SimpleNamespace(numerics="portable"), Context(stage, comm=comm))
    assert asked.value.args == (2,)


@pytest.mark.parametrize(
    ("built", "driver", "line"),
    [
        (None, (13, 0), "this torch is the CPU build"),
        ("13.0", None, "no NVIDIA driver was found"),
        ("13.0", (12, 8), r"is for CUDA 13\.0, but .* runs at most CUDA 12\.8"),
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
    monkeypatch.setattr("skyproof.core.cuda.cuda_of_driver", lambda: driver)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EnvironmentProblem, match=line):
        device.configure("cuda", 1, "portable")


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
