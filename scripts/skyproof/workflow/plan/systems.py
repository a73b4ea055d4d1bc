"""The plans of the systems (files and costs of their jobs), and the names of rules."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from functools import cache
from pathlib import PurePosixPath
from typing import Any

from skyproof.core.options import stages, systems

_HASHED_MB = 800  # rate of one core [MB/s]


def plan_of(system: str, section: Any) -> Any:
    """Return a system's plan of its section of the configuration; None if it has no plan.py."""
    if importlib.util.find_spec(f"skyproof.{system}.plan") is None:
        return None
    return importlib.import_module(f"skyproof.{system}.plan").Plan(section)


def megabytes(config: Any) -> float:
    """Return the estimated size of all products of a run [MB]."""
    plans = (plan_of(name, getattr(config, name)) for name in config.systems)
    return sum(plan.megabytes for plan in plans if plan is not None)


def hashing_hours(megabytes: float, cores: int) -> float:
    """Return the hours in which `cores` cores read files from disk and compute their checksums.

    The rule `manifest` does so for all products; it belongs to no system.
    """
    return (1 + megabytes / _HASHED_MB / cores) / 3600


@cache
def stages_by_rule() -> dict[str, tuple[str, str]]:
    """Return (system, stage) by the name of the stage's rule, <system>_<stage>."""
    return {f"{system}_{name}": (system, name) for system in systems() for name in stages(system)}


def place_of(system: str, stage: str, wildcards: Mapping[str, str]) -> PurePosixPath:
    """Return the path of a job's log and benchmark file, without suffix, from their folder.

    It is <system>/[<region>/]<stage>[-<block>], with the values of the job's wildcards.
    """
    folders = [value for name, value in wildcards.items() if name != "block"]
    block = f"-{wildcards['block']}" if "block" in wildcards else ""
    return PurePosixPath(system, *folders, f"{stage}{block}")
