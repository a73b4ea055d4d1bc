"""Every benchmark runs at its tiny size: its code still works; its figures mean nothing."""

from __future__ import annotations

import importlib
import math

import pytest

from benchmarks import Result
from benchmarks.__main__ import known, main

# One needs SLURM: tests/cluster/test_load.py.
HERE = [name for name in known() if name != "load"]
UNITS = {
    *("s", "CPU s", "CPU-ms", "MiB", "MB/s", "%", "x", "1", "images/s", "blocks", "jobs"),
    "stamps per CPU second",
}


def check(result: Result) -> None:
    """Fail if a benchmark has no figures, or one without a name, a known unit or a sound value."""
    assert result.name
    assert result.rows
    names = [row.what for row in result.rows]
    assert all(names)
    assert len(set(names)) == len(names), names
    for row in result.rows:
        assert row.unit in UNITS, row
        assert math.isfinite(row.value), row
        assert row.value > 0 or row.any_sign, row


@pytest.mark.parametrize("name", HERE)
def test_a_tiny_run_gives_all_figures(name, monkeypatch):
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    module = importlib.import_module(f"benchmarks.{name}")
    assert module.Size() != module.TINY
    check(module.run(module.TINY))


def test_the_command_prints_a_table_and_names_the_machine(capsys):
    assert main(["--tiny", "cutouts"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("machine: ")
    assert lines[2].startswith("cutouts: 20 sources of a brick of 200 x 200 pixels")
    assert "(target >= 20)" in lines[6]


def test_an_unknown_benchmark_is_named_with_the_known_ones(capsys):
    assert main(["cutuots"]) == 2
    assert "unknown benchmark cutuots; known: cutouts, " in capsys.readouterr().err
