"""The list of a release's bricks: text, one name a line, `#` starts a comment."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from skyproof.core.errors import InputError
from skyproof.core.formats import read


def read_brick_list(path: Path) -> list[str]:
    """Return the names in their order (InputError: not text, no name, or a name twice)."""
    lines = read.text(path, "one brick name a line").splitlines()
    names = [name for line in lines if (name := line.split("#", 1)[0].strip())]
    if not names:
        raise InputError(path, "names no brick", expected="one brick name a line")
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise InputError(path, "stands there twice", record=twice, expected="each brick once")
    return names
