"""Descendants and sessions of processes, and killing some of them."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path


def _facts() -> dict[int, tuple[int, int, str]]:
    """Return parent, session and state of every process."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, parent, _, session = path.read_text().rpartition(")")[2].split()[:4]
            found[int(path.parent.name)] = (int(parent), int(session), state)
    return found


def below(ancestor: int) -> list[int]:
    """Return the living descendants of a process, older ones first."""
    facts = _facts()
    found = {ancestor}
    while new := {pid for pid, (parent, _, _) in facts.items() if parent in found} - found:
        found |= new
    return sorted(pid for pid in found - {ancestor} if facts[pid][2] != "Z")


def of_session(session: int) -> list[int]:
    """Return the living processes of a session."""
    return sorted(pid for pid, facts in _facts().items() if facts[1] == session and facts[2] != "Z")


def words_of(pid: int) -> list[bytes]:
    """Return the words of a process's command line; none if it has ended."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return []


def wait(run: subprocess.Popen[bytes], seconds: float) -> None:
    limit = time.monotonic() + seconds
    while run.poll() is None and time.monotonic() < limit:
        time.sleep(0.02)


def kill(run: subprocess.Popen[bytes], victim: str) -> int:
    """Kill Snakemake, a process of a stage, or the session; return 1, or 0 if there was none."""
    if run.poll() is not None:
        return 0
    if victim == "all":
        os.killpg(run.pid, signal.SIGKILL)
        return 1
    if victim == "snakemake":
        run.kill()
        return 1
    stages = [pid for pid in below(run.pid) if b"skyproof" in words_of(pid)[:5]]
    for pid in stages[-1:]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return len(stages[-1:])
