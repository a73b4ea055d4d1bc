"""A short summary of a finished run."""

from __future__ import annotations

from pathlib import Path

from skyproof.core.errors import InputError
from skyproof.core.options import stages, systems


def summary(results: Path) -> str:
    """Return one line per system with its verdict, then the paths of figures and report.

    Raises InputError if no system has finished.
    """
    # The verdict is of the last stage that writes one.
    verdicts = {
        system: path
        for system in systems()
        for stage in stages(system)
        if (path := results / system / stage / "verdict.md").is_file()
    }
    if not verdicts:
        raise InputError(
            results, "holds no finished system", expected="<system>/<stage>/verdict.md"
        )
    lines = [f"{system}: {_headline(path)}" for system, path in verdicts.items()]
    folders = " ".join(f"{path.parent}/" for path in verdicts.values())
    lines += [f"pictures and metrics: {folders}", f"training curves and traces: {results}/*/train/"]
    report = results / "report.zip"
    if report.is_file():
        lines.append(f"report: {report} (unpack it, open report.html)")
    lines.append("logs and timings of every job: logs/")
    return "\n".join(lines)


def _headline(verdict: Path) -> str:
    for line in verdict.read_text(encoding="utf-8").splitlines():
        text = line.strip().lstrip("#").strip().strip("*")
        if text and not line.startswith("#"):
            return text
    return "finished"
