"""Commands of a system: help, arguments, exit codes and one-line errors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import skyproof as package
from skyproof.core.commands import commands
from skyproof.core.options import systems
from tests.conftest import ROOT, clean_environment, one_line, skyproof


@pytest.fixture
def files(tmp_path) -> list[Path]:
    (tmp_path / "a.txt").write_text("1\n2\n")
    (tmp_path / "b.txt").write_text("6\n")
    return [tmp_path / "a.txt", tmp_path / "b.txt"]


def test_help_lists_a_command_under_the_stages_of_its_system():
    lines = skyproof("--help", toy=True).stdout.splitlines()
    found = [line.split()[0] for line in lines if line.startswith("  toy.")]
    assert found == ["toy.noise", "toy.total", "toy.mean", "toy.crash"]
    assert "  toy.mean         The mean of the numbers in text files." in lines


def test_help_of_a_command():
    result = skyproof("toy.mean", "--help", toy=True)
    assert result.returncode == 0
    for words in ("usage: python -m skyproof toy.mean", "It is rounded", "-d", "--debug"):
        assert words in result.stdout


def test_positional_files_and_short_options(files, tmp_path):
    result = skyproof("toy.mean", *files, toy=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, "3.000\n", "")
    out = tmp_path / "mean.txt"
    result = skyproof("toy.mean", "-d", "1", *files, "-o", out, toy=True)
    assert (result.returncode, result.stdout) == (0, "")
    assert out.read_text() == "3.0\n"
    assert not (tmp_path / ".journal").exists()  # no receipt


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "the following arguments are required: files"),
        (["-d", "many", "a.txt"], "argument -d/--digits: invalid int value: 'many'"),
        (["a.txt", "--dig", "2"], "unrecognized arguments: --dig"),
    ],
)
def test_usage_errors(words, expected):
    result = skyproof("toy.mean", *words, toy=True)
    assert result.returncode == 2
    assert one_line(result).startswith(f"skyproof toy.mean: error: {expected}")
    assert len(result.stderr.splitlines()) == 1


def test_bad_input(files):
    files[1].write_text("6\nblue\n")
    result = skyproof("toy.mean", *files, toy=True)
    assert result.returncode == 3
    line = f"skyproof toy.mean: error: {files[1]}, record 2: is 'blue'; expected a number"
    assert one_line(result) == line
    assert "Traceback" not in result.stderr
    result = skyproof("toy.mean", *files, "--debug", toy=True)
    assert result.returncode == 3
    assert "Traceback" in result.stderr
    assert result.stderr.splitlines()[-1] == line


def test_a_full_disk(files):
    result = skyproof("toy.mean", *files, "-o", "/dev/full", toy=True)
    assert result.returncode == 4
    assert "No space left on device" in one_line(result)


def test_an_unexpected_exception():
    result = skyproof("toy.crash", toy=True)
    assert result.returncode == 1
    assert "ZeroDivisionError: oops (a fault of skyproof; --debug shows where)" in one_line(result)
    assert "in crash" in skyproof("toy.crash", "--debug", toy=True).stderr


def test_an_unknown_command_is_compared_with_commands_and_stages():
    assert "did you mean mean?" in one_line(skyproof("toy.meen", toy=True))
    result = skyproof("toy.totals", toy=True)
    assert result.returncode == 2
    assert "unknown stage or command toy.totals; did you mean total?" in one_line(result)


@pytest.mark.parametrize("system", [*systems(), "toy"])
def test_commands_are_cheap_to_import_and_none_is_a_stage(system):
    """`commands` raises for a command with the name of a stage."""
    program = (
        f"import skyproof, sys; skyproof.__path__.append({str(ROOT / 'tests/systems')!r})\n"
        f"from skyproof.core.commands import commands; found = commands({system!r})\n"
        "assert all(value.__doc__ for value in found.values()), found\n"
        "print(' '.join(sys.modules))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", program],
        env=clean_environment(), capture_output=True, text=True, timeout=120, check=True,
    ).stdout.split()  # fmt: skip
    heavy = {"numpy", "torch", "matplotlib", "astropy", "sklearn", "pandas", "mpi4py"}
    assert not heavy & set(loaded)


def test_a_command_with_the_name_of_a_stage(tmp_path, monkeypatch):
    (tmp_path / "clash").mkdir()
    options = "from skyproof.core.options import StageOptions\n"
    options += "class Mean(StageOptions):\n    outputs = {'mean': None}\n"
    (tmp_path / "clash/options.py").write_text(options)
    (tmp_path / "clash/commands.py").write_text("def mean(parser, words): ...\n")
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    monkeypatch.delattr(package, "clash", raising=False)
    with pytest.raises(ValueError, match="mean is also a stage of clash"):
        commands("clash")
