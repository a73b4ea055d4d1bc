"""The assignment of groups to parts, and the error for groups in both."""

from __future__ import annotations

import numpy as np
import pytest

from skyproof.core import split
from skyproof.core.errors import InputError

NAMES = [f"{1000 + i}p{i:03d}" for i in range(200)]


@pytest.mark.parametrize(
    ("n", "fraction", "expected"),
    [
        (200, 0.2, 40),
        (24, 0.2, 5),
        (5, 0.2, 1),
        (2, 0.2, 1),
        (2, 0.9, 1),
        (3, 0.999, 2),
        (1, 0.2, 0),
    ],
)
def test_counts_are_exact_and_no_part_is_empty(n: int, fraction: float, expected: int) -> None:
    assert len(split.test_groups(NAMES[:n], fraction, seed=1)) == expected


def test_order_and_repeats_of_names_change_nothing() -> None:
    chosen = split.test_groups(NAMES, 0.2, seed=1)
    assert split.test_groups([*reversed(NAMES), *NAMES[:50]], 0.2, seed=1) == chosen


def test_the_seed_changes_the_choice() -> None:
    assert split.test_groups(NAMES, 0.2, seed=1) != split.test_groups(NAMES, 0.2, seed=2)


def test_a_further_group_moves_one_group_at_most() -> None:
    before = split.test_groups(NAMES[:-1], 0.2, seed=1)
    after = split.test_groups(NAMES, 0.2, seed=1)
    assert len(before ^ after) <= 2


def test_the_choice_is_the_same_on_every_machine() -> None:
    """Frozen: another choice would change every published split."""
    chosen = split.test_groups(NAMES[:10], 0.2, seed=20180501)
    assert sorted(chosen) == ["1000p000", "1009p009"]


def test_a_group_in_both_parts_is_an_error() -> None:
    split.check_disjoint(["a", "b"], ["c"], file="here", what="brick")
    with pytest.raises(InputError, match=r"^here: brick b is in .*, and 1 more") as caught:
        split.check_disjoint(["a", "b", "c"], ["c", "b"], file="here", what="brick")
    assert caught.value.exit_code == 3


def test_parts_differ_by_at_most_one_group_for_any_order():
    names = [f"group {i}" for i in range(60)]
    load = 1 + np.random.default_rng(1).random(60)
    parts = split.assign_parts(names, load, 5, "test")
    total = np.bincount(parts, load)
    assert np.ptp(total) <= load.max()
    backwards = split.assign_parts(names[::-1], load[::-1], 5, "test")[::-1]
    np.testing.assert_array_equal(backwards, parts)
    assert (split.assign_parts(names, load, 5, "another key") != parts).any()
