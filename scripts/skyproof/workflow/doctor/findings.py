"""The lines that `doctor` prints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: what was found, and what mends it."""

    verdict: Verdict
    what: str
    found: str
    remedy: str = ""

    def __str__(self) -> str:
        remedy = f"; {self.remedy}" if self.remedy else ""
        return f"{self.verdict:<4}  {self.what}: {self.found}{remedy}"


def ok(what: str, found: str) -> Finding:
    """It is as it should be."""
    return Finding("ok", what, found)


def warn(what: str, found: str, remedy: str = "") -> Finding:
    """Jobs run, or this run does not need it."""
    return Finding("warn", what, found, remedy)


def fail(what: str, found: str, remedy: str) -> Finding:
    """Jobs will fail, or wait for ever."""
    return Finding("fail", what, found, remedy)
