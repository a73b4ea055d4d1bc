"""Random streams keyed by name and item, so that no number depends on ranks, order or chunks."""

from __future__ import annotations

import hashlib

import numpy as np


def key_words(name: object) -> tuple[int, ...]:
    """Map a name to four 32-bit words; a fixed length keeps a sequence of names unambiguous."""
    digest = hashlib.sha256(str(name).encode()).digest()
    return tuple(int(word) for word in np.frombuffer(digest[:16], dtype="<u4"))


def stream(seed: int, *names: object) -> np.random.Generator:
    """Return the generator of (seed, names...), for instance (seed, stage, brick, purpose).

    Philox is counter based: streams of different keys do not overlap, and equal keys give equal
    numbers on every rank and machine (NumPy Enhancement Proposal 19 asks to pin numpy for that).
    """
    spawn_key = tuple(word for name in names for word in key_words(name))
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=spawn_key)))
