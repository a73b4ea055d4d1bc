"""Exact sums: the value, and its independence of the order of the parts and of ranks."""

from __future__ import annotations

import math
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skyproof.learn.reduce import ExactSum, PlainSum, Team
from tests.conftest import launch

LIKE = torch.zeros(3)


def total(parts: list[list[float]]) -> list[float]:
    return ExactSum(Team(), LIKE)([torch.tensor(part) for part in parts], len(parts)).tolist()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(st.floats(-1e6, 1e6, width=32), min_size=3, max_size=3), min_size=1, max_size=9
    ),
    st.randoms(),
)
def test_the_sum_is_that_of_real_numbers_in_any_order(parts, random):
    """All parts are within 2^38 of the largest or too small to show in a float32 sum."""
    found = total(parts)
    for value, column in zip(found, zip(*parts, strict=True), strict=True):
        largest = max(abs(x) for part in parts for x in part)
        error = abs(value - math.fsum(column))
        assert error <= abs(math.fsum(column)) * 2**-24 + largest * 2**-50
    random.shuffle(parts)
    assert total(parts) == found


def test_order_matters_to_floats_and_not_here():
    parts = [[1e8, 0, 0], [1.0, 0, 0], [-1e8, 0, 0], [1.0, 0, 0]]
    forth, back = (
        PlainSum(Team(), LIKE)([torch.tensor(p) for p in ps], 4).tolist()
        for ps in (parts, parts[::-1])
    )
    assert forth != back
    assert total(parts) == total(parts[::-1]) == [2.0, 0.0, 0.0]


def test_one_part_comes_out_as_it_is():
    """Elements 2^38 times smaller than the largest included."""
    part = [1.2345678, -(2.0**-37) * 1.1, 0.0]
    assert total([part]) == torch.tensor(part).tolist()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_part_that_is_not_finite_gives_nan(bad):
    assert all(math.isnan(value) for value in total([[1.0, 2.0, 3.0], [0.0, bad, 1.0]]))


def test_a_sum_does_not_affect_the_next():
    add = ExactSum(Team(), LIKE)
    first = add([torch.ones(3)], 1)
    assert add([torch.tensor([2.0, 0.0, 1.0])], 1).tolist() == [2.0, 0.0, 1.0]
    assert first.tolist() == [1.0, 1.0, 1.0]


def test_zeros_and_nothing_are_zero():
    assert total([[0.0, 0.0, 0.0]]) == [0.0, 0.0, 0.0]
    assert ExactSum(Team(), LIKE)([], 3).tolist() == [0.0, 0.0, 0.0]


RANKS = """
import sys, torch
from skyproof.core.comm import connect
from skyproof.learn.reduce import ExactSum, Team
comm = connect(int(sys.argv[1]))
torch.manual_seed(1)
parts = [torch.randn(1000) * 10 ** k for k in range(5)]
team = Team(comm, torch.device("cpu"))
found = ExactSum(team, parts[0])(parts[team.rank :: team.size], len(parts))
every = comm.allgather(found.numpy().tobytes())
assert len(set(every)) == 1
team.leave()
if comm.rank == 0:
    open(sys.argv[2], "wb").write(every[0])
"""


@pytest.mark.mpi
def test_any_number_of_ranks_gives_the_same_bits(tmp_path: Path):
    """Seven ranks are more than there are parts: two of them hold none."""
    found = {}
    for ranks in (1, 2, 3, 7):
        words = [sys.executable, "-c", RANKS, str(ranks), tmp_path / str(ranks)]
        launcher = [Path(sys.executable).parent / "mpiexec", "-n", str(ranks)]
        result = launch([*(launcher if ranks > 1 else []), *words], timeout=120)
        assert result.returncode == 0, result.stderr
        found[ranks] = (tmp_path / str(ranks)).read_bytes()
    assert len(set(found.values())) == 1
    assert np.isfinite(struct.unpack("1000f", found[1])).all()


def test_with_a_scale_for_each_element_they_are_independent():
    like = torch.zeros(4, dtype=torch.float64)
    parts = [
        torch.tensor(p, dtype=like.dtype)
        for p in ([1e300, 1e-200, math.nan, 1.0], [1.0, 1e-200, 1.0, -0.5])
    ]
    add = ExactSum(Team(), like, each=True)
    first = add(parts, 2)
    assert first[[0, 1, 3]].tolist() == [1e300, 2e-200, 0.5]
    assert math.isnan(first[2])
    second = add([torch.ones(4, dtype=torch.float64)], 1)
    assert second.tolist() == [1.0] * 4
    assert first[0] == 1e300  # not the memory of the second sum


def test_numbers_close_to_zero_have_a_scale():
    like = torch.zeros(1, dtype=torch.float64)
    assert ExactSum(Team(), like, each=True)([like + 5e-324], 1).tolist() == [0.0]
