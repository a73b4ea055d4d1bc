"""`python -m benchmarks [--tiny] [NAME ...]`: run benchmarks, print a table for each.

Nothing here is a test: a shared machine is too noisy. The tests run each one at its tiny size.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import platform
import sys
from pathlib import Path

import benchmarks
from benchmarks import Result


def main(words: list[str]) -> int:
    """Run the named benchmarks, or all; return the exit code."""
    tiny, names = "--tiny" in words, [word for word in words if word != "--tiny"]
    unknown = sorted(set(names) - set(known()))
    if unknown:
        print(f"unknown benchmark {unknown[0]}; known: {', '.join(known())}", file=sys.stderr)
        return 2
    print(f"machine: {machine()}")
    for name in names or known():
        module = importlib.import_module(f"benchmarks.{name}")
        show(module.run(module.TINY if tiny else module.Size()))
    return 0


def known() -> list[str]:
    """Return the names of all benchmarks."""
    return sorted(m.name for m in pkgutil.iter_modules(benchmarks.__path__) if m.name[0] != "_")


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


def show(result: Result) -> None:
    """Print one benchmark's rows as a table."""
    print(f"\n{result.name}")
    for row in result.rows:
        target = f"  (target {row.target})" if row.target else ""
        unit = "" if row.unit in ("x", "1") else row.unit
        print(f"  {row.what:<58} {row.value:>10{row.form}} {unit}{target}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
