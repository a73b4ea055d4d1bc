"""Assignment of groups to parts, by the hash of the group's name."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np

from skyproof.core.errors import InputError


def hash_rank(name: str, seed: int) -> bytes:
    """Return the sort key of a group. It depends on the name and the seed only."""
    return hashlib.sha256(f"{seed}|{name}".encode()).digest()


def test_groups(names: Iterable[str], fraction: float, seed: int) -> set[str]:
    """Return the test groups: those with the smallest hashes.

    Their number is `fraction` of all groups, rounded. With two groups or more, both parts get at
    least one. Duplicate names count once.
    """
    ordered = sorted(set(names), key=lambda name: hash_rank(name, seed))
    count = round(fraction * len(ordered))
    if len(ordered) > 1:
        count = min(max(count, 1), len(ordered) - 1)
    return set(ordered[:count])


def assign_parts(
    names: Sequence[object] | np.ndarray, load: np.ndarray, n_parts: int, key: str
) -> np.ndarray:
    """Assign groups to `n_parts` parts, in hash order, each to the lightest part so far.

    Return the part [n] of each group. `load` [n] is the weight of each group; the sums of the parts
    differ by at most about one group. Another `key` gives another assignment.
    """
    order = sorted(range(len(names)), key=lambda i: hash_rank(f"{key}|{names[i]}", 0))
    part = np.empty(len(names), np.int64)
    total = np.zeros(n_parts)
    for i in order:
        part[i] = np.argmin(total)
        total[part[i]] += load[i]
    return part


def check_disjoint(train: Sequence[str], test: Sequence[str], *, file: object, what: str) -> None:
    """Raise InputError if a group is in both the training and the test part."""
    both = sorted(set(train) & set(test))
    if both:
        raise InputError(
            str(file),
            f"{what} {both[0]} is in the training and in the test part"
            + (f", and {len(both) - 1} more" if len(both) > 1 else ""),
            expected="every group in one part only",
        )
