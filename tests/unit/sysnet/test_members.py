"""Files of trained networks."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from skyproof.core.errors import InputError
from skyproof.sysnet.members.member import find_members, read_member, write_member
from tests.unit.sysnet.build.members import SEEDS, make_member, write_groups


def test_a_member_reads_back_as_it_was(tmp_path):
    member = make_member(2, 1, snapshots=(9, 29, 149), keep=(True, False, True))
    write_member(tmp_path / "a.safetensors", member)
    again = read_member(tmp_path / "a.safetensors")
    assert list(again.snapshots) == [9, 29, 149]
    for field in dataclasses.fields(member):
        one, two = getattr(member, field.name), getattr(again, field.name)
        if field.name == "snapshots":
            one = {f"{e}.{k}": v for e, state in one.items() for k, v in state.items()}
            two = {f"{e}.{k}": v for e, state in two.items() for k, v in state.items()}
        if isinstance(one, np.ndarray):
            assert one.dtype == two.dtype
            np.testing.assert_array_equal(one, two)
        elif isinstance(one, dict) and field.name != "training":
            assert one.keys() == two.keys()
            assert all(torch.equal(one[name], two[name]) for name in one)
        else:
            assert one == two, field.name


def test_equal_members_are_equal_bytes(tmp_path):
    for name in ("a", "b"):
        write_member(tmp_path / name, make_member(snapshots=(9,)))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_members_are_found_by_fold_and_chain_whatever_their_groups(tmp_path):
    members = [make_member(fold, chain) for fold in range(3) for chain in range(2)]
    for size in (1, 4):
        index = write_groups(tmp_path / str(size), members, size)
        places = find_members([index])
        assert [(p.fold, p.chain, p.seed) for p in places] == [
            (fold, chain, SEEDS[chain]) for fold in range(3) for chain in range(2)
        ]
        assert all(read_member(p.path).fold == p.fold for p in places)


@pytest.mark.parametrize("missing", [0, 3, 5])
def test_a_missing_member_is_named(tmp_path, missing):
    members = [make_member(fold, chain) for fold in range(3) for chain in range(2)]
    index = write_groups(tmp_path, members[:missing] + members[missing + 1 :])
    with pytest.raises(InputError, match=f"fold {missing // 2}.*each of 0 to 1 once"):
        find_members([index])


def test_a_member_named_twice_is_an_error(tmp_path):
    index = write_groups(tmp_path, [make_member()])
    with pytest.raises(InputError, match="fold 0"):
        find_members([index, index])
