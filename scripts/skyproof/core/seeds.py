"""Random streams keyed by name and item, independent of ranks, order and chunks."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np

Stream = Callable[..., np.random.Generator]  # of names: the random generator of these names


def key_words(name: object) -> tuple[int, ...]:
    """Map a name to four 32-bit words; the fixed length keeps a sequence of names unambiguous."""
    digest = hashlib.sha256(str(name).encode()).digest()
    return tuple(int(word) for word in np.frombuffer(digest[:16], dtype="<u4"))


def stream(seed: int, *names: object) -> np.random.Generator:
    """Return the generator of (seed, names...), for instance (seed, stage, brick, purpose).

    Philox is counter based: streams of different keys do not overlap. Equal keys give equal numbers
    on every rank and machine, for a fixed version of numpy (NumPy Enhancement Proposal 19).
    """
    spawn_key = tuple(word for name in names for word in key_words(name))
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=spawn_key)))
