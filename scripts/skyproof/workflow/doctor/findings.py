"""The findings of `doctor`, each printed as one line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """The result of one check: what was found and, where needed, the remedy."""

    verdict: Verdict
    what: str
    found: str
    remedy: str = ""

    def __str__(self) -> str:
        remedy = f"; {self.remedy}" if self.remedy else ""
        return f"{self.verdict:<4}  {self.what}: {self.found}{remedy}"


def ok(what: str, found: str) -> Finding:
    """Return a finding without a problem."""
    return Finding("ok", what, found)


def warn(what: str, found: str, remedy: str = "") -> Finding:
    """Return a problem that does not stop this run."""
    return Finding("warn", what, found, remedy)


def fail(what: str, found: str, remedy: str) -> Finding:
    """Return a problem with which jobs will fail or wait for ever."""
    return Finding("fail", what, found, remedy)
