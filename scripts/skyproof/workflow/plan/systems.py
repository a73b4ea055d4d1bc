"""The plans of the systems, which foresee jobs, memory and work; found by their system's name."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any


def plan_of(system: str, section: Any) -> Any:
    """Return a system's plan of its section of the configuration; None where it has no plan.py."""
    if importlib.util.find_spec(f"skyproof.{system}.plan") is None:
        return None
    return importlib.import_module(f"skyproof.{system}.plan").Plan(section)


def megabytes(config: Any) -> float:
    """Return the size of all products of a run, as its systems foresee it."""
    plans = (plan_of(name, getattr(config, name)) for name in config.systems)
    return sum(plan.megabytes for plan in plans if plan is not None)
