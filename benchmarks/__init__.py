"""Measurements of speed and memory, each relative to a reference in the same run.

A benchmark is a module with a frozen dataclass `Size`, whose defaults are the size of the published
figures, a constant `TINY` of that class, and `run(size) -> Result`. `python -m benchmarks NAME`
measures; `--tiny` runs the same code in seconds, and its figures mean nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

# Compiling a step takes most of a minute. Without dynamo the same code runs, uncompiled.
UNCOMPILED = {"TORCHDYNAMO_DISABLE": "1"}


@dataclass(frozen=True)
class Row:
    """One figure of a benchmark."""

    what: str
    value: float
    unit: str  # "x" of a ratio of two figures, "1" of any other pure number
    target: str = ""
    form: str = ".4g"  # how the value is printed
    any_sign: bool = False  # a difference, a fraction or a correlation, which may be <= 0


@dataclass(frozen=True)
class Result:
    """The figures of a benchmark, with a description of measurement and data."""

    name: str
    rows: list[Row]
