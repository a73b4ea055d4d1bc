"""The lines that `doctor` prints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Line:
    """One thing that was looked at: what was found, and what mends it."""

    verdict: Verdict
    what: str
    found: str
    mend: str = ""

    def __str__(self) -> str:
        mend = f"; {self.mend}" if self.mend else ""
        return f"{self.verdict:<4}  {self.what}: {self.found}{mend}"


def ok(what: str, found: str) -> Line:
    """It is as it should be."""
    return Line("ok", what, found)


def warn(what: str, found: str, mend: str = "") -> Line:
    """Jobs run, or this run does not need it."""
    return Line("warn", what, found, mend)


def fail(what: str, found: str, mend: str) -> Line:
    """Jobs will fail, or wait for ever."""
    return Line("fail", what, found, mend)
