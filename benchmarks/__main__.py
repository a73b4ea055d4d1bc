"""`python -m benchmarks [NAME ...]`: run them, print a table each, name the machine.

A benchmark is a module with `run() -> {"name": ..., "rows": [...]}`; a row has `what`, `value`,
`unit` and, where there is one, `target`. Nothing here is a test: a shared machine is too noisy.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import platform
import sys
from pathlib import Path
from typing import Any

import benchmarks


def main(names: list[str]) -> int:
    """Run the named benchmarks, or all; return the exit code."""
    known = sorted(m.name for m in pkgutil.iter_modules(benchmarks.__path__) if m.name[0] != "_")
    unknown = sorted(set(names) - set(known))
    if unknown:
        print(f"unknown benchmark {unknown[0]}; known: {', '.join(known)}", file=sys.stderr)
        return 2
    print(f"machine: {machine()}")
    for name in names or known:
        show(importlib.import_module(f"benchmarks.{name}").run())
    return 0


def machine() -> str:
    """Name the processor, its cores in use, the memory and the system."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text().splitlines()
        model = next((line.split(":")[1].strip() for line in lines if "model name" in line), model)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0))
    return f"{model}, {cores} cores, {memory:.0f} GiB, Python {platform.python_version()}"


def show(result: dict[str, Any]) -> None:
    """Print one benchmark's rows as a table."""
    print(f"\n{result['name']}")
    for row in result["rows"]:
        value = f"{row['value']:.4g}" if isinstance(row["value"], float) else str(row["value"])
        target = f"  (target {row['target']})" if row.get("target") else ""
        print(f"  {row['what']:<58} {value:>10} {row.get('unit', '')}{target}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
