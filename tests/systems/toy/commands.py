"""Commands of the toy system."""

import argparse
from pathlib import Path

from skyproof.core.errors import InputError


def mean(parser: argparse.ArgumentParser, words: list[str]) -> int:
    """The mean of the numbers in text files.

    It is rounded, and printed or written to a file.
    """
    parser.add_argument("files", nargs="+", type=Path, help="text, one number per line")
    parser.add_argument("-d", "--digits", type=int, default=3, help="digits of the mean [3]")
    parser.add_argument("-o", "--output", type=Path, help="file of the mean; default: print it")
    given = parser.parse_args(words)

    import numpy as np

    numbers = np.concatenate([_read(path) for path in given.files])
    line = f"{np.mean(numbers):.{given.digits}f}\n"
    if given.output:
        given.output.write_text(line)
    else:
        print(line, end="")
    return 0


def crash(parser: argparse.ArgumentParser, words: list[str]) -> int:
    """Fail with an unexpected exception."""
    parser.parse_args(words)
    raise ZeroDivisionError("oops")


def _read(path: Path) -> list[float]:
    numbers = []
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        raise InputError(path, "does not exist") from None
    for i, line in enumerate(lines, 1):
        try:
            numbers.append(float(line))
        except ValueError:
            raise InputError(path, f"is {line!r}", record=i, expected="a number") from None
    return numbers
