"""Format of numbers and text in the evaluation pages and in `metrics.json`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Metrics = dict[str, Any]  # metrics.json, or an entry of it


def rounded(value: Any, shorten: Callable[[float], float]) -> Any:
    """Return a copy for JSON: each number shortened, or null if it is not finite."""
    if isinstance(value, dict):
        return {key: rounded(entry, shorten) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(entry, shorten) for entry in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return shorten(value) if np.isfinite(value) else None
    return value


def six_decimals(value: float) -> float:
    """Return the number rounded to six decimals, for numbers of order one."""
    return round(value, 6)


def nine_digits(value: float) -> float:
    """Return the number rounded to nine significant digits, for numbers of any size."""
    return float(f"{value:.9g}")


def headline(statement: str) -> str:
    """Return a statement as the bold first sentence of a page."""
    return f"**{statement[0].upper()}{statement[1:]}.**"


def caution_lines(cautions: list[str]) -> list[str]:
    """Return the lines of a page that list cautions; an empty list without cautions."""
    return ["", "Caution:", "", *(f"- {caution}" for caution in cautions)] if cautions else []


def with_interval(metric: Mapping[str, Any]) -> str:
    """Return '0.51 [0.48, 0.54]' for an entry with value, low and high."""
    return f"{metric['value']:.2f} [{metric['low']:.2f}, {metric['high']:.2f}]"
