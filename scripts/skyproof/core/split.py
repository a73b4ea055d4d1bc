"""Which group belongs to which part: a function of the group's name alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np

from skyproof.core.errors import InputError


def hash_rank(name: str, seed: int) -> bytes:
    """Return the sort key of a group; independent of other groups, of order and of ranks."""
    return hashlib.sha256(f"{seed}|{name}".encode()).digest()


def test_groups(names: Iterable[str], fraction: float, seed: int) -> set[str]:
    """Choose the test groups: the `fraction` with the smallest hashes, rounded, exact in number.

    With two groups or more both parts get at least one. Duplicate names count once.
    """
    ordered = sorted(set(names), key=lambda name: hash_rank(name, seed))
    count = round(fraction * len(ordered))
    if len(ordered) > 1:
        count = min(max(count, 1), len(ordered) - 1)
    return set(ordered[:count])


def deal(
    names: Sequence[object] | np.ndarray, load: np.ndarray, n_hands: int, key: str
) -> np.ndarray:
    """Return the hand [n] of each group: in order of hash, to the hand that has the least so far.

    `load` is what a group weighs; hands differ by about one group's. Another `key` deals anew.
    """
    order = sorted(range(len(names)), key=lambda i: hash_rank(f"{key}|{names[i]}", 0))
    hand = np.empty(len(names), np.int64)
    held = np.zeros(n_hands)
    for i in order:
        hand[i] = np.argmin(held)
        held[hand[i]] += load[i]
    return hand


def check_no_leaks(train: Sequence[str], test: Sequence[str], *, file: object, what: str) -> None:
    """Refuse (InputError, exit 3) a split in which a group stands on both sides."""
    both = sorted(set(train) & set(test))
    if both:
        raise InputError(
            str(file),
            f"{what} {both[0]} is in the training and in the test part"
            + (f", and {len(both) - 1} more" if len(both) > 1 else ""),
            expected="every group in one part only",
        )
