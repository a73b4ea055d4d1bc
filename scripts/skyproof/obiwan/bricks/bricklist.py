"""Read the list of bricks of a release: text with one name per line; `#` starts a comment."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from skyproof.core.errors import InputError
from skyproof.core.formats import read


def read_brick_list(path: Path) -> list[str]:
    """Return the names in order. Raise InputError if there are none or if one is repeated."""
    lines = read.text(path, "one brick name per line").splitlines()
    names = [name for line in lines if (name := line.split("#", 1)[0].strip())]
    if not names:
        raise InputError(path, "has no brick name", expected="one brick name per line")
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise InputError(path, "is repeated", record=twice, expected="each brick once")
    return names
