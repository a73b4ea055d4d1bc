"""Which device a rank computes on."""

from __future__ import annotations

import importlib
from types import SimpleNamespace

import pytest
import torch

from skyproof.core.comm import SerialComm
from skyproof.core.stage import Context
from skyproof.learn import device


@pytest.mark.parametrize(
    ("local_rank", "visible", "chosen"), [(0, 4, 0), (3, 4, 3), (5, 4, 1), (0, 1, 0), (3, 1, 0)]
)
def test_the_ranks_of_a_node_share_the_gpus_that_they_see(monkeypatch, local_rank, visible, chosen):
    """A batch system that shows each rank a GPU of its own shows it as the only one."""
    found = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: visible)
    monkeypatch.setattr(torch.cuda, "set_device", found.append)
    device.prepare("cuda", 1, "portable", local_rank)
    assert found == [chosen]


class Asked(Exception):
    """Carries the local rank that a stage asked a device for."""


@pytest.mark.parametrize("stage", ["obiwan.train", "obiwan.infer", "sysnet.train", "sysnet.infer"])
def test_stages_of_several_ranks_take_the_gpu_of_their_local_rank(monkeypatch, stage):
    def prepare(kind: str, threads: int, numerics: str, local_rank: int = 0) -> torch.device:
        raise Asked(local_rank)

    module = importlib.import_module(f"skyproof.{stage}")
    monkeypatch.setattr(device, "prepare", prepare)
    monkeypatch.setattr(module, "_training_part", lambda *given: [], raising=False)
    comm = SerialComm()
    comm.local_rank = 2
    inputs = SimpleNamespace(split=["record"], stamps=None)
    with pytest.raises(Asked) as asked:
        module.run(inputs, None, SimpleNamespace(numerics="portable"), Context(stage, comm=comm))
    assert asked.value.args == (2,)
