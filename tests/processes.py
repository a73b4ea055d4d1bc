"""Which processes belong to which, for tests that end some of them."""

from __future__ import annotations

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
    """Return the words of a process's command line; none where it has ended."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return []
